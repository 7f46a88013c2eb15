"""Any terminal, or none: the explorer says in one line where it cannot be shown, and where it can it comes to rest."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest
from textual.events import Resize
from textual.geometry import Size
from textual.message import Message
from textual.screen import Screen

from pseudo_terminal import PseudoTerminal
from sample_history import write_sample_run
from sftscope_tui.app.actions import ExplorerApp

SAMPLE = Path(__file__).parents[1] / "sample_runs" / "smollm2"
AS_TEXT = f"sftscope show --plain {SAMPLE}"
CANNOT = [{"TERM": ""}, {"TERM": "dumb"}, {"TERM": "unknown"}, {"TERM": "DUMB"}]
MOST_BYTES = 500_000  # of a few screens; the cycle wrote a million and more in a second
# What the check before the explorer keeps from happening: the app on a terminal that it would not be started on
UNCHECKED = (
    "import sys; from pathlib import Path; from sftscope_tui.app.actions import ExplorerApp; "
    "ExplorerApp(Path({})).run()"
)
UNCHECKED = UNCHECKED.format("sys.argv[1]")
Start = Callable[..., PseudoTerminal]


class Between(Message):
    """A message that no one handles."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program on a pseudo-terminal; what still runs at the end of a test is killed."""
    started = []

    def run(*arguments: object, environ: dict[str, str] | None = None, **options: object) -> PseudoTerminal:
        own = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CACHE_HOME": str(tmp_path / "cache"), **(environ or {})}
        started.append(PseudoTerminal([str(each) for each in arguments], environ=own, **options))  # type: ignore[arg-type]
        return started[-1]

    yield run
    for terminal in started:
        terminal.close()


def refuses(terminal: PseudoTerminal) -> str:
    """The one line that it ends with."""
    assert terminal.ended() == 1
    (line,) = terminal.text.splitlines()
    assert line.startswith("sftscope: the explorer cannot be shown here: ")
    assert len(terminal.written) < 1000
    assert "\x1b" not in line
    return line


# ---------------------------------------------------------------- where it cannot be shown


@pytest.mark.parametrize("environ", CANNOT, ids=lambda environ: environ["TERM"] or "unset")
def test_a_terminal_that_cannot_move_its_cursor_is_refused_in_one_line(start: Start, environ: dict[str, str]) -> None:
    line = refuses(start("explore", SAMPLE, environ=environ))
    assert line.endswith(AS_TEXT)
    assert "TERM" in line


@pytest.mark.parametrize("size", [(0, 0), (80, 0), (0, 24)])
def test_a_window_without_size_is_refused_in_one_line(start: Start, size: tuple[int, int]) -> None:
    line = refuses(start("explore", SAMPLE, size=size))
    assert f"reports {size[0]} columns and {size[1]} lines" in line
    assert line.endswith(AS_TEXT)


def test_a_size_that_the_user_sets_in_the_environment_counts(start: Start) -> None:
    """Textual takes it, for a serial line whose terminal never says its size."""
    terminal = start("explore", SAMPLE, size=(0, 0), environ={"COLUMNS": "80", "LINES": "24"})
    terminal.shows("smollm2")
    terminal.settle()
    terminal.press("q")
    assert terminal.ended() == 0


def test_two_runs_and_options_make_no_difference(start: Start) -> None:
    line = refuses(start("explore", SAMPLE, SAMPLE.parent / "gemma3", "--step", "8", environ={"TERM": "dumb"}))
    assert line.endswith(AS_TEXT)


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
def test_each_standard_stream_has_to_be_a_terminal(stream: str, tmp_path: Path, start: Start) -> None:
    """Keys, the size and the screen go through one each."""
    with (tmp_path / "elsewhere").open("w+") as file:
        terminal = start("explore", SAMPLE, **{stream: file.fileno()})
        assert terminal.ended() == 1
        file.seek(0)
        line = terminal.text + file.read()
    assert line.count("\n") == 1
    assert {"stdin": "input", "stdout": "output", "stderr": "error"}[stream] in line
    assert line.rstrip().endswith(AS_TEXT)


def test_without_any_terminal_nothing_but_the_line_is_written() -> None:
    code = "from sftscope_tui.cli import main; main()"
    command = [sys.executable, "-c", code, "explore", str(SAMPLE)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.endswith(f"{AS_TEXT}\n")
    assert result.stderr.count("\n") == 1


def test_closed_streams_are_no_terminals() -> None:
    """As a job of cron, or `<&-`, may have them."""
    code = "import os; os.close(0); os.execv({0!r}, [{0!r}, '-c', 'from sftscope_tui.cli import main; main()', {1}])"
    command = [sys.executable, "-c", code.format(sys.executable, f"'explore', {str(SAMPLE)!r}")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "standard input is not a terminal" in result.stderr


def test_the_answer_comes_before_textual_is_imported() -> None:
    code = (
        "import sys; sys.argv[1:] = ['explore', sys.argv[1]]\n"
        "from sftscope_tui.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in ('textual', 'h5py', 'torch') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(SAMPLE)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert result.stdout == "[]\n"


def test_without_a_run_a_terminal_that_cannot_show_the_explorer_gets_the_list_of_runs(start: Start) -> None:
    terminal = start("explore", environ={"TERM": "dumb"})
    assert terminal.ended() == 0
    assert f"sftscope explore {SAMPLE}" in terminal.text or "sftscope explore sample_runs/smollm2" in terminal.text
    assert "\x1b" not in terminal.text


@pytest.mark.parametrize(
    ("environ", "arguments"), [({"TERM": "dumb"}, []), ({}, ["--no-explore"])], ids=["TERM=dumb", "--no-explore"]
)
def test_a_demo_that_cannot_open_the_explorer_says_where_its_run_is(
    start: Start, tmp_path: Path, environ: dict[str, str], arguments: list[str]
) -> None:
    """The demo itself was a success."""
    out = tmp_path / "demo's run"
    code = (
        "import sys, types; sys.modules['sftscope.demo'] = types.SimpleNamespace(run_demo=lambda out: None);"
        "from sftscope_tui import cli; cli.need_engine = lambda: None; cli.main()"
    )
    terminal = start("demo", "--out", out, *arguments, code=code, environ=environ)
    assert terminal.ended() == 0
    quoted = str(out).replace("'", "'\"'\"'")
    assert f"sftscope explore '{quoted}'" in terminal.text
    assert f"sftscope show --plain '{quoted}'" in terminal.text
    assert "\x1b" not in terminal.text


@pytest.mark.parametrize("term", ["xterm-256color", "xterm-ghostty", "tmux-256color", "of-the-year-2040", "linux"])
def test_a_terminal_that_terminfo_does_not_know_is_taken_at_its_word(term: str) -> None:
    """Its entry is missing on many hosts that one logs in to."""
    assert can_move_cursor(term)


@pytest.mark.skipif(not shutil.which("tic"), reason="no tic, which compiles terminfo entries")
def test_a_terminal_of_which_terminfo_knows_that_it_cannot_move_its_cursor_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "printer.ti"
    source.write_text("printer,\n\tcols#80, cr=\\r, cud1=\\n, ind=\\n,\n")
    subprocess.run(["tic", "-o", tmp_path / "terminfo", source], check=True, capture_output=True)
    assert can_move_cursor("printer")
    assert not can_move_cursor("printer", TERMINFO=str(tmp_path / "terminfo"))


def can_move_cursor(term: str, **environ: str) -> bool:
    """The answer of a fresh process: curses reads one entry only."""
    code = "from sftscope.foundation.terminal import can_move_cursor; print(can_move_cursor())"
    known = {**os.environ, "TERM": term, **environ}
    result = subprocess.run([sys.executable, "-c", code], env=known, capture_output=True, text=True, check=True)
    return result.stdout == "True\n"


# ---------------------------------------------------------------- where it can


@pytest.mark.parametrize("size", [(80, 24), (80, 25), (120, 40)])
def test_the_explorer_comes_to_rest_and_q_ends_it(start: Start, size: tuple[int, int]) -> None:
    """After any number of sizes, whether the explorer fits into them or not, and where the terminal has none."""
    terminal = start("explore", SAMPLE, size=size)
    terminal.shows("smollm2")
    terminal.settle()
    for later in [(80, 25), (39, 9), (1, 1), (0, 0), (120, 40), size]:
        terminal.resize(*later)
        terminal.settle()
    assert len(terminal.written) < MOST_BYTES
    terminal.press("q")
    assert terminal.ended() == 0


def test_a_window_that_is_dragged_while_the_explorer_starts(start: Start) -> None:
    """Two sizes whose layouts undid each other for ever: on any terminal."""
    terminal = start("explore", SAMPLE)
    terminal.shows("\x1b[?1049h")
    for columns in range(70, 130):
        terminal.resize(columns, columns // 3)
        terminal.read(0.01)
    terminal.settle()
    assert len(terminal.written) < 3 * MOST_BYTES
    terminal.press("q")
    assert terminal.ended() == 0


@pytest.mark.parametrize(
    ("term", "size"),
    [("dumb", (80, 25)), ("dumb", (80, 24)), ("unknown", (120, 40)), ("", (0, 0)), ("xterm-256color", (0, 0))],
)
def test_without_the_check_it_comes_to_rest_too(start: Start, term: str, size: tuple[int, int]) -> None:
    """Rich says 80×25 of a dumb terminal and of a size of 0, whatever Textual's driver says."""
    terminal = start(SAMPLE, code=UNCHECKED, size=size, environ={"TERM": term})
    terminal.shows("smollm2")
    terminal.settle()
    assert len(terminal.written) < MOST_BYTES
    terminal.press("q")
    assert terminal.ended() == 0


def test_without_the_check_and_without_keys_it_comes_to_rest_too(start: Start) -> None:
    terminal = start(SAMPLE, code=UNCHECKED, environ={"TERM": "dumb"}, stdin=subprocess.DEVNULL)
    terminal.shows("smollm2")
    terminal.settle()
    assert len(terminal.written) < MOST_BYTES


@pytest.mark.parametrize("opens", ["", "question_mark", "t", "e", "ctrl+p", "theme"])
async def test_two_sizes_that_cross_on_their_way_to_a_screen_do_not_chase_each_other(
    opens: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every screen there is: the terminal's present size is laid out, once."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    app = ExplorerApp(write_sample_run(tmp_path / "run", n_steps=3, n_probes=1))
    async with app.run_test(size=(80, 24)) as pilot:
        while not app.settled or app.derived is None:
            await pilot.pause(0.01)
        if opens == "theme":
            app.action_change_theme()
        elif opens:
            await pilot.press(opens)
        await pilot.pause()
        screen, layouts = app.screen, list[Size]()
        assert (len(app.screen_stack) > 1) == bool(opens)

        screen.screen_layout_refresh_signal.subscribe(app, lambda changed: layouts.append(changed.outer_size))
        # a screen that never rests lets nothing else run, its end included: then a thread stops its layouts
        rescue = Timer(10, setattr, (screen, "stack_updates", 0))
        rescue.start()
        for size in (Size(100, 30), Size(80, 24), Size(90, 20), Size(80, 24)):
            _send_sizes(screen, size)
        await asyncio.sleep(0.5)
        rescue.cancel()
        assert len(layouts) < 10
        assert screen.outer_size == app.size == (80, 24)


def _send_sizes(screen: Screen[object], size: Size) -> None:
    """A size, and another message after it, so that Textual does not merge it with the next one."""
    screen.post_message(Resize(size, size))
    screen.post_message(Between())


def test_over_ssh_textual_is_imported_with_fewer_paints_a_second(start: Start) -> None:
    """It reads its settings at import, so nothing may import it before they are made."""
    code = (
        "from sftscope_tui.cli import main\n"
        "try: main()\n"
        "finally:\n from textual import constants; print('at most', constants.MAX_FPS)"
    )
    terminal = start("explore", SAMPLE, code=code, environ={"SSH_CONNECTION": "x", "TEXTUAL_FPS": ""})
    terminal.shows("smollm2")
    terminal.settle()
    terminal.press("q")
    assert terminal.ended() == 0
    assert "at most 15" in terminal.text


def test_a_run_that_has_no_step_yet_opens(start: Start, tmp_path: Path) -> None:
    """It is being made; the explorer waits with it."""
    run = write_sample_run(tmp_path / "new", n_steps=2, n_probes=1)
    shutil.rmtree(run / "steps")
    terminal = start("explore", run)
    terminal.shows("7 lists other runs")
    terminal.settle()
    terminal.press("q")
    assert terminal.ended() == 0


# ---------------------------------------------------------------- progress and help


PROGRESS = """
from sftscope.foundation.progress import progress
with progress("work") as shown:
    for done in range(4):
        shown(done, 3)
"""


@pytest.mark.parametrize("environ", CANNOT, ids=lambda environ: environ["TERM"] or "unset")
def test_progress_is_plain_lines_where_the_cursor_cannot_move(start: Start, environ: dict[str, str]) -> None:
    terminal = start(code=PROGRESS, environ=environ)
    assert terminal.ended() == 0
    assert "work: 3/3" in terminal.text
    assert "\x1b" not in terminal.text


def test_progress_is_a_bar_in_a_terminal_and_lines_in_a_pipe(start: Start) -> None:
    terminal = start(code=PROGRESS)
    assert terminal.ended() == 0
    assert "\x1b[" in terminal.text
    piped = subprocess.run([sys.executable, "-c", PROGRESS], capture_output=True, text=True, check=True)
    assert "work: 3/3" in piped.stderr
    assert "\x1b" not in piped.stderr + piped.stdout


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_help_and_show_have_no_colours_where_none_are_wanted(start: Start, environ: dict[str, str]) -> None:
    for arguments in (["--help"], ["explore", "--help"], ["show", SAMPLE, "--plain"]):
        terminal = start(*arguments, environ=environ)
        assert terminal.ended() == 0
        assert "\x1b" not in terminal.text


def test_help_in_a_pipe_has_no_escape_codes() -> None:
    code = "from sftscope_tui.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "explore" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr
