"""The mouse does what keys do, and nothing else."""

from pathlib import Path

import pytest
from textual.events import MouseScrollDown, MouseScrollUp
from textual.pilot import Pilot

from explorer_pilot import app_of, opened, screen_text, settle
from sample_history import write_sample_run
from sftscope_tui.dialogs.dialogs import TextDialog
from sftscope_tui.state.view_state import Sort, View


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "sample", n_steps=8)


async def click(pilot: Pilot[None], text: str) -> None:
    """On the first cell of `text` on the screen."""
    lines = screen_text(pilot).splitlines()
    y = next(y for y, line in enumerate(lines) if text in line)
    await pilot.click(offset=(lines[y].index(text), y))
    await settle(pilot)


async def wheel(pilot: Pilot[None], kind: type[MouseScrollDown] | type[MouseScrollUp], y: int) -> None:
    await pilot._post_mouse_events([kind], None, (10, y), button=0)
    await settle(pilot)


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_steps_tabs_heads_and_rows_are_clicked(run: Path, size: tuple[int, int]) -> None:
    """Each to where it points; beside everything nothing happens."""
    async with opened(run, size, step=1) as pilot:
        app = app_of(pilot)
        await click(pilot, " 5 ")
        assert app.state.step_number == 5
        await click(pilot, " 2 Changes ")
        assert app.state.view is View.CHANGES
        for head, sort in (("rel ord", Sort.RELATION), ("ord ", Sort.ORDER), ("words, by", Sort.WORDS)):
            await click(pilot, head)
            assert app.state.sort is sort
        await click(pilot, "at 5")
        assert app.state.sort is Sort.NOW
        for _ in range(3):
            await pilot.press("j")
        await settle(pilot)
        pane = next(pane for pane in app.screen.query("ChangesPane"))
        x, y = pane.content_region.offset
        await pilot.click(offset=(x + 12, y + 2 + 5))
        await settle(pilot)
        assert app.state.row == 5
        await pilot.click(offset=(x + 12, y + 2 + 5))
        await settle(pilot)
        assert isinstance(app.screen, TextDialog)
        await pilot.press("escape")
        before = app.state
        await pilot.click(offset=(size[0] - 1, 0))
        await settle(pilot)
        assert app.state == before


async def test_the_wheel_moves_rows_and_steps(run: Path) -> None:
    """Rows in a list, steps over the charts and the steps themselves; held at either end."""
    async with opened(run, view="changes", step=3) as pilot:
        app = app_of(pilot)
        await wheel(pilot, MouseScrollDown, 10)
        assert app.state.row == 3
        await wheel(pilot, MouseScrollUp, 10)
        await wheel(pilot, MouseScrollUp, 10)
        assert app.state.row == 0
        await wheel(pilot, MouseScrollDown, 1)
        assert app.state.step_number == 5
        await pilot.press("1")
        await settle(pilot)
        await wheel(pilot, MouseScrollUp, 10)
        assert app.state.step_number == 3


async def test_runs_are_clicked(run: Path, tmp_path: Path) -> None:
    """A click chooses a run, a second one opens it; before a run is there the mouse does no harm."""
    write_sample_run(tmp_path / "other", n_steps=3, n_probes=1)
    async with opened(tmp_path / "none") as pilot:
        app = app_of(pilot)
        await pilot.click(offset=(10, 1))
        await wheel(pilot, MouseScrollDown, 1)
        await pilot.press("7")
        await settle(pilot)
        await click(pilot, "other")
        await click(pilot, "other")
        assert app.session.name == "other"
