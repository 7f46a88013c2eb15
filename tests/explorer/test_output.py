"""What the explorer writes: nothing of a run's text but text, and of a change only what changed."""

import random
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from textual._compositor import ChopsUpdate
from textual.strip import Strip

from explorer_pilot import press, screen_text, settle
from hostile_run import EVIL, hostile_text, write_hostile_files, write_hostile_run
from sample_history import write_sample_run
from sftscope.store import RunFolder
from sftscope_tui.app.actions import ExplorerApp
from sftscope_tui.drawing import narrow_update
from sftscope_tui.drawing.narrow_update import narrowed
from sftscope_tui.state.keys import KEYS
from sftscope_tui.state.start_options import Start

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.campaign
async def test_hostile_strings_in_every_field(tmp_path: Path) -> None:
    """Words, prompts, ids, targets, model, names of losses and files, provenance: in all views and dialogs."""
    rng = random.Random(0)
    first = write_hostile_run(tmp_path / "a\x1b[2J[b]", rng, n_probes=12)
    write_hostile_files(first, rng)
    second = write_sample_run(tmp_path / "b\x9b31m", n_steps=3, n_probes=2)
    damaged = RunFolder(first).steps_folder / "step_00000099.h5"
    damaged.write_bytes(b"\x1b]52;c;AAAA\x07")
    app = ExplorerApp(first, second, start=Start.parse(view="changes"))
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        seen = ""
        for keys in ("1", "2", "jjj", "p", "P", "5", "wi", "6", "7", "8", "www", "v!T?", "2/"):
            for key in keys:
                await pilot.press(next((row.keys for row in KEYS if row.shown == key), key))
                await settle(pilot)
                seen += screen_text(pilot)
                for strip in app.screen._compositor.render_strips():
                    assert strip.cell_length == 120
                if len(app.screen_stack) > 1:
                    await press(pilot, "escape")
        assert not CONTROL.search(seen)
        assert "HXQ" in seen, "the strings were on the screen"


def test_hostile_texts_are_hostile() -> None:
    """Each of the sequences is in use."""
    text = "".join(hostile_text(random.Random(seed)) for seed in range(500))
    assert all(evil in text for evil in EVIL)


async def test_what_textual_sends_is_narrowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The private names of Textual that this leans on are still there: a scrub sends updates of the known kind."""
    sent: list[bool] = []

    def watched(update: object) -> object:
        sent.append(narrow_update._is_known(update))
        return narrowed(update)

    monkeypatch.setattr(narrow_update, "narrowed", watched)
    app = ExplorerApp(write_sample_run(tmp_path / "run", n_steps=3, n_probes=2))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        sent.clear()
        await press(pilot, "left")
        assert any(sent)


def test_only_a_known_update_is_narrowed() -> None:
    """The spans of Textual's own kind; anything else is sent as its maker renders it."""
    console = Console(color_system=None)
    strip = Strip.blank(10)
    update = ChopsUpdate([{0: strip}, {0: strip}], [(1, 2, 5)], [[10], [10]])
    wide = ChopsUpdate(update.chops, update.spans, update.chop_ends).render_segments(console)
    narrow = narrowed(update).render_segments(console)
    assert len(narrow) < len(wide)
    assert narrow.count(" ") == 3
    unknown = SimpleNamespace(chops=[object()], spans=[(0, 1)], chop_ends=[[1]], render_segments=lambda _: "as it is")
    assert narrowed(unknown).render_segments(console) == "as it is"
    assert narrowed(None) is None
