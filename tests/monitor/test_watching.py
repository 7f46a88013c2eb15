"""`sftscope watch`: a line for each new checkpoint, and a command that gets nothing of a run on its command line."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sample_history import step_grid, write_sample_run
from sftscope.analysis.conclusions.verdict import verdict_of
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.foundation.errors import SftscopeError
from sftscope.monitor import watching
from sftscope.monitor.watching import Command, watch_run
from sftscope.store import RunFolder

T = 14


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose training ends with the last step; its name is a command in a shell."""
    path = write_sample_run(tmp_path / "run $(touch pwned) '", n_steps=T, n_probes=4, n=4)
    folder = RunFolder(path)
    content = folder.read_run()
    content["settings"]["training"]["max_steps"] = step_grid(T)[-1]
    folder.write_run(content)
    return path


def pauses(monkeypatch: pytest.MonkeyPatch, instead: Callable[[float], object]) -> None:
    """What is done in place of a pause, in the watching only."""
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=time.monotonic, sleep=instead))


@pytest.fixture
def growing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Takes all steps after the first `count` away, and brings one of them back in each pause of the watching."""

    def hide(count: int) -> None:
        files = sorted((run / "steps").iterdir())
        waiting = [shutil.move(file, tmp_path / file.name) for file in files[count:]]
        pauses(monkeypatch, lambda seconds: shutil.move(waiting.pop(0), run / "steps"))

    return hide


def test_each_new_checkpoint_is_a_line(
    run: Path, growing: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    growing(5)
    watch_run(run, None, every=1, idle=60)
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[1].rstrip(":")) for line in lines] == list(step_grid(T)[4:])
    assert all(", held-out loss " in line for line in lines)
    verdict = verdict_of(Evolution(load_history(run)), looks=True)
    assert lines[-1].endswith(f"; {verdict.sentence}")
    assert verdict.stop_by is not None


def test_the_command_runs_when_what_to_do_changes_and_only_then(
    run: Path, growing: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    growing(10)
    told = 'echo "$SFTSCOPE_RUN|$SFTSCOPE_DECISION|$SFTSCOPE_STOP_BY" >> told; cat > json'
    watch_run(run, Command.parse(f"sh -c '{told}'"), every=1, idle=60)
    verdict = verdict_of(Evolution(load_history(run)), looks=True)
    lines = (tmp_path / "told").read_text().splitlines()
    assert lines == [f"{run.name}|do not stop|", f"{run.name}|stop by|{verdict.stop_by}"]
    assert not list(tmp_path.rglob("pwned"))
    content = json.loads((tmp_path / "json").read_text())
    assert (content["schema"], content["run"]) == ("sftscope-answer", run.name)
    assert content["verdict"]["decision"] == "stop by"


@pytest.mark.parametrize("text", ["no-such-program --x", "sh -c 'open", "  "])
def test_a_command_that_cannot_be_run_is_an_error_at_once(text: str) -> None:
    with pytest.raises(SftscopeError, match="--on-verdict"):
        Command.parse(text)


def test_a_command_that_fails_or_hangs_ends_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "PATIENCE", 0.2)
    for text, said in (("false", "false ended with exit code 1"), ("sleep 9", "sleep took longer than 0.2 s")):
        watch_run(run, Command.parse(text), every=1, idle=60)
        assert said in capsys.readouterr().err


def test_watching_ends_where_nothing_comes(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    max((run / "steps").iterdir()).unlink()
    pauses(monkeypatch, lambda seconds: None)
    watch_run(run, None, every=1, idle=0)
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1
    assert "no longer watched" in said.err
