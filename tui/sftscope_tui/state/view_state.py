"""The view state: what the explorer shows, as one frozen record, and every key as a pure function of it.

Knows the shape of a run (its steps and probe names), not its contents; nothing here draws or reads.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sftscope.analysis import DEFAULT_HYSTERESIS
from sftscope.analysis.sets.thresholds import ThresholdRule, default_rule


class View(StrEnum):
    """The views, in the order of their keys."""

    TRENDS = "Trends"
    CHANGES = "Changes"
    ORDERS = "Orders"
    BACKBONE = "Backbone"
    PROBE = "Probe"
    COMPARE = "Compare"
    RUNS = "Runs"
    RAW = "Raw"

    @property
    def number(self) -> int:
        """The key that chooses the view."""
        return list(View).index(self) + 1


class BaseMode(StrEnum):
    """Which step the present one is compared with."""

    FIRST = "first"
    PREVIOUS = "previous"
    PINNED = "pinned"


class Sort(StrEnum):
    """What the rows of Changes are ordered by; ties go to the stronger interaction."""

    STRENGTH = "strength"
    ORDER = "order"
    DELTA = "Δ"
    CLASS = "class"
    RELATION = "relation"
    WORDS = "words"
    NOW = "effect now"


class OrdersOf(StrEnum):
    """What Orders draws: effects or counts of the sets under τ, or strengths of the soft classes, which need no τ."""

    EFFECTS = "effects"
    COUNTS = "counts"
    STRENGTHS = "strengths"


NARROW, WIDE = 100, 160
_COMPANION = {
    View.TRENDS: View.CHANGES,
    View.CHANGES: View.TRENDS,
    View.ORDERS: View.CHANGES,
    View.BACKBONE: View.CHANGES,
    View.PROBE: View.CHANGES,
    View.COMPARE: View.CHANGES,
}
_ALONE = (View.RUNS, View.RAW)  # views that are not about the changes and get the whole screen


@dataclass(frozen=True)
class ViewState:
    """Everything that decides what is on the screen.

    steps, probes: the run's step numbers and probe ids, fixed once it is loaded. step, pinned: indices
    into `steps`. probe: an index into `probes`, None for all. focus: the pane that `tab` moves. zoom: that
    pane alone. row: the cursor row of Changes and Probe; rows: the cursor row of each other view.
    word: the variable under the word cursor of Probe; masked: the words taken out there, as a subset, of
    the probe they belong to. dataset: which one Raw shows. follow: go to each new step of a live run;
    unseen: steps that came while it did not. linked: the second run goes to the nearest step by itself;
    other_step: the step number that it stands at otherwise. hysteresis, trajectory: how sets are made, fixed at the
    start. support: whether the rows say how surely they have their class.
    """

    run: str = ""
    steps: tuple[int, ...] = ()
    probes: tuple[str, ...] = ()
    step: int = 0
    base_mode: BaseMode = BaseMode.FIRST
    pinned: int | None = None
    probe: int | None = None
    rule: ThresholdRule = field(default_factory=default_rule)
    view: View = View.TRENDS
    focus: View = View.TRENDS
    filter: str = ""
    sort: Sort = Sort.STRENGTH
    orders_of: OrdersOf = OrdersOf.EFFECTS
    row: int = 0
    rows: tuple[tuple[View, int], ...] = ()
    zoom: bool = False
    word: int = 0
    masked: tuple[int, int] = (-1, 0)
    dataset: int = 0
    follow: bool = False
    unseen: int = 0
    linked: bool = True
    other_step: int = 0
    hysteresis: float = DEFAULT_HYSTERESIS
    trajectory: bool = False
    support: bool = False

    def row_of(self, view: View) -> int:
        """The cursor row of a view."""
        return self.row if view in ROWS_OF_CHANGES else dict(self.rows).get(view, 0)

    @property
    def base(self) -> int:
        """Index of the base step."""
        if self.base_mode is BaseMode.PREVIOUS:
            return max(self.step - 1, 0)
        if self.base_mode is BaseMode.PINNED and self.pinned is not None:
            return self.pinned
        return 0

    @property
    def trend_base(self) -> int:
        """Index of the one base that a curve over all steps is drawn against: `previous` moves, so first."""
        return 0 if self.base_mode is BaseMode.PREVIOUS else self.base

    @property
    def step_number(self) -> int:
        """The present step as a number of optimizer steps."""
        return self.steps[self.step]

    @property
    def row_sort(self) -> Sort:
        """The order of the rows: a logical model is of the present step, so there the strongest now are first."""
        return Sort.NOW if self.view is View.PROBE and self.sort is Sort.STRENGTH else self.sort

    def masked_words(self, probe: int) -> int:
        """The words of `probe` that are taken out, as a subset."""
        return self.masked[1] if self.masked[0] == probe else 0


ROWS_OF_CHANGES = (View.CHANGES, View.TRENDS, View.ORDERS, View.BACKBONE, View.PROBE)
Turn = Callable[[ViewState], ViewState]


def move_step(state: ViewState, by: int) -> ViewState:
    """`by` steps forward, held at either end."""
    return at_step(state, state.step + by)


def at_step(state: ViewState, index: int) -> ViewState:
    """The step at `index`, held within the run. By hand, so following pauses."""
    last = max(len(state.steps) - 1, 0)
    index = min(max(index, 0), last)
    return replace(state, step=index, follow=False, unseen=0 if index == last else state.unseen)


def with_steps(state: ViewState, steps: Sequence[int], probes: Sequence[str]) -> ViewState:
    """The run as it is now: the same step and pin by their numbers, or the nearest; where following, the last."""
    steps, old = tuple(steps), state.steps
    if not old:
        return replace(state, steps=steps, probes=tuple(probes), step=len(steps) - 1)
    step = len(steps) - 1 if state.follow else nearest_index(steps, state.step_number)
    pinned = state.pinned
    if pinned is not None:
        pinned = steps.index(old[pinned]) if old[pinned] in steps else None
    mode = BaseMode.FIRST if pinned is None and state.base_mode is BaseMode.PINNED else state.base_mode
    return replace(state, steps=steps, probes=tuple(probes), step=step, pinned=pinned, base_mode=mode)


def toggle_follow(state: ViewState) -> ViewState:
    """Go to the newest step now and whenever one comes, or stay."""
    if state.follow:
        return replace(state, follow=False)
    return replace(state, step=max(len(state.steps) - 1, 0), follow=True, unseen=0)


def nearest_index(steps: Sequence[int], number: int) -> int:
    """Index of the step closest to `number`; the earlier of two equally close. `steps` is not empty."""
    right = bisect_left(steps, number)
    if right == 0 or right == len(steps):
        return min(right, len(steps) - 1)
    return right if steps[right] - number < number - steps[right - 1] else right - 1


def go_to(state: ViewState, number: int) -> ViewState:
    """The extracted step closest to the step `number`."""
    return at_step(state, nearest_index(state.steps, number))


def next_change(state: ViewState, changed: Sequence[bool], direction: int) -> ViewState:
    """The nearest step in `direction` where changed[t] says that the sets differ from step t-1."""
    index = state.step + direction
    while 0 <= index < len(state.steps):
        if changed[index]:
            return at_step(state, index)
        index += direction
    return state


def move_probe(state: ViewState, by: int) -> ViewState:
    """The next or previous probe, around the end; from all probes the first or the last."""
    if not state.probes:
        return state
    if state.probe is None:
        return replace(state, probe=0 if by > 0 else len(state.probes) - 1)
    return replace(state, probe=(state.probe + by) % len(state.probes))


def all_probes(state: ViewState) -> ViewState:
    """Every probe together; Probe shows only one, so Changes takes its place."""
    if state.view is View.PROBE:
        state = choose_view(state, View.CHANGES)
    return replace(state, probe=None)


def choose_view(state: ViewState, view: View) -> ViewState:
    """Show `view`, and give it the focus."""
    return replace(state, view=view, focus=view)


def next_pane(state: ViewState, shown: Sequence[View]) -> ViewState:
    """Focus on the next of the panes that are shown; where only one is, the next view."""
    if state.zoom:
        state = replace(state, zoom=False)
    elif len(shown) == 1:
        views = list(View)
        return choose_view(state, views[(views.index(state.view) + 1) % len(views)])
    at = shown.index(state.focus) if state.focus in shown else -1
    return replace(state, focus=shown[(at + 1) % len(shown)])


def cycle_sort(state: ViewState) -> ViewState:
    """The next order of the rows, from the top row."""
    sorts = list(Sort)
    return replace(state, sort=sorts[(sorts.index(state.sort) + 1) % len(sorts)], row=0)


def with_sort(state: ViewState, sort: Sort) -> ViewState:
    """The rows in the order `sort`, from the top row."""
    return replace(state, sort=sort, row=0)


def cycle_base(state: ViewState) -> ViewState:
    """First, previous, pinned (where a step is pinned), first …"""
    modes = [mode for mode in BaseMode if mode is not BaseMode.PINNED or state.pinned is not None]
    return replace(state, base_mode=modes[(modes.index(state.base_mode) + 1) % len(modes)])


def pin(state: ViewState) -> ViewState:
    """Pin the present step as the base; at the pinned step, take the pin out."""
    if state.pinned == state.step:
        return replace(state, pinned=None, base_mode=BaseMode.FIRST)
    return replace(state, pinned=state.step, base_mode=BaseMode.PINNED)


def cycle_orders(state: ViewState) -> ViewState:
    """Orders as effects, as counts of interactions, as strengths of the soft classes."""
    kinds = list(OrdersOf)
    return replace(state, orders_of=kinds[(kinds.index(state.orders_of) + 1) % len(kinds)])


def toggle_support(state: ViewState) -> ViewState:
    """Whether the rows say how surely they have their class."""
    return replace(state, support=not state.support)


def with_filter(state: ViewState, text: str) -> ViewState:
    """Only rows that match `text`, from the top row."""
    return state if text == state.filter else replace(state, filter=text, row=0)


def with_rule(state: ViewState, rule: ThresholdRule) -> ViewState:
    """Another threshold."""
    return replace(state, rule=rule)


def move_row(state: ViewState, by: int, n_rows: int, view: View = View.CHANGES) -> ViewState:
    """The cursor of `view` `by` rows down, held within its `n_rows` rows."""
    row = min(max(state.row_of(view) + by, 0), max(n_rows - 1, 0))
    if view in ROWS_OF_CHANGES:
        return replace(state, row=row)
    return replace(state, rows=tuple(sorted({**dict(state.rows), view: row}.items())))


def move_word(state: ViewState, by: int, n_words: int) -> ViewState:
    """The word cursor of Probe, around the end."""
    return replace(state, word=(min(state.word, max(n_words - 1, 0)) + by) % max(n_words, 1))


def mask_words(state: ViewState, probe: int, masked: int) -> ViewState:
    """Take the words `masked` of `probe` out of its prompt."""
    return replace(state, masked=(probe, masked))


def toggle_zoom(state: ViewState) -> ViewState:
    """The pane with the focus alone, or all that fit."""
    return replace(state, zoom=not state.zoom, view=state.focus)


def toggle_link(state: ViewState, other_number: int) -> ViewState:
    """Let the second run go along, or hold it at the step `other_number` where it is."""
    return replace(state, linked=not state.linked, other_step=other_number)


def panes_shown(view: View, width: int, zoom: bool = False) -> tuple[View, ...]:
    """The views that a screen of this width shows, left to right."""
    if width < NARROW or zoom or view in _ALONE:
        return (view,)
    if width < WIDE:
        return tuple(sorted((view, _COMPANION[view]), key=list(View).index))
    right = View.ORDERS if view in (View.TRENDS, View.CHANGES) else view
    return (View.TRENDS, View.CHANGES, right)


TURNS: dict[str, Turn] = {
    "next_step": lambda state: move_step(state, 1),
    "previous_step": lambda state: move_step(state, -1),
    "ten_steps_on": lambda state: move_step(state, 10),
    "ten_steps_back": lambda state: move_step(state, -10),
    "first_step": lambda state: at_step(state, 0),
    "last_step": lambda state: at_step(state, len(state.steps) - 1),
    "next_probe": lambda state: move_probe(state, 1),
    "previous_probe": lambda state: move_probe(state, -1),
    "all_probes": all_probes,
    "trends": lambda state: choose_view(state, View.TRENDS),
    "changes": lambda state: choose_view(state, View.CHANGES),
    "orders": lambda state: choose_view(state, View.ORDERS),
    "backbone": lambda state: choose_view(state, View.BACKBONE),
    "probe": lambda state: choose_view(state, View.PROBE),
    "compare": lambda state: choose_view(state, View.COMPARE),
    "runs": lambda state: choose_view(state, View.RUNS),
    "raw": lambda state: choose_view(state, View.RAW),
    "follow": toggle_follow,
    "zoom": toggle_zoom,
    "cycle_sort": cycle_sort,
    "cycle_base": cycle_base,
    "pin": pin,
    "cycle_orders": cycle_orders,
}
