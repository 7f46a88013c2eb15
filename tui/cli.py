"""The console script: the engine's commands, the explorer and the demo, and the one place for errors."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import cli as engine_cli
from engine.errors import SftscopeError
from engine.text import safe_text

app = engine_cli.app
# what typer raises for wrong usage; it has its own name only inside the click that typer brings
_INTERRUPTED = 130
_UsageError: Any = typer.BadParameter.__base__
Glyphs = Annotated[str, typer.Option("--glyphs", help="Charts in braille, block or ascii.")]


@app.callback()
def _about() -> None:
    """See what fine-tuning does to a language model, step by step."""


@app.command()
def explore(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders; without one, those found here.")] = None,
    step: Annotated[int | None, typer.Option("--step", help="Step to start at.")] = None,
    glyphs: Glyphs = "braille",
) -> None:
    """Scrub through a run in the terminal."""
    from tui.launch import explore as open_explorer

    if runs:
        open_explorer(runs[0], step=step, glyphs=glyphs)
        return
    found = find_runs(Path())
    print("Runs here:" if found else "No run here; make one with 'sftscope demo' or 'sftscope run CONFIG --out RUN'.")
    for path in found:
        print(f"  sftscope explore {shlex.quote(safe_text(str(path)))}")
    samples = [path for path in sample_runs() if path.resolve() not in {run.resolve() for run in found}]
    if samples:
        print("Sample runs:")
        for path in samples:
            print(f"  sftscope explore {shlex.quote(safe_text(str(path)))}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Run folder of the demo.")] = Path("sftscope-demo"),
    no_explore: Annotated[bool, typer.Option("--no-explore", help="Do not open the explorer.")] = False,
) -> None:
    """The whole job on an embedded small model, without network, then the explorer."""
    engine_cli.need_engine()
    from engine import demo as embedded

    embedded.run_demo(out)
    if no_explore or not sys.stdout.isatty():
        print(f"The demo's run is in {out}. Look at it with: sftscope explore {out}")
        return
    from tui.launch import explore as open_explorer

    open_explorer(out, step=None, glyphs="braille")


def find_runs(folder: Path) -> list[Path]:
    """Run folders in `folder` and two levels below it, by name."""
    patterns = ("run.toml", "*/run.toml", "*/*/run.toml")
    return sorted({file.parent for pattern in patterns for file in folder.glob(pattern)})


def sample_runs() -> list[Path]:
    """The runs that ship with sftscope: beside the packages in a checkout, inside this one when installed."""
    beside, inside = Path(__file__).parents[1] / "sample_runs", Path(__file__).parent / "sample_runs"
    return find_runs(inside if inside.is_dir() else beside)


def main() -> None:
    """Run a command; a user's error is one line and exit code 1, an interruption 130."""
    try:
        code = app(standalone_mode=False) or 0
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except SftscopeError as error:
        engine_cli.fail(safe_text(str(error)))
        sys.exit(1)
    except _UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        engine_cli.fail("interrupted; the same command goes on from here")
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
