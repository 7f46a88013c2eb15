"""The explorer without a terminal: opened on a run, driven by keys, read as text."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from textual.pilot import Pilot

from sftscope_tui.app.actions import ExplorerApp
from sftscope_tui.state.start_options import Start
from sftscope_tui.widgets.lines import Lines


async def settle(pilot: Pilot[None]) -> None:
    """Wait until everything asked for is computed and painted."""
    app = pilot.app
    assert isinstance(app, ExplorerApp)
    for _ in range(12_000):  # a minute and more; on a busy machine each takes longer
        await pilot.pause(0.005)
        if app.settled:
            break
    else:
        raise AssertionError("the explorer never came to rest")
    await pilot.pause()


@asynccontextmanager
async def opened(path: Path, size: tuple[int, int] = (80, 24), **options: object) -> AsyncIterator[Pilot[None]]:
    """The explorer on a run, with everything loaded."""
    app = ExplorerApp(path, start=Start.parse(**options))  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield pilot


async def press(pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await settle(pilot)


def text_of(pilot: Pilot[None], kind: type[Lines] | str) -> str:
    return pilot.app.screen.query_one(kind, Lines).text if isinstance(kind, str) else pane(pilot, kind).text


def pane(pilot: Pilot[None], kind: type[Lines]) -> Lines:
    return pilot.app.screen.query_one(kind)


def screen_text(pilot: Pilot[None]) -> str:
    """What the compositor hands to the terminal, after the line filters."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in strips)


def app_of(pilot: Pilot[None]) -> ExplorerApp:
    app = pilot.app
    assert isinstance(app, ExplorerApp)
    return app
