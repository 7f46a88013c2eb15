"""`init`, `config` and `--set` from the command line to a run, on the toy model."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from run_configs import write_config
from sftscope.cli.commands import app
from sftscope.extraction import extract as extraction
from sftscope.foundation.errors import SftscopeError
from sftscope.runs import pipeline
from sftscope.store import RunFolder

SMALL = {
    "training.max_steps": "2",
    "training.effective_batch_size": "4",
    "training.micro_batch_size": "2",
    "training.checkpoints": "[0, 2]",
    "probes.n_words": "3",
}


def sftscope(*arguments: object) -> str:
    """What a command prints; its error is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def with_sets(**changed: str) -> list[str]:
    sets = SMALL | {f"training.{name}": value for name, value in changed.items()}
    return [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory: a toy model, rows and probes, and run.toml, written by `init`."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path).unlink()
    names = ["--model", "toy", "--train", "rows.jsonl", "--eval", "rows.jsonl", "--probes", "probes.jsonl"]
    Path("run.toml").write_text(sftscope("init", *names))
    return tmp_path


def test_a_new_config_runs_with_set_resumes_with_it_and_refuses_another(folder):
    sftscope("run", "run.toml", "--out", "run", *with_sets())
    run = RunFolder(folder / "run")
    assert run.steps() == (0, 2)
    content = run.read_run()
    assert (content["name"], content["settings"]["training"]["max_steps"]) == ("run", 2)
    assert content["settings"]["training"]["checkpoints"] == [0, 2]
    before = {path: path.stat().st_mtime_ns for path in folder.glob("run/steps/*")}
    sftscope("run", "run.toml", "--out", "run", *with_sets())
    assert {path: path.stat().st_mtime_ns for path in folder.glob("run/steps/*")} == before
    with pytest.raises(SftscopeError, match=r"\[training\] learning_rate is 0\.01, but .*run was begun with 0\.0001;"):
        sftscope("run", "run.toml", "--out", "run", *with_sets(learning_rate="1e-2"))
    with pytest.raises(SftscopeError, match=r"run\.toml: \[training\] max_steps is 0, but .*run was begun with 2;"):
        sftscope("train", "run.toml", "--out", "run", *with_sets(max_steps="0"))


def test_the_same_settings_in_the_config_and_by_set_are_one_run(folder):
    sets = [f"{key}={value}" for key, value in SMALL.items()]
    pipeline.train(Path("run.toml"), folder / "one", sets=[*sets, f"data.train={folder / 'rows.jsonl'}"])
    text = Path("run.toml").read_text()
    for key, value in SMALL.items():
        name = key.partition(".")[2]
        line = next(line for line in text.splitlines() if line.startswith(f"#{name} = "))
        text = text.replace(line, f"{name} = {value}", 1)
    Path("written.toml").write_text(text)
    pipeline.train(Path("written.toml"), folder / "one")
    pipeline.train(Path("written.toml"), folder / "two")
    identity = RunFolder(folder / "one").read_run()["identity"]
    assert RunFolder(folder / "two").read_run()["identity"] == identity


def test_run_resumes_with_the_memory_and_the_paths_that_it_is_given_now(folder, monkeypatch):
    sets = [f"{key}={value}" for key, value in SMALL.items()]
    pipeline.train(Path("run.toml"), folder / "run", sets=sets)
    (folder / "toy").rename(folder / "moved")
    used = []
    monkeypatch.setattr(extraction, "extract", lambda settings, *_, **__: used.append(settings))
    pipeline.run(Path("run.toml"), folder / "run", sets=[*sets, "extraction.memory_gb=0.5", "model.path=moved"])
    assert (used[0].extraction.memory_gb, used[0].model.path) == (0.5, str(folder / "moved"))


def test_plan_and_inspect_take_set(folder):
    found = json.loads(sftscope("inspect", "run.toml", "--json", *with_sets()))
    assert len(found["probe"]["variables"]) == 3
    plan = json.loads(sftscope("plan", "run.toml", "--json", *with_sets()))
    assert (plan["checkpoints"], plan["masked_states_per_checkpoint"]) == ([0, 2], 3 * 8)
    (folder / "run").mkdir()
    result = CliRunner().invoke(app, ["plan", "run", "--set", "probes.n_words=3"])
    assert (result.exit_code, "the settings of a run folder are fixed" in result.output) == (2, True)


def test_every_command_that_takes_a_config_takes_set():
    commands = typer.main.get_command(app).commands
    with_config = {
        name for name, command in commands.items() for each in command.params if "TOML file" in (each.help or "")
    }
    with_option = {name for name, command in commands.items() if any("--set" in each.opts for each in command.params)}
    assert with_option == with_config == {"run", "train", "plan", "inspect"}


def test_all_settings_are_listed_as_text_and_as_json_schema():
    assert "training.max_steps\n    default 0; a whole number, at least 0\n" in sftscope("config")
    assert "TrainingSettings" in json.loads(sftscope("config", "--json"))["$defs"]
