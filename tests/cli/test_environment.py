"""Where a command finds itself: no home, no working folder, names that are too long, Python's other switches."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import COMMANDS, fails_with_one_line, sftscope
from sample_history import write_sample_run
from sftscope.cli.options import need_engine
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import MOST_OF_A_KIND, first_of_each_kind
from sftscope.store import RunFolder
from sftscope.store.steps import step_file
from sftscope.verification.verify import verify
from sftscope_tui.app.exports import copy_file
from sftscope_tui.state.preferences import Remembered, in_home, recall, remember, state_folder


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, as in many containers."""

    def unknown(_: object) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_nothing_is_remembered_and_nothing_fails() -> None:
    assert state_folder() is None
    assert recall(None) == Remembered()
    assert not remember(None, Remembered())
    assert copy_file("text", "copied") == "copied; in no file, there is no home folder"
    assert in_home("~/x") is None
    assert in_home("~nobody-of-this-name/x") is None
    assert in_home("x/~") == Path("x/~")


def test_a_home_that_does_not_exist_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert state_folder() is None


def test_pytorch_is_not_started_in_a_folder_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its libraries end the process there, with a message of theirs."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SftscopeError, match="working folder cannot be used: No such file or directory; change to"):
        need_engine()


def test_names_that_no_system_takes_are_one_line(tmp_path: Path) -> None:
    name = "x" * 300
    assert "File name too long" in fails_with_one_line("verify", tmp_path / name)


def test_a_model_whose_name_is_no_text_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """run.toml names it, and TOML is UTF-8."""
    run = RunFolder(tmp_path / "run")
    with pytest.raises(SftscopeError, match=r"not UTF-8: path = \"/models/na·ve\"; rename it"):
        run.write_run({"format": 1, "settings": {"model": {"path": "/models/na\udcefve", "device": "cpu"}}})
    assert not run.path.exists()


def test_an_empty_name_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As "$OUT" is where OUT is not set."""
    monkeypatch.chdir(tmp_path)
    run = write_sample_run(tmp_path / "run", n_steps=2, n_probes=1)
    result = sftscope("report", run, "--out", "")
    assert result.returncode == 2
    assert "expected a folder, got an empty name" in result.stderr
    assert os.listdir(tmp_path) == ["run"]  # noqa: PTH208
    assert sftscope("show", "").returncode == 2


@pytest.mark.campaign
def test_help_and_results_are_those_of_python_without_switches(tmp_path: Path) -> None:
    """-OO drops docstrings and assertions, -W error makes an error of a warning."""
    run = write_sample_run(tmp_path / "run", n_steps=2, n_probes=1)
    code = "from sftscope_tui.cli import main; main()"
    listed = subprocess.run([sys.executable, "-OO", "-c", code, "--help"], capture_output=True, text=True, check=True)
    for name, command in COMMANDS.items():
        first = command.help.partition("\n")[0]
        assert f"{name:10} {first[:30]}" in listed.stdout
    shown = [
        subprocess.run([sys.executable, *switches, "-c", code, "show", str(run)], capture_output=True, check=True)
        for switches in ([], ["-OO", "-W", "error"])
    ]
    assert shown[0].stdout == shown[1].stdout
    assert shown[1].stderr == b""


def test_of_many_findings_of_a_kind_the_first_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are counted, and JSON has them; a file that is not ours never reaches the process that opens step files."""
    run = RunFolder(write_sample_run(tmp_path / "run", n_steps=1, n_probes=1))
    for step in range(10, 210):
        run.step_file(step).touch()
    monkeypatch.setattr(step_file, "salvage_apart", lambda *_, **__: pytest.fail("it was opened"))
    found = verify(run.path)
    lines = found.as_text().splitlines()
    assert sum("not a step file" in line for line in lines) == MOST_OF_A_KIND
    assert "… and 180 more of this kind" in lines
    assert len(found.damaged) == 201  # run.toml of a sample has no identity
    assert sum("not a step file" in each["what"] for each in found.as_dict()["findings"]) == 200


def test_entries_of_a_kind_differ_in_numbers_only() -> None:
    entries = ["a 1: b 2.5", "c 1", "a 2: b 3.5", "a 30: b 4.5"]
    assert first_of_each_kind(entries, 2) == ["a 1: b 2.5", "c 1", "a 2: b 3.5", "… and 1 more of this kind"]
    assert first_of_each_kind(entries, 3) == entries
