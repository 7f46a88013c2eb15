"""Any end leaves the terminal as a shell wants it: signals, a stopped process, a terminal that is gone or stuck."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pseudo_terminal import PATIENCE, PseudoTerminal
from sample_history import write_sample_run

UP = "\x1b[?2004h"  # bracketed paste on: the last that Textual writes before the first screen
# the alternate screen, the cursor, bracketed paste, reports of focus and of the mouse: (on, off)
MODES = [(f"\x1b[?{mode}h", f"\x1b[?{mode}l") for mode in (1049, 2004, 1004, 1000, 1003, 1006)]
MODES += [("\x1b[?25l", "\x1b[?25h"), ("\x1b[?7l", "\x1b[?7h"), ("\x1b[>25u", "\x1b[<u")]
# the explorer with less patience, so that a test need not have much
HASTY = "from sftscope_tui.app import ending; ending.PATIENCE = 0.3; from sftscope_tui.cli import main; main()"
IGNORES_HANGUP = (
    "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from sftscope_tui.cli import main; main()"
)
WORK = """
import time
from sftscope.foundation.progress import progress
from sftscope_tui import cli
@cli.app.command(help="Work.")
def work() -> None:
    with progress("work") as shown:
        shown(1, 3)
        time.sleep(60)
cli.main()
"""
Start = Callable[..., PseudoTerminal]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "run", n_steps=2, n_probes=1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program on a pseudo-terminal, in a process group of its own."""
    started = []

    def begin(*arguments: object, **options: object) -> PseudoTerminal:
        environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
        given = [str(each) for each in arguments]
        started.append(PseudoTerminal(given, environ=environ, start_new_session=True, **options))  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for terminal in started:
        terminal.close()


def left_on(written: str) -> list[str]:
    """The modes that were set last and never reset."""
    return [on for on, off in MODES if written.rfind(on) > written.rfind(off)]


def hang_up(terminal: PseudoTerminal) -> None:
    """Close the window."""
    os.close(terminal._ours)
    terminal._ours = -1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_explorer_and_restores_the_terminal(number: signal.Signals, run: Path, start: Start) -> None:
    """Sent to its process group, as a closed window and Ctrl-C of another program do; with the first screen, too."""
    terminal = start("explore", run)
    terminal.shows(UP)
    assert left_on(terminal.text)
    os.killpg(terminal.process.pid, number)
    assert terminal.ended() == 128 + number
    assert left_on(terminal.text) == []
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize("code", [None, IGNORES_HANGUP], ids=["SIGHUP", "under nohup"])
def test_a_window_that_is_closed_ends_the_explorer(code: str | None, run: Path, start: Start) -> None:
    """The process is not in the terminal's session, so that it gets no signal: only reading and writing fail."""
    terminal = start("explore", run, **({"code": code} if code else {}))
    terminal.shows(UP)
    hang_up(terminal)
    assert terminal.process.wait(PATIENCE) == 128 + signal.SIGHUP


def test_a_terminal_that_takes_no_more_output_does_not_hold_the_explorer(run: Path, start: Start) -> None:
    terminal = start("explore", run, code=HASTY)
    terminal.shows(UP)
    for columns in range(90, 115):  # some screens more than the terminal's buffer holds
        terminal.resize(columns, columns // 2)
        time.sleep(0.02)
    terminal.process.terminate()
    assert terminal.process.wait(PATIENCE) == 128 + signal.SIGTERM


@pytest.mark.campaign
def test_a_stopped_explorer_gives_the_terminal_back_and_takes_it_again(run: Path, start: Start) -> None:
    """Ctrl-Z and fg."""
    terminal = start("explore", run)
    terminal.shows(UP)
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.shows("\x1b[?1004l")
    os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WNOWAIT)  # a signal to continue before it is lost
    assert left_on(terminal.text) == []
    before = len(terminal.written)
    terminal.process.send_signal(signal.SIGCONT)
    terminal.shows(UP, since=before)
    terminal.process.terminate()
    assert terminal.ended() == 128 + signal.SIGTERM
    assert left_on(terminal.text) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_shows_the_cursor_that_a_progress_bar_hid(number: signal.Signals, start: Start) -> None:
    terminal = start("work", code=WORK)
    terminal.shows("\x1b[?25l")
    terminal.process.send_signal(number)
    assert terminal.ended() == 128 + number
    assert left_on(terminal.text) == []
    assert terminal.text.endswith("sftscope: interrupted\r\n")  # this command does not resume
    assert "Traceback" not in terminal.text


def test_work_whose_terminal_is_gone_goes_on_where_hang_up_is_ignored(tmp_path: Path, start: Start) -> None:
    """As under nohup: its progress is dropped, its end is its own."""
    end = f"import pathlib; pathlib.Path({str(tmp_path / 'end')!r}).touch()"
    code = IGNORES_HANGUP.replace("from sftscope_tui.cli import main; main()", "") + WORK.replace(
        "time.sleep(60)", f"time.sleep(1); shown(2, 3); shown(3, 3); {end}"
    )
    terminal = start("work", code=code)
    terminal.shows("\x1b[?25l")
    hang_up(terminal)
    assert terminal.process.wait(PATIENCE) == 0
    assert (tmp_path / "end").exists()
