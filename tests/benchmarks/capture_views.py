"""Writes views of the explorer as SVG, for the main page and for looking at.

    python tests/benchmarks/capture_views.py RUN [--view trends ...] [--size 120x40] [--out FOLDER] [options]

Textual's own drawing of its screen, without the address of a font. Made again whenever a sample run
changes, by the same command.
"""

import argparse
import asyncio
import os
import re
import tempfile
from pathlib import Path

from sftscope_tui.app.launch import set_terminal_defaults

FONT_FACES = re.compile(r"@font-face \{.*?\}", re.DOTALL)  # they would be loaded from the network


async def capture(
    runs: list[Path], view: str, size: tuple[int, int], step: int | None, probe: str, keys: list[str]
) -> str:
    """The SVG of a view once all of it is computed; `keys` are pressed before."""
    from sftscope_tui.app.actions import ExplorerApp
    from sftscope_tui.state.start_options import Start

    app = ExplorerApp(*runs, start=Start.parse(view=view, step=step, probe=probe))
    async with app.run_test(size=size) as pilot:
        for key in ["", *keys]:
            await pilot.press(*([key] if key else []))
            for _ in range(6_000):
                await pilot.pause(0.01)
                if app.settled and not app.session.last.pending:
                    break
            await pilot.pause()
        svg = app.export_screenshot(title=f"sftscope explore {runs[0].name} --view {view}")
    return FONT_FACES.sub("", svg)


def main() -> None:
    """Write a file a view."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="the run, and one to compare with")
    parser.add_argument("--view", nargs="+", default=["trends", "changes", "orders", "backbone", "probe"])
    parser.add_argument("--size", default="120x36")
    parser.add_argument("--step", type=int)
    parser.add_argument("--probe", default="")
    parser.add_argument("--keys", nargs="*", default=[], help="pressed first, by Textual's names")
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    width, _, height = options.size.partition("x")
    with tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state  # what a user chose does not show
        (Path(state) / "sftscope").mkdir()
        (Path(state) / "sftscope" / "explorer.json").write_text('{"hint_seen": true}')
        set_terminal_defaults(os.environ)
        options.out.mkdir(parents=True, exist_ok=True)
        for view in options.view:
            shot = capture(options.runs, view, (int(width), int(height)), options.step, options.probe, options.keys)
            file = options.out / f"{view}.svg"
            file.write_text(asyncio.run(shot), encoding="utf-8")
            print(file)


if __name__ == "__main__":
    main()
