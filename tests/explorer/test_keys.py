"""The explorer as a user meets it, driven by keys at several sizes."""

import json
import re
from pathlib import Path

import pytest
from rich.segment import Segment
from textual.widgets import Input, Static

from explorer_pilot import app_of, opened, press, screen_text, settle, text_of
from sample_history import write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets import views
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection
from sftscope.store import RunFolder
from sftscope_tui.dialogs.dialogs import TextDialog, ThresholdDialog
from sftscope_tui.drawing.numbers import plain, signed, small
from sftscope_tui.panes.backbone import BackbonePane
from sftscope_tui.panes.changes import ChangesPane
from sftscope_tui.panes.orders import OrdersPane
from sftscope_tui.panes.pane import Pane
from sftscope_tui.panes.trends import TrendsPane
from sftscope_tui.state.view_state import BaseMode, Sort, View

SIZES = [(80, 24), (120, 40), (160, 48), (60, 20)]
HOSTILE = (
    "\x1b]52;c;AAAA\x07",
    "[/]",
    "[@click=app.quit]q[/]",
    "\u202eevil",
    "房间🙂",
    "\x9b2J",
    "[NAME]",
    "a\tb\nc",
)


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the explorer remembers stays within a test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "sample", n_steps=10)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_run(tmp_path_factory.mktemp("runs") / "short", n_steps=4)


@pytest.fixture(scope="module")
def evolution(run: Path) -> Evolution:
    return Evolution(load_history(run))


# ------------------------------------------------------------------ steps and views


@pytest.mark.parametrize("size", SIZES)
async def test_every_step_is_reachable(run: Path, short_run: Path, size: tuple[int, int]) -> None:
    """From the first step, the right arrow shows each checkpoint in turn, at every size, without a crash."""
    async with opened(run if size == (80, 24) else short_run, size, step=0) as pilot:
        for step in app_of(pilot).state.steps:
            assert app_of(pilot).state.step_number == step
            assert f"[{step}]" in text_of(pilot, "#steps")
            assert f"step {step} " in text_of(pilot, "#header")
            await press(pilot, "right")
        for key in "1234":
            await press(pilot, key)
            assert app_of(pilot).state.view in {p.view for p in pilot.app.screen.query(Pane) if p.display}


async def test_trends_show_the_numbers_of_the_view(run: Path, evolution: Evolution) -> None:
    """Every class and the run's own curves, at the present step."""
    async with opened(run, step=12) as pilot:
        now = app_of(pilot).state.step
        expected = views.trends(evolution, Selection(0))
        text = text_of(pilot, TrendsPane)
        for glyph, trend in zip("−=+", expected.classes.values(), strict=True):
            assert re.search(rf"{re.escape(glyph)} (count|n) {plain(trend.count_mean[now])}", text)
            assert f"{glyph} strength {plain(trend.strength_mean[now])}" in text
            random_signs = plain(trend.uncancelled_by_chance[now])
            assert f"{glyph} γu {plain(trend.uncancelled_mean[now])}, chance {random_signs}" in text
            z = expected.same_sign.z_mean if glyph == "=" else trend.z_mean
            assert re.search(rf"{re.escape(glyph)} z(, same sign)? {re.escape(signed(z[now]))}", text)
        soft = expected.soft
        assert f"effective number {plain(soft.effective_mean[now])}" in text
        assert f"− strength removed {small(soft.removed_mean[now])}" in text
        assert f"+ strength emerged {small(soft.emerged_mean[now])}" in text
        assert f", chance {plain(expected.preserved_by_chance[now])}" in text
        assert f"turnover {plain(expected.turnover[now])}" in text
        assert f"|Ω| {plain(expected.encoded_mean[now])}" in text
        assert re.search(f"eval (loss )?{small(expected.losses['eval'][now])}", text)
        assert f"error {small(expected.matching_error_encoded[now])}" in text
        assert f"sparsest at step {expected.events.sparsest.step}" in text_of(pilot, "#steps")


@pytest.mark.parametrize("size", SIZES)
async def test_changes_show_the_rows_of_the_view(run: Path, evolution: Evolution, size: tuple[int, int]) -> None:
    """The counts, and the strongest row first with its effects at both steps."""
    async with opened(run, size, step=24) as pilot:
        await press(pilot, "2")
        expected = views.changes(evolution, Selection(app_of(pilot).state.step))
        lines = text_of(pilot, ChangesPane).splitlines()
        assert "step 0 → 24" in lines[0]
        for glyph, count in zip("−=+", expected.counts.values(), strict=True):
            assert f"{glyph} {count}" in lines[0]
        assert expected.flipped > 0
        assert f"({expected.flipped} " in lines[0]
        first = expected.rows[0]
        assert lines[2].split()[1:4] == [first.relation, str(first.order), first.probe]
        assert signed(first.effect_base) in lines[2]
        assert signed(first.effect_now) in lines[2]
        assert first.words[0] in lines[2]


async def test_orders_show_effects_and_counts(run: Path, evolution: Evolution) -> None:
    """Sums of both signs at every order, and with `o` the counts."""
    async with opened(run, step=24) as pilot:
        await press(pilot, "3")
        expected = views.orders_view(evolution, Selection(app_of(pilot).state.step))
        text = text_of(pilot, OrdersPane)
        for rows in expected.classes.values():
            for row in rows:
                assert row.negative_mean == 0 or plain(row.negative_mean) in text
                assert row.positive_mean == 0 or plain(row.positive_mean) in text
        await press(pilot, "o")
        counts = text_of(pilot, OrdersPane)
        assert all(
            row.count_mean == 0 or plain(row.count_mean) in counts for rows in expected.classes.values() for row in rows
        )


async def test_backbone_says_where_it_is_undefined(tmp_path: Path) -> None:
    """A run of which several tokens are scored has no cross-entropy of one token: dashes, and the reason."""
    path = write_sample_run(tmp_path / "run", n_steps=3, n_probes=1)
    file = RunFolder(path).probes_file
    row = json.loads(file.read_text())
    file.write_text(json.dumps(row | {"target": {"id": 5, "ids": [5, 6], "text": "bad room"}}) + "\n")
    async with opened(path) as pilot:
        await press(pilot, "4")
        assert "undefined: several tokens are scored" in text_of(pilot, BackbonePane)


async def test_backbone_shows_the_numbers_of_the_view(run: Path, evolution: Evolution) -> None:
    """Cross-entropy with and without b of every row, and the losses."""
    async with opened(run, step=24) as pilot:
        await press(pilot, "4")
        now = app_of(pilot).state.step
        text = text_of(pilot, BackbonePane)
        expected = views.backbone(evolution, Selection(0))
        for row in expected.rows:
            assert small(row.cross_entropy[now]) in text
            assert small(row.cross_entropy_without_bias[now]) in text
        assert small(expected.losses["train"][now]) in text
        assert "emerged late" in text


async def test_panes_by_width(run: Path) -> None:
    """One, two or three panes; growing and shrinking never fails, and below 40×10 there is one line."""
    async with opened(run) as pilot:
        for size, count in (((80, 24), 1), ((120, 40), 2), ((160, 48), 3), ((60, 20), 1), ((30, 8), 0)):
            await pilot.resize_terminal(*size)
            await settle(pilot)
            panes = [p for p in pilot.app.screen.query(Pane) if p.display and p.parent.display]  # type: ignore[union-attr]
            assert len(panes) == count
        assert "sftscope needs 40×10" in screen_text(pilot)
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "1 Trends: against step 0" in screen_text(pilot)


# ------------------------------------------------------------------ keys


async def test_go_to_a_step(run: Path) -> None:
    """`:` takes a number; one that was not extracted leads to the nearest, and says so."""
    async with opened(run) as pilot:
        await press(pilot, "colon", "1", "3", "enter")
        assert app_of(pilot).state.step_number == 12
        assert "step 13 was not extracted; the nearest is 12" in text_of(pilot, "#footer")
        await press(pilot, "colon", "5", "escape")
        assert app_of(pilot).state.step_number == 12
        assert "quit" in text_of(pilot, "#footer")


async def test_filter_applies_while_typed(run: Path) -> None:
    """Rows shrink with each letter; escape restores what was; keys of the app are not taken from the input."""
    async with opened(run) as pilot:
        await press(pilot, "slash", *"room")
        assert app_of(pilot).state.view is View.CHANGES
        assert "with 'room'" in text_of(pilot, ChangesPane)
        await press(pilot, "q", "escape")
        assert app_of(pilot).state.filter == ""
        await press(pilot, "slash", *"room", "enter")
        assert app_of(pilot).state.filter == "room"
        await press(pilot, "2", "right")
        assert app_of(pilot).focused is None


async def test_cursor_stays_on_its_interaction(run: Path) -> None:
    """Stepping, sorting apart, the cursor keeps the interaction that it was put on."""
    async with opened(run, step=8) as pilot:
        await press(pilot, "2", "j", "j", "j", "j")
        app = app_of(pilot)
        assert app.derived is not None
        assert app.reading is not None
        before = app.derived.under_cursor(app.reading, app.state)
        await press(pilot, "right")
        assert app.derived.under_cursor(app.reading, app.state) == before
        await press(pilot, "pagedown", "pageup", "s")
        assert (app.state.sort, app.state.row) == (Sort.ORDER, 0)


async def test_base_pin_and_threshold(run: Path, evolution: Evolution) -> None:
    """Base and pin show in the title; another rule changes the sets; a wrong value is explained."""
    async with opened(run, step=24) as pilot:
        await press(pilot, "2", "d")
        assert "step 16 → 24" in text_of(pilot, ChangesPane)
        await press(pilot, "m", "right")
        assert "step 24 → 32" in text_of(pilot, ChangesPane)
        assert app_of(pilot).state.base_mode is BaseMode.PINNED
        assert "(24)" in text_of(pilot, "#steps")
        await press(pilot, "t")
        assert isinstance(pilot.app.screen, ThresholdDialog)
        pilot.app.screen.query_one(Input).value = "-3"
        await press(pilot, "enter")
        assert "expected a value ≥ 0" in str(pilot.app.screen.query_one("#wrong", Static).render())
        pilot.app.screen.query_one(Input).value = "0.5"
        await press(pilot, "enter")
        assert str(app_of(pilot).state.rule) == "max-step:0.5"
        assert "τ max-step 0.5" in text_of(pilot, "#header")
        reading = app_of(pilot).reading
        assert reading is not None
        assert reading.evolution.counts().sum() < evolution.counts().sum()


async def test_next_change_and_probes(run: Path) -> None:
    """`n` goes to a step where a set differs; `p` shows one probe, `a` all again."""
    async with opened(run, step=0) as pilot:
        await press(pilot, "n")
        assert app_of(pilot).state.step > 0
        await press(pilot, "p")
        assert "p00 → bad" in text_of(pilot, "#header")
        await press(pilot, "a")
        assert "all 4 probes" in text_of(pilot, "#header")


async def test_dialogs_open_and_close(run: Path) -> None:
    """Help, the row in full and the left-out files; escape leaves, and q in a dialog does not quit."""
    async with opened(run, step=24) as pilot:
        for key, words in (("question_mark", "next step"), ("space", "effect"), ("exclamation_mark", "was read")):
            await press(pilot, "2", key)
            assert isinstance(pilot.app.screen, TextDialog)
            assert words in screen_text(pilot)
            await press(pilot, "q")
            assert not isinstance(pilot.app.screen, TextDialog)
        await press(pilot, "c")
        assert "CommandPalette" in type(pilot.app.screen).__name__


# ------------------------------------------------------------------ what can be wrong with a run


async def test_missing_run_is_explained(tmp_path: Path) -> None:
    """A folder that is no run gives a sentence, and q quits."""
    async with opened(tmp_path / "none") as pilot:
        assert "not a run folder" in " ".join(screen_text(pilot).split())
        await press(pilot, "2", "right", "d")
        assert app_of(pilot).derived is None


async def test_damaged_step_is_named(tmp_path: Path) -> None:
    """A damaged file leaves a red line and its name; the other steps are shown."""
    path = write_sample_run(tmp_path / "damaged")
    file = RunFolder(path).step_file(8)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    async with opened(path) as pilot:
        assert "1 step file is left out: step_00000008.h5" in text_of(pilot, "#alert")
        assert 8 not in app_of(pilot).state.steps
        await press(pilot, "exclamation_mark")
        assert "damaged" in screen_text(pilot)


@pytest.mark.parametrize("size", SIZES)
async def test_hostile_words_stay_text(tmp_path: Path, size: tuple[int, int]) -> None:
    """Escape sequences, markup, bidirectional and wide characters: no control byte, and no broken column."""
    path = write_sample_run(tmp_path / "hostile[/]", words=HOSTILE, n=8, n_steps=5)
    async with opened(path, size) as pilot:
        for keys in (("1",), ("2",), ("j", "j"), ("space",), ("escape",), ("p",), ("3",), ("4",)):
            await press(pilot, *keys)
            text = screen_text(pilot)
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
            for strip in pilot.app.screen._compositor.render_strips():
                assert strip.cell_length == size[0]
        await press(pilot, "2")
        assert "[/]" in text_of(pilot, ChangesPane)


async def test_second_gate_stands_in_the_app(run: Path) -> None:
    """Even a widget that forgets the first gate cannot send an escape sequence."""
    async with opened(run) as pilot:
        segments = [Segment("x\x1b]52;c;AAAA\x07")]
        for line_filter in pilot.app.get_line_filters():
            segments = line_filter.apply(segments, pilot.app.screen.background_colors[1])
        assert "\x1b" not in segments[0].text


@pytest.mark.parametrize("glyphs", ["braille", "block", "ascii"])
async def test_charts_in_every_glyph_set(run: Path, glyphs: str) -> None:
    """All views draw with each set; ascii charts hold no braille and no block."""
    async with opened(run, glyphs=glyphs) as pilot:
        drawn = ""
        for key in "1234":
            await press(pilot, key)
            drawn += screen_text(pilot)
        assert bool(re.search("[\u2800-\u28ff]", drawn)) == (glyphs == "braille")
        assert bool(re.search("[\u2580-\u259f]", drawn)) == (glyphs != "ascii")


async def test_stale_results_do_no_harm(run: Path) -> None:
    """Keys faster than the loader end in the state that the keys add up to."""
    async with opened(run, step=0) as pilot:
        await press(pilot, *["right"] * 5, "d", "2", "p", "left", "a")
        assert app_of(pilot).state.step == 4
        assert f"[{app_of(pilot).state.step_number}]" in text_of(pilot, "#steps")
