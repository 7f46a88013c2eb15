"""Standard streams that are full, closed, of another encoding or without a reader: one line at most, no traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sample_history import write_sample_run
from sftscope.foundation.streams import _escaped

MAIN = "from sftscope_tui.cli import main; main()"
# with a Python that takes the locale at its word
POSIX = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}
NO_SPACE = "sftscope: standard output cannot be written: No space left on device\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "run", n_steps=2, n_probes=1)


def sftscope(*arguments: object, redirect: str = "", **environ: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a shell, with its streams as `redirect` says."""
    command = ["bash", "-o", "pipefail", "-c", f'"$@" {redirect}', "bash", sys.executable, "-c", MAIN]
    return subprocess.run(
        [*command, *map(os.fsencode, map(str, arguments))],
        env={**os.environ, **environ},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("environ", [POSIX, LATIN], ids=["ASCII", "Latin-1"])
def test_an_output_that_lacks_characters_gets_escapes(environ: dict[str, str], run: Path) -> None:
    """No value is lost to a question mark."""
    shown = sftscope("show", run, **environ)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert "τ".encode() not in shown.stdout
    assert rb"\u03c4" in shown.stdout


def test_escapes_are_those_of_json() -> None:
    text = json.dumps(["τ", "\N{GRINNING FACE}", "\udcff", "é"], ensure_ascii=False)
    for encoding in ("ascii", "latin-1", "utf-8"):
        error = UnicodeEncodeError(encoding, text, 0, len(text), "not there")
        assert _escaped(error)[1] == len(text)
        parts = []
        for character in text:
            try:
                parts.append(character.encode(encoding))
            except UnicodeEncodeError as error:
                parts.append(_escaped(error)[0].encode(encoding))
        assert json.loads(b"".join(parts).decode(encoding)) == ["τ", "\N{GRINNING FACE}", "\udcff", "é"]


@pytest.mark.parametrize("arguments", [["show"], ["status", "--json"]], ids=" ".join)
def test_a_full_disk_under_standard_output_is_one_line(arguments: list[str], run: Path) -> None:
    command, *options = arguments
    result = sftscope(command, run, *options, redirect="> /dev/full")
    assert (result.returncode, result.stderr.decode()) == (1, NO_SPACE)


def test_help_and_a_failure_on_a_full_disk_are_one_line_too(run: Path) -> None:
    result = sftscope("--help", redirect="> /dev/full")
    assert (result.returncode, result.stderr.decode()) == (1, NO_SPACE)
    result = sftscope("show", run.parent, redirect="2> /dev/full")
    assert (result.returncode, result.stdout, result.stderr) == (1, b"", b"")


def test_a_closed_standard_output_is_an_error_and_a_closed_standard_error_none(run: Path) -> None:
    """An error never goes to standard output instead, where a program expects JSON."""
    result = sftscope("show", run, redirect=">&-")
    assert (result.returncode, result.stderr) == (
        1,
        b"sftscope: standard output cannot be written: Bad file descriptor\n",
    )
    result = sftscope("show", run.parent, redirect="2>&-")
    assert (result.returncode, result.stdout, result.stderr) == (1, b"", b"")
    result = sftscope("show", run, redirect="<&- 2>&-")
    assert result.returncode == 0
    assert result.stdout


@pytest.mark.parametrize("arguments", [["--version"], ["show", "--json"]], ids=" ".join)
def test_a_reader_that_has_left_ends_the_command_quietly(arguments: list[str], run: Path) -> None:
    """With the exit code of a program that the signal ends, whether the output fits into a buffer or not."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", MAIN, *arguments, *([str(run)] if len(arguments) > 1 else [])]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")


def test_names_that_are_no_text_are_shown_and_written_safely(run: Path, tmp_path: Path) -> None:
    """The folder of a run on an old disk: Latin-1 where UTF-8 is expected."""
    folder = os.fsencode(tmp_path) + b"/na\xefve"
    shutil.copytree(os.fsencode(run), folder)
    report = sftscope("report", os.fsdecode(folder), "--out", os.fsdecode(folder + b"/out"), "--format", "md,json,csv")
    assert report.returncode == 0
    assert "/na·ve/out/report.md" in report.stdout.decode()
    out = Path(os.fsdecode(folder)) / "out"
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert (out / "report.md").read_text(encoding="utf-8")
    assert sftscope("show", os.fsdecode(folder), "--json").returncode == 0
