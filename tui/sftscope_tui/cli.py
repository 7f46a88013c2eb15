"""The console script: the engine's commands, the explorer and the demo, and the one place for errors."""

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import sftscope
from sftscope.analysis import DEFAULT_HYSTERESIS, DEFAULT_RULE
from sftscope.cli import commands as engine_cli
from sftscope.cli.options import Hysteresis, Support, Tau, Train, Trajectory, folder, need_engine
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.output import put, put_traceback, put_usage
from sftscope.foundation.safe_text import safe_text, shell_command
from sftscope.foundation.signals import interrupt_on_signals, interrupted_exit_code
from sftscope.foundation.streams import OutputError, protect_streams
from sftscope.foundation.threads import set_thread_defaults
from sftscope_tui.contents.find_runs import check_runs, find_runs, sample_runs
from sftscope_tui.state.usable_terminal import argument, command_as_text, why_no_explorer

if TYPE_CHECKING:
    from sftscope_tui.state.start_options import Start

app = engine_cli.app
# what typer raises for wrong usage; it has its own name only inside the click that typer brings
_INTERRUPTED = 130  # what typer makes of KeyboardInterrupt
# the commands that keep what they have finished, and resume from it
RESUMING = frozenset({"run", "train", "extract", "attach", "demo"})
_BROKEN_PIPE = 128 + signal.SIGPIPE  # as for a program that the signal ends
_NOT_READ = 3
_UsageError: Any = typer.BadParameter.__base__
Glyphs = Annotated[str, typer.Option("--glyphs", help="Draw charts with braille, block or ascii.")]


def _show_version(asked: bool) -> None:
    if asked:
        put(f"sftscope {sftscope.__version__}")
        raise typer.Exit


@app.callback(help="See what fine-tuning does to a language model, step by step.")
def _about(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """The options that need no command."""


@app.command(help="Open the explorer: scrub through a run in the terminal.")
def explore(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN] [RUN2]", help="Run to open, and one to compare with. Without: the runs found."),
    ] = None,
    step: Annotated[int | None, typer.Option("--step", help="Step to start at.")] = None,
    base: Annotated[str, typer.Option("--base", help="Step to compare with: a number, or previous.")] = "",
    probe: Annotated[str, typer.Option("--probe", help="Id of the only probe to show.")] = "",
    tau: Tau = DEFAULT_RULE,
    hysteresis: Hysteresis = DEFAULT_HYSTERESIS,
    trajectory: Trajectory = False,
    support: Support = False,
    view: Annotated[str, typer.Option("--view", help="View to start with, such as changes.")] = "",
    filter: Annotated[str, typer.Option("--filter", help="Show only rows that match, as the key / does.")] = "",
    sort: Annotated[str, typer.Option("--sort", help="Order of the rows, such as delta.")] = "",
    glyphs: Glyphs = "",
    train: Train = "",
) -> None:
    check_runs(runs or ())
    found = runs or [*find_runs(Path()), *sample_runs()]
    if not found or (not runs and why_no_explorer()):
        list_runs()
        return
    from sftscope_tui.app.launch import explore as open_explorer

    def start() -> "Start":
        from sftscope_tui.state.start_options import Start

        return Start.parse(
            step=step,
            base=base,
            probe=probe,
            tau=tau,
            hysteresis=hysteresis,
            trajectory=trajectory,
            support=support,
            view=view or ("" if runs else "runs"),
            filter=filter,
            sort=sort,
            glyphs=glyphs,
            train=train,
        )

    open_explorer(found, start)


@app.command(help="Train, extract and explore an embedded small model.")
def demo(
    out: Annotated[Path, typer.Option("--out", parser=folder, help="Run folder of the demo.")] = Path("sftscope-demo"),
    no_explore: Annotated[bool, typer.Option("--no-explore", help="Do not open the explorer afterwards.")] = False,
) -> None:
    need_engine()
    from sftscope import demo as embedded

    embedded.run_demo(out)
    if no_explore or why_no_explorer():
        put(f"The demo's run is in {safe_text(str(out))}. Look at it with: {_command_to_explore(out)}")
        put(f"or as text: {command_as_text(out)}")
        return
    from sftscope_tui.app.launch import explore as open_explorer

    open_explorer([out])


def list_runs() -> None:
    """The runs that are found, as the commands that open them."""
    found = find_runs(Path())
    put("Runs here:" if found else "No run here; make one with 'sftscope demo' or 'sftscope run CONFIG --out RUN'.")
    for path in found:
        put(f"  {_command_to_explore(path)}")
    samples = [path for path in sample_runs() if path.resolve() not in {run.resolve() for run in found}]
    if samples:
        put("Sample runs:")
        for path in samples:
            put(f"  {_command_to_explore(path)}")


def _command_to_explore(run: Path) -> str:
    return shell_command(["sftscope", "explore", argument(run)])


def main() -> None:
    """Run a command; a user's error is one line and exit code 1, or 3 for a file not read now; a signal 128 and its
    number.
    """
    sys.excepthook = put_traceback
    protect_streams()
    interrupt_on_signals()
    set_thread_defaults(os.environ)  # before NumPy and PyTorch are imported, which commands do
    code = exit_code_of(sys.argv[1:])
    sys.exit(code or _exit_code(_flush))


def exit_code_of(arguments: Sequence[str]) -> int:
    """Run the command that `arguments` name; the exit code it ends with, its error said in one line."""
    end = "; the same command resumes from here" if RESUMING.intersection(arguments[:1]) else ""
    return _exit_code(lambda: app(list(arguments), standalone_mode=False) or 0, f"interrupted{end}")


def _exit_code(work: Callable[[], int], interrupted: str = "interrupted") -> int:
    """What `work` returns, or the exit code of the error that ends it, which is said in one line.

    interrupted: the line where a signal or Ctrl-C ends it.
    """
    try:
        code = work()
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
    except SftscopeError as error:
        return _failed(str(error), _NOT_READ if isinstance(error, NotReadError) else 1)
    except _UsageError as error:
        shown = io.StringIO()
        error.show(file=shown)
        put_usage(shown.getvalue())
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _failed(interrupted, interrupted_exit_code())
    except OutputError as error:
        return _BROKEN_PIPE if error.is_broken_pipe else _failed(str(error))
    except OSError as error:  # of a path that no one looked at before: too long, in a folder that may not be entered
        path = f"{safe_text(str(error.filename), max_length=400)}: " if error.filename else ""
        return _failed(f"{path}{error.strerror or safe_text(str(error))}")
    return code


def _flush() -> int:
    """Write what a command printed: only now a full disk or a reader that has left shows."""
    if sys.stdout is not None:
        sys.stdout.flush()
    return 0


def _failed(line: str, code: int = 1) -> int:
    engine_cli.fail(line)
    return code
