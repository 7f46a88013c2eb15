"""`verdict` and its exit codes, and how `run` and `attach` end."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from command_line import command
from sample_history import write_sample_run
from sftscope.analysis.conclusions.verdict import Decision, verdict_of
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.attach import attach as attaching
from sftscope.foundation.errors import NotReadError
from sftscope.foundation.safe_text import shell_command
from sftscope.reporting.answer.run_answer import EXIT_CODES, exit_code, weights_of
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope_tui.cli import _exit_code, app

SAMPLES = Path(__file__).parents[2] / "sample_runs"


def answers(*arguments: object) -> int:
    """The exit code of `sftscope ARGUMENTS`, in this process."""
    return _exit_code(lambda: app([*map(str, arguments)], standalone_mode=False) or 0)


def up_to(step: int, out: Path) -> Path:
    """smollm2 as it was when this step was its last; its verdict is to stop by step 48."""
    shutil.copytree(SAMPLES / "smollm2", out, ignore=shutil.ignore_patterns("placebo"))
    for file in (out / "steps").iterdir():
        if int(file.stem.removeprefix("step_")) > step:
            file.unlink()
    log = out / "training_log.jsonl"
    rows = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
    log.write_text("".join(f"{line}\n" for line in rows))
    return out


def test_a_job_fails_on_a_run_past_its_stop_and_passes_on_one_before(tmp_path: Path) -> None:
    """As in CI: a shell that ends with the first command that fails."""
    ended = {}
    for name, run in (("past", SAMPLES / "smollm2"), ("before", up_to(40, tmp_path / "run"))):
        job = f"{shell_command(command('verdict', run, '--fail-on', 'stop'))}; echo published"
        ended[name] = subprocess.run(["sh", "-e", "-c", job], capture_output=True, text=True, check=False)
    assert ended["past"].returncode == EXIT_CODES["stop"] == 10
    assert ended["past"].stdout.startswith("Stop by step 48: ")
    assert "published" not in ended["past"].stdout
    assert ended["before"].returncode == 0, ended["before"].stderr
    assert ended["before"].stdout.startswith("Do not stop at step 20: ")
    assert ended["before"].stdout.endswith("\npublished\n")


def test_each_verdict_has_an_exit_code_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, few = up_to(40, tmp_path / "before"), up_to(8, tmp_path / "few")
    for run, kind in ((SAMPLES / "gemma3", "stop"), (before, "do-not-stop"), (few, "not-enough")):
        assert answers("verdict", run) == 0
        assert answers("verdict", run, "--fail-on", kind) == EXIT_CODES[kind]
        assert answers("verdict", run, "--fail-on", ",".join(EXIT_CODES.keys() - {kind})) == 0
    assert not {0, 1, 2, 3} & set(EXIT_CODES.values())
    capsys.readouterr()
    assert answers("verdict", SAMPLES / "gemma3", "--fail-on", "stop,never") == 2
    assert "expected stop, do-not-stop, not-enough, joined by commas, got 'never'" in capsys.readouterr().err


def test_a_run_that_ended_where_it_should_has_nothing_to_fail_on() -> None:
    verdict = verdict_of(Evolution(load_history(SAMPLES / "smollm2")))
    assert verdict.decision is Decision.STOP_BY
    ended = type(verdict)(**{**vars(verdict), "past_stop": False})
    assert [exit_code(each, EXIT_CODES) for each in (verdict, ended)] == [10, 0]


def test_a_step_that_cannot_be_read_now_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_sample_run(tmp_path / "run", n_steps=3, n_probes=1, n=2)
    whole = RunFolder.read_step

    def read_step(folder: RunFolder, step: int, *rest: object) -> object:
        if step == 2:
            raise NotReadError("step_00000002.h5: too many open files")
        return whole(folder, step, *rest)

    monkeypatch.setattr(RunFolder, "read_step", read_step)
    assert answers("verdict", run) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "no verdict without it; run it again" in said.err


def test_json_has_the_checkpoint_to_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answers("verdict", SAMPLES / "smollm2", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["schema"], content["verdict"]["stop_by"], content["checkpoint"]) == ("sftscope-answer", 48, None)


def test_the_weights_are_in_the_run_or_at_the_training(tmp_path: Path) -> None:
    run, training = tmp_path / "run", tmp_path / "training"
    known = {"attached": {"checkpoints": str(training)}, "settings": {"model": {"path": "some/model"}}}
    assert weights_of(run, known, 8) is None
    for folder in (training, run / "checkpoints"):
        kept = folder / "checkpoint-8"
        kept.mkdir(parents=True)
        (kept / "trainer_state.json").write_text('{"global_step": 8, "log_history": []}')
        (kept / "adapter_model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
        assert weights_of(run, known, 8) == str(kept)
    assert weights_of(run, known, 0) == "some/model"


@pytest.mark.parametrize("how", ["run", "attach", "copies"])
def test_run_and_attach_end_with_the_verdict_and_what_comes_next(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my run"
    shutil.copytree(SAMPLES / "gemma3", out)
    monkeypatch.setattr(pipeline, "run", lambda *args, **options: None)
    monkeypatch.setattr(attaching, "attach", lambda *args: None)
    attach = ["attach", tmp_path, "--model", "m", "--probes", "p", "--out", out]
    config = SAMPLES / "gemma3.toml"
    commands = {"run": ["run", config, "--out", out], "attach": attach, "copies": [*attach, "--copy-only"]}
    assert answers(*commands[how]) == 0
    lines = capsys.readouterr().out.splitlines()
    if how == "copies":
        assert lines == []
        return
    assert lines[0] == f"Verdict: {verdict_of(Evolution(load_history(out))).sentence}"
    assert lines[1] == "Checkpoint to use: that of step 32; its weights are not in the run"
    assert lines[2:] == [
        f"Look at it: sftscope explore '{out}'",
        f"Report: sftscope report '{out}' --out '{out}-report'",
    ]


def test_a_run_that_cannot_be_read_does_not_fail_the_command_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "run", lambda *args, **options: None)
    assert answers("run", SAMPLES / "gemma3.toml", "--out", tmp_path) == 0
    assert capsys.readouterr().out.startswith("Verdict: none yet: ")
