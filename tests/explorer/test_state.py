"""The explorer's view state and the pure parts around it: every key is a function from state to state."""

import inspect
import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip

from sample_history import write_sample_run
from sftscope.analysis.course.events import Event, Events
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets import views
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.set_diff import CHANGES
from sftscope.analysis.sets.views import Selection
from sftscope_tui.app.launch import set_terminal_defaults
from sftscope_tui.contents.background import Loader
from sftscope_tui.contents.change_table import arrange, build_table
from sftscope_tui.drawing import numbers as number_text
from sftscope_tui.drawing.palette import ON_DARK, Glyphs
from sftscope_tui.drawing.safe_lines import ControlFilter, shown
from sftscope_tui.state import view_state
from sftscope_tui.state.keys import KEYS, bindings, footer_items
from sftscope_tui.state.view_state import TURNS, BaseMode, Sort, View, ViewState
from sftscope_tui.widgets.lines import changed_spans, fit, line
from sftscope_tui.widgets.mirrored_bars import filled_bar, hollow_bar
from sftscope_tui.widgets.sparkline import Marks, area, bucketed, columns_of, marked, signed_line, value_range
from sftscope_tui.widgets.step_bar import StepBarContent, pages, step_pieces, verdict_pieces
from sftscope_tui.widgets.virtual_table import window

STEPS = (0, 1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64)
START = ViewState(run="r", steps=STEPS, probes=("p00", "p01", "p02"), step=6)


# ------------------------------------------------------------------ turns


def test_turns_are_pure_and_total() -> None:
    """Every turn gives a view_state, from every step, and leaves the old one alone."""
    for name, turn in TURNS.items():
        for step in range(len(STEPS)):
            before = replace(START, step=step)
            turned = turn(before)
            assert isinstance(turned, ViewState), name
            assert 0 <= turned.step < len(STEPS)
            assert before == replace(START, step=step)
    with pytest.raises(FrozenInstanceError):
        START.step = 3  # type: ignore[misc]


def test_steps_hold_at_both_ends() -> None:
    """One and ten steps on and back never leave the run."""
    assert TURNS["next_step"](START).step == 7
    assert TURNS["previous_step"](START).step == 5
    assert TURNS["ten_steps_on"](START).step == len(STEPS) - 1
    assert TURNS["ten_steps_back"](START).step == 0
    assert TURNS["next_step"](TURNS["last_step"](START)).step == len(STEPS) - 1


def test_go_to_takes_the_nearest_step() -> None:
    """A step that was not extracted leads to the closest one that was."""
    for number, expected in ((0, 0), (4, 3), (6, 5), (7, 8), (13, 12), (1000, 64)):
        assert view_state.go_to(START, number).step_number == expected


def test_next_change_stops_where_the_sets_change() -> None:
    """It skips steps without a change, and stays where there is none ahead."""
    changed = [index in (2, 9) for index in range(len(STEPS))]
    assert view_state.next_change(START, changed, 1).step == 9
    assert view_state.next_change(START, changed, -1).step == 2
    assert view_state.next_change(replace(START, step=9), changed, 1).step == 9


def test_probes_go_round() -> None:
    """Next and previous probe pass the end; `a` is all of them."""
    assert TURNS["next_probe"](START).probe == 0
    assert TURNS["previous_probe"](START).probe == 2
    assert TURNS["next_probe"](replace(START, probe=2)).probe == 0
    assert TURNS["all_probes"](replace(START, probe=2)).probe is None


def test_base_cycles_over_what_there_is() -> None:
    """First and previous; pinned only once a step is pinned."""
    previous = TURNS["cycle_base"](START)
    assert (previous.base_mode, previous.base, previous.trend_base) == (BaseMode.PREVIOUS, 5, 0)
    assert TURNS["cycle_base"](previous).base_mode is BaseMode.FIRST
    pinned = TURNS["next_step"](TURNS["pin"](START))
    assert (pinned.base_mode, pinned.base, pinned.step) == (BaseMode.PINNED, 6, 7)
    assert TURNS["cycle_base"](pinned).base_mode is BaseMode.FIRST
    unpinned = TURNS["pin"](TURNS["previous_step"](pinned))
    assert (unpinned.pinned, unpinned.base) == (None, 0)


def test_panes_by_width() -> None:
    """One pane below 100 columns, two below 160, three above; the chosen view is always among them."""
    for view in View:
        for width, count in ((60, 1), (99, 1), (100, 2), (159, 2), (160, 3), (300, 3)):
            shown_panes = view_state.panes_shown(view, width)
            assert len(shown_panes) == (1 if view in (View.RUNS, View.RAW) else count)
            assert view_state.panes_shown(view, width, zoom=True) == (view,)
            assert view in shown_panes


def test_tab_moves_the_focus_over_the_panes() -> None:
    """Tab walks over what is shown; where one pane is shown it is the next view."""
    panes = view_state.panes_shown(View.TRENDS, 160)
    turned = view_state.next_pane(START, panes)
    assert (turned.view, turned.focus) == (View.TRENDS, View.CHANGES)
    assert view_state.next_pane(START, (View.TRENDS,)).view is View.CHANGES


def test_rows_and_filter() -> None:
    """The cursor stays within the rows; a new filter or sort begins at the top."""
    assert view_state.move_row(START, 5, 3).row == 2
    assert view_state.move_row(START, -5, 3).row == 0
    assert view_state.move_row(START, 1, 0).row == 0
    assert view_state.with_filter(replace(START, row=4), "x").row == 0
    assert TURNS["cycle_sort"](replace(START, row=4)) == replace(START, row=0, sort=Sort.ORDER)


# ------------------------------------------------------------------ keys


def test_key_table_is_complete() -> None:
    """No key is bound twice, every row has its help, every turn is reachable, the footer has help and quit."""
    keys = [key for row in KEYS for key in row.keys.split(",")]
    assert len(keys) == len(set(keys))
    assert all(row.help and row.shown and row.group for row in KEYS)
    assert {f"app.turn('{name}')" for name in TURNS} <= {row.action for row in KEYS}
    assert [word for _, word in footer_items()][-2:] == ["help", "quit"]
    assert len(bindings()) == len(KEYS)


def test_every_action_exists() -> None:
    """Each row of the key table names an action of the app."""
    from sftscope_tui.app.actions import ExplorerApp

    for row in KEYS:
        name = row.action.removeprefix("app.").partition("(")[0]
        assert inspect.isfunction(getattr(ExplorerApp, f"action_{name}")), name


# ------------------------------------------------------------------ the table of changes


@pytest.fixture(scope="module")
def evolution(tmp_path_factory: pytest.TempPathFactory) -> Evolution:
    return Evolution(load_history(write_sample_run(tmp_path_factory.mktemp("runs") / "sample")))


@pytest.mark.parametrize("selection", [Selection(9), Selection(6, 3), Selection(2, 8, probe=1)])
def test_change_table_is_the_view(evolution: Evolution, selection: Selection) -> None:
    """Sorted by strength and unfiltered, the table holds the rows of `views.changes` in their order."""
    table = build_table(evolution, selection)
    expected = views.changes(evolution, selection)
    rows = arrange(table, Sort.STRENGTH, "")
    assert dict(table.counts) == expected.counts
    assert len(rows) == len(expected.rows)
    for row, wanted in zip(rows.tolist(), expected.rows, strict=True):
        assert table.words(row) == wanted.words
        assert CHANGES[table.change[row]] is wanted.change
        assert table.order[row] == wanted.order
        assert (table.effect_base[row], table.effect_now[row]) == (wanted.effect_base, wanted.effect_now)
        assert tuple(table.series(row)) == wanted.series
        assert table.find(table.identity(row)) == row


def test_sorts(evolution: Evolution) -> None:
    """Each sort orders by its column, and all of them list the same rows."""
    table = build_table(evolution, Selection(9))
    columns = {
        Sort.ORDER: table.order,
        Sort.CLASS: table.change,
        Sort.RELATION: table.relation,
        Sort.DELTA: -np.abs(table.effect_now - table.effect_base),
    }
    everything = set(range(table.subset.size))
    for sort, column in columns.items():
        rows = arrange(table, sort, "")
        assert set(rows.tolist()) == everything
        assert (np.diff(column[rows]) >= 0).all()


def test_filter_terms(evolution: Evolution) -> None:
    """Words match in part and in any case; signs, relations and orders are terms of their own; all must hold."""
    table = build_table(evolution, Selection(9))
    word = table.words(0)[0]

    def listed(text: str) -> list[int]:
        return arrange(table, Sort.STRENGTH, text).tolist()

    assert listed(word.upper()[:3])
    assert all(any(word[:3] in w for w in table.words(row)) for row in listed(word.upper()[:3]))
    assert all(table.order[row] == 2 for row in listed("order:2"))
    assert all(CHANGES[table.change[row]] is Change.EMERGED for row in listed("+"))
    assert all(table.relation[row] == 1 for row in listed("OR"))
    assert set(listed("+ OR")) == set(listed("+")) & set(listed("OR"))
    assert len(listed(">0")) + len(listed("<0")) == len(listed(""))
    assert listed("[b] \x1b") == []


# ------------------------------------------------------------------ drawing


def test_fit_counts_cells() -> None:
    """Wide characters take two cells, and what is cut keeps the width."""
    for text in ("abc", "房间很小", "a房b间c", "🙂🙂🙂", ""):
        for width in range(9):
            assert cell_len(fit(text, width)) == width
            assert line([(text, Style())], width).cell_length == width


def test_changed_spans_rebuild_the_line() -> None:
    """Writing the changed cells over the old line gives the new one, wide characters included."""
    pairs = [("abc def", "abX def"), ("房间abcdefg", "房x abcdefg"), ("aaaaaaaaaaaaaaaa", "baaaaaaaaaaaaaab")]
    for before, after in pairs:
        old, new = line([(before, Style())], 16), line([(after, Style())], 16)
        patched = old
        for x, width in changed_spans(old, new):
            parts = [patched.crop(0, x), new.crop(x, x + width), patched.crop(x + width)]
            patched = Strip.join(parts)
        assert patched.text == new.text
    assert changed_spans(line([("a", Style())], 4), line([("a", Style())], 4)) == []


@pytest.mark.parametrize("glyphs", list(Glyphs))
def test_area_has_gaps_for_nan(glyphs: Glyphs) -> None:
    """A gap is blank, a zero is not, more is drawn as more; ascii is ASCII."""
    values = (0.0, float("nan"), 1.0, 0.5, -1.0)
    rows = area(values, 5, 3, value_range(values), glyphs)
    columns = ["".join(row[x] for row in rows) for x in range(5)]
    assert columns[1].strip() == ""
    assert all(columns[x].strip() for x in (0, 2, 3, 4))
    assert [len(row) for row in rows] == [5, 5, 5]
    if glyphs is Glyphs.ASCII:
        assert all(row.isascii() for row in rows)
        assert signed_line([1, -1, 0.5], 9, glyphs).isascii()


@pytest.mark.parametrize(("n_steps", "width"), [(14, 24), (14, 14), (100, 24), (1, 8), (1000, 7)])
def test_every_step_has_its_columns(n_steps: int, width: int) -> None:
    """The cursor of every step lies within the chart, and steps together cover it."""
    covered = set()
    for index in range(n_steps):
        start, stop = columns_of(index, n_steps, width)
        assert 0 <= start < stop <= width
        covered |= set(range(start, stop))
    assert covered == set(range(width))
    assert bucketed(np.arange(n_steps), width).size == width


def test_buckets_are_means_of_what_is_defined() -> None:
    """NaN neither counts nor spreads; a bucket of nothing but NaN is a gap."""
    nan = float("nan")
    assert bucketed([1, 3, nan, 5, nan, nan], 3).tolist()[:2] == [2, 5]
    assert np.isnan(bucketed([1, 3, nan, 5, nan, nan], 3)[2])


def test_negative_is_lighter_than_positive() -> None:
    """The sign shows without colour, in lines and in bars."""
    for glyphs in Glyphs:
        assert signed_line([1.0], 1, glyphs) != signed_line([-1.0], 1, glyphs)
        assert filled_bar(1, 4, glyphs) != hollow_bar(1, 4, glyphs)
        assert filled_bar(1e-9, 4, glyphs).strip()
        assert not filled_bar(0, 4, glyphs).strip()


def test_marked_reverses_the_cursor() -> None:
    """The columns of the present step are reversed, the boundary stands where the row is empty."""
    pieces = marked("    ", Style(), Marks(cursor=0, boundary=1), 4, Glyphs.BLOCK)
    assert [(text, bool(style.reverse)) for text, style in pieces] == [("", False), (" ", True), (" ┊ ", False)]


def events(sparsest: Event) -> Events:
    return Events(sparsest, sparsest, sparsest)


def test_step_bar_shows_the_present_step_at_any_width() -> None:
    """Pages cover all steps; the present one is in brackets and reversed; the boundary is marked."""
    boundary = events(Event(4, 5, 3, 8, "because"))
    for width in (20, 40, 80, 200):
        found = pages(STEPS, width, 4)
        assert [index for page in found for index in page] == list(range(len(STEPS)))
        for now in range(len(STEPS)):
            pieces = step_pieces(StepBarContent(STEPS, now, None, boundary), width, ON_DARK)
            assert sum(cell_len(text) for text, _ in pieces) <= width
            assert [text for text, style in pieces if style.reverse] == [f"[{STEPS[now]}]"]
    whole = "".join(text for text, _ in step_pieces(StepBarContent(STEPS, 0, None, boundary), 200, ON_DARK))
    assert whole.startswith("[0] 1  2  3  5 ┊ 8 ")


def test_the_verdict_names_the_sparsest_step_or_why_there_is_none() -> None:
    """Either the step with its interval, or the reason."""

    def text(sparsest: Event) -> str:
        return "".join(part for part, _ in verdict_pieces(StepBarContent(STEPS, 0, None, events(sparsest)), ON_DARK))

    assert text(Event(4, 5, 3, 8, "because")) == "sparsest 5 (3–8)  because"
    assert text(Event(None, None, None, None, "it never falls")) == "no sparsest step  it never falls"


def test_window_keeps_the_cursor_visible() -> None:
    """The window moves no farther than the cursor asks, and is full where there are rows for it."""
    assert window(100, 5, 10, 0) == range(10)
    assert window(100, 10, 10, 0) == range(1, 11)
    assert window(100, 3, 10, 8) == range(3, 13)
    assert window(4, 3, 10, 2) == range(4)
    assert window(0, 0, 10, 0) == range(0)


def test_numbers() -> None:
    """Short, with a typographic minus; undefined is a dash."""
    assert [number_text.plain(v) for v in (0, 1.234, -12.34, 123.4, float("nan"))] == [
        "0.00",
        "1.23",
        "−12.3",
        "123",
        "–",
    ]
    assert [number_text.signed(v) for v in (0.5, -0.5, 0.0, 0.001)] == ["+0.50", "−0.50", "0.00", "0.00"]


# ------------------------------------------------------------------ hostile text, imports


def test_shown_and_filter_leave_no_control() -> None:
    """Neither gate lets a control character through, each on its own."""
    hostile = "a\x1b]52;c;AAAA\x07b\x9b31m\u202ec\u200bd\u2066e\n\x7f"
    for text in (shown(hostile), ControlFilter().apply([Segment(hostile)], Color(0, 0, 0))[0].text):
        assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in text)
        assert not any(c in text for c in "\u202e\u200b\u2066")
    plain = [Segment("plain")]
    assert ControlFilter().apply(plain, Color(0, 0, 0)) is plain


def test_launch_sets_defaults_over_ssh_only() -> None:
    """What the user set stays; without SSH only animations are off."""
    remote = {"SSH_CONNECTION": "1", "TEXTUAL_FPS": "60"}
    set_terminal_defaults(remote)
    assert remote["TEXTUAL_FPS"] == "60"
    assert remote["TEXTUAL_SMOOTH_SCROLL"] == "0"
    local: dict[str, str] = {}
    set_terminal_defaults(local)
    assert local == {"TEXTUAL_ANIMATIONS": "none"}


def test_the_app_never_imports_torch() -> None:
    """A fresh process that imports the app has no PyTorch; one that imports the launcher no Textual."""
    code = (
        "import json, sys, sftscope_tui.app.launch; early = 'textual' in sys.modules; import sftscope_tui.app.actions;"
        "print(json.dumps([early, *(m for m in ('torch', 'transformers', 'peft') if m in sys.modules)]))"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [False]


def test_a_loader_that_was_stopped_does_nothing_more() -> None:
    """As when a timer fires while the screen closes, on a slow machine."""
    posted: list[object] = []
    loader = Loader(SimpleNamespace(post_message=posted.append))  # type: ignore[arg-type]
    loader.request("first", lambda: 1)
    loader.stop()
    loader._thread.join()
    loader.request("late", lambda: 2)
    assert [done.key for done in posted] == ["first"]  # type: ignore[attr-defined]
