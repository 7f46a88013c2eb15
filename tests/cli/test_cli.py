"""The command line: every command has help and is in the reference; a user's error is one line and exit code 1."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from command_line import COMMANDS, fails_with_one_line, sftscope
from pseudo_terminal import PseudoTerminal
from run_configs import write_config
from sample_history import write_sample_run
from sftscope_tui.cli import RESUMING

REFERENCE = Path(__file__).parents[2] / "engine" / "COMMANDS.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_is_in_the_reference(name):
    command = COMMANDS[name]
    assert command.help
    assert all(parameter.help for parameter in command.params), name
    assert f"\n## sftscope {name}\n" in REFERENCE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_default_passes_its_own_check(name):
    """A default comes to a parser as the value that it is, not as the text that a user types."""
    command = COMMANDS[name]
    context = command.context_class(command, info_name=name)
    for parameter in command.params:
        if not parameter.required and parameter.name != "help":
            parameter.process_value(context, parameter.get_default(context))


def test_help_does_not_import_heavy_libraries():
    heavy = ("torch", "textual", "h5py", "numpy", "transformers")
    code = f"import sys, sftscope_tui.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "does", "line"),
    [
        ("report", "sftscope.reporting.forms.write_report", "interrupted"),
        ("extract", "sftscope.runs.pipeline.extract", "interrupted; the same command resumes from here"),
        ("demo", "sftscope.demo.run_demo", "interrupted; the same command resumes from here"),
    ],
)
def test_only_a_command_that_resumes_says_so(command, does, line, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(does, interrupted)
    run = write_sample_run(tmp_path / "run", n_steps=2, n_probes=1)
    given = {"report": [run, "--out", tmp_path / "out"], "extract": [run], "demo": ["--out", run]}
    result = sftscope(command, *given[command])
    assert (result.returncode, result.stdout, result.stderr) == (130, "", f"sftscope: {line}\n")


def test_every_command_that_is_said_to_resume_is_one():
    assert set(COMMANDS) >= RESUMING


def test_wrong_usage_is_exit_code_2():
    assert sftscope("show").returncode == 2
    assert sftscope("nonsense").returncode == 2


def config_with(tmp_path, **changes: str) -> Path:
    tables = {
        "model": 'path = "model"',
        "data": 'train = "rows.jsonl"',
        "probes": 'file = "probes.jsonl"\nn_words = 3',
        "training": "epochs = 1",
    } | changes
    (tmp_path / "model").mkdir(exist_ok=True)
    for name in ("rows.jsonl", "probes.jsonl"):
        (tmp_path / name).touch()
    path = tmp_path / "config.toml"
    path.write_text("".join(f"[{table}]\n{body}\n" for table, body in tables.items()))
    return path


def test_a_missing_file_is_one_line(tmp_path):
    assert "no such config file" in fails_with_one_line("run", tmp_path / "none.toml", "--out", tmp_path / "run")
    config = config_with(tmp_path, data='train = "gone.jsonl"')
    assert "gone.jsonl does not exist" in fails_with_one_line("run", config, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_field_is_one_line_with_its_place(tmp_path):
    config = config_with(tmp_path, training="epochs = 1\nlerning_rate = 1")
    line = fails_with_one_line("run", config, "--out", tmp_path / "run")
    assert "config.toml, line 10: unknown field 'lerning_rate' in [training]; did you mean 'learning_rate'?" in line


def test_too_few_words_in_a_probe_is_one_line(tmp_path):
    config = write_config(tmp_path)
    (tmp_path / "probes.jsonl").write_text('{"id": "short", "input": "not happy", "response": "sad"}\n')
    line = fails_with_one_line("run", config, "--out", tmp_path / "run")
    assert "probes.jsonl, line 1: too few words in probe 'short': 2 of the 4 asked for" in line


def test_a_folder_that_is_no_model_is_one_line(tmp_path):
    config = config_with(tmp_path)
    (tmp_path / "probes.jsonl").write_text('{"input": "not happy at all", "response": "sad"}\n')
    assert "not a model folder" in fails_with_one_line("run", config, "--out", tmp_path / "run")


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    for command in (["show"], ["extract"], ["report", "--out", tmp_path / "r"]):
        line = fails_with_one_line(command[0], tmp_path, *command[1:])
        assert "not a run folder" in line


def test_show_and_report_give_the_same_numbers(tmp_path):
    run = write_sample_run(tmp_path / "run")
    shown = json.loads(sftscope("show", run, "--json").stdout)
    result = sftscope("report", run, "--out", tmp_path / "report")
    assert result.returncode == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert shown["trends"] == report["trends"]
    assert result.stdout.splitlines() == [str(tmp_path / "report" / name) for name in ("report.md", "report.json")]


def test_show_takes_step_base_probe_and_tau(tmp_path):
    run = write_sample_run(tmp_path / "run")
    whole = json.loads(sftscope("show", run, "--json").stdout)
    step, base = whole["steps"][3], whole["steps"][1]
    part = sftscope(
        "show",
        run,
        "--json",
        "--step",
        step,
        "--base",
        base,
        "--tau",
        "top-k:5",
        "--probe",
        whole["probes"][0] if "probes" in whole else "p00",
    )
    chosen = json.loads(part.stdout)
    assert (chosen["step"], chosen["base_step"], chosen["tau"]["rule"]) == (step, base, "top-k")
    assert "unknown threshold rule" in fails_with_one_line("show", run, "--tau", "nonsense")
    assert "is not among the extracted steps" in fails_with_one_line("show", run, "--step", 10**6)


def test_decompose_returns_a_pure_and_game_with_its_certificate(tmp_path):
    scores = np.zeros(8)
    scores[[3, 7]] = 2.0  # both of the first two variables present
    np.save(tmp_path / "scores.npy", scores)
    (result,) = json.loads(sftscope("decompose", tmp_path / "scores.npy", "--json").stdout)
    assert [(i["relation"], i["variables"], round(i["effect"], 6)) for i in result["interactions"]] == [
        ("AND", [0, 1], 2.0)
    ]
    assert result["gap"] <= 1e-3
    text = sftscope("decompose", tmp_path / "scores.npy").stdout
    assert "AND" in text
    assert "certified relative gap" in text


def test_decompose_by_the_reference_solver_says_that_it_is_not_optimal(tmp_path):
    np.save(tmp_path / "scores.npy", np.array([0.0, 1.0, -0.5, 2.0]))
    text = sftscope("decompose", tmp_path / "scores.npy", "--zeta", "0.1", "--solver", "reference").stdout
    assert "not optimal: relative gap" in text
    message = fails_with_one_line("decompose", tmp_path / "scores.npy", "--solver", "best")
    assert "expected certified or reference" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros(6), r"expected 2^n scores"),
        (np.array(["a", "b"]), "dimensions of numbers"),
        (np.array([0.0, np.nan]), "finite"),
    ],
)
def test_decompose_refuses_what_is_no_score_vector(tmp_path, content, message):
    np.save(tmp_path / "scores.npy", content)
    assert message in fails_with_one_line("decompose", tmp_path / "scores.npy")


def test_decompose_unpickles_nothing(tmp_path):
    np.save(tmp_path / "scores.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert "not a .npy file of numbers" in fails_with_one_line("decompose", tmp_path / "scores.npy")


def test_show_plain_has_every_view_for_screen_readers(tmp_path):
    run = write_sample_run(tmp_path / "run", n_steps=4, n_probes=2)
    text = sftscope("show", run, "--plain").stdout
    for title in ("Trends", "Changes", "Orders", "Backbone", "Probe p00", "step file of step 3"):
        assert title in text
    probe = sftscope("show", run, "--plain", "--view", "probe", "--probe", "p01").stdout
    verdict, _, title, *_ = probe.splitlines()
    assert verdict.startswith("verdict: Not enough evidence to stop: ")
    assert title.startswith("Probe p01: step 3 against step 0")
    assert "unknown view" in fails_with_one_line("show", run, "--plain", "--view", "nonsense")


@pytest.mark.parametrize("option", ["--view", "--sort", "--glyphs", "--base"])
def test_explore_refuses_what_it_does_not_know(tmp_path, option):
    run = write_sample_run(tmp_path / "run", n_steps=2, n_probes=1)
    terminal = PseudoTerminal(["explore", str(run), option, "nonsense"])
    assert terminal.ended() == 1
    (line,) = terminal.text.splitlines()
    assert line.startswith(f"sftscope: {option} 'nonsense': expected")


def test_explore_refuses_what_is_no_run_whichever_of_its_arguments_it_is(tmp_path):
    run = write_sample_run(tmp_path / "run", n_steps=2, n_probes=1)
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "nothing", tmp_path / "empty", run / "run.toml"):
        said = fails_with_one_line("show", wrong)
        assert f"{wrong}: not a run folder (no run.toml)" in said
        assert fails_with_one_line("explore", wrong) == said
        assert fails_with_one_line("explore", run, wrong) == said
        assert fails_with_one_line("explore", run, run, wrong) == said


def test_explore_without_a_run_lists_the_runs_it_finds_and_the_sample_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = sftscope("explore").stdout
    assert "No run here" in alone
    assert "smollm2" in alone
    write_sample_run(tmp_path / "runs" / "one")
    assert "sftscope explore runs/one" in sftscope("explore").stdout


def test_control_characters_of_a_path_do_not_reach_the_terminal(tmp_path):
    line = fails_with_one_line("show", tmp_path / "evil\x1b]52;c;aGk=\x07")
    assert "\x1b" not in line
