"""What is said within another program: to its logging, or to stderr where it configured none; each line once."""

import logging
from collections.abc import Iterator

import pytest

from sftscope.foundation.progress import hosted, progress, say

LOGGER = logging.getLogger("sftscope")


class Kept(logging.Handler):
    """Keeps the lines that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name} {record.levelname} {record.getMessage()}")


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """No test leaves a handler or a level behind."""
    yield
    for logger in (LOGGER, logging.getLogger()):
        logger.handlers = [each for each in logger.handlers if not isinstance(each, Kept | logging.NullHandler)]
    LOGGER.propagate = True
    LOGGER.setLevel(logging.NOTSET)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr gets of two lines, in a process whose logging has the handlers of the test alone."""
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if isinstance(each, Kept)]  # pytest has put its own there
    with hosted():
        say("sftscope: save asked for \x1b[2J")
        say("sftscope: the end of denoising", logging.WARNING)
    return capsys.readouterr().err


def test_without_a_handler_the_lines_are_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys).splitlines()
    assert [line.split(":")[0] for line in lines] == ["sftscope", "sftscope"]
    assert "\x1b" not in lines[0]


@pytest.mark.parametrize("where", [LOGGER, logging.getLogger()], ids=["ours", "root"])
def test_a_handler_of_the_program_gets_each_line_once_and_stderr_none(
    where: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    where.addHandler(kept := Kept())
    LOGGER.setLevel(logging.INFO)
    assert said(capsys) == ""
    first, second = kept.lines
    assert first.startswith("sftscope INFO save asked for")
    assert "\x1b" not in first
    assert second == "sftscope WARNING the end of denoising"


def test_the_level_holds_with_a_handler_and_without(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.setLevel(logging.WARNING)
    assert said(capsys) == "sftscope: the end of denoising\n"
    LOGGER.addHandler(kept := Kept())
    assert said(capsys) == ""
    assert kept.lines == ["sftscope WARNING the end of denoising"]


def test_what_is_silenced_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.addHandler(logging.NullHandler())
    LOGGER.propagate = False
    assert said(capsys) == ""


def test_progress_within_another_program_is_logged_lines(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.addHandler(kept := Kept())
    LOGGER.setLevel(logging.INFO)
    with hosted(), progress("scoring") as report:
        report(2, 2)
    assert kept.lines == ["sftscope INFO scoring: 2/2 after 0 s"]
    assert capsys.readouterr().err == ""


def test_our_own_commands_do_not_log(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.addHandler(kept := Kept())
    say("one line")
    assert capsys.readouterr().err == "one line\n"
    assert kept.lines == []
