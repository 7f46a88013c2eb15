"""The view state: what the explorer shows, as one frozen record, and every key as a pure function of it.

Knows the shape of a run (its steps and probe names), not its contents; nothing here draws or reads.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from engine.analysis.thresholds import ThresholdRule


class View(StrEnum):
    """The views, in the order of their keys."""

    TRENDS = "Trends"
    CHANGES = "Changes"
    ORDERS = "Orders"
    BACKBONE = "Backbone"

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


NARROW, WIDE = 100, 160
_COMPANION = {
    View.TRENDS: View.CHANGES,
    View.CHANGES: View.TRENDS,
    View.ORDERS: View.CHANGES,
    View.BACKBONE: View.CHANGES,
}


@dataclass(frozen=True)
class ViewState:
    """Everything that decides what is on the screen.

    steps, probes: the run's step numbers and probe ids, fixed once it is loaded. step, pinned: indices
    into `steps`. probe: an index into `probes`, None for all. focus: the pane that `tab` moves. row: the
    cursor row of Changes.
    """

    run: str = ""
    steps: tuple[int, ...] = ()
    probes: tuple[str, ...] = ()
    step: int = 0
    base_mode: BaseMode = BaseMode.FIRST
    pinned: int | None = None
    probe: int | None = None
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    view: View = View.TRENDS
    focus: View = View.TRENDS
    filter: str = ""
    sort: Sort = Sort.STRENGTH
    order_counts: bool = False
    row: int = 0

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


Turn = Callable[[ViewState], ViewState]


def move_step(state: ViewState, by: int) -> ViewState:
    """`by` steps forward, held at either end."""
    return at_step(state, state.step + by)


def at_step(state: ViewState, index: int) -> ViewState:
    """The step at `index`, held within the run."""
    return replace(state, step=min(max(index, 0), max(len(state.steps) - 1, 0)))


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
    """Every probe together."""
    return replace(state, probe=None)


def choose_view(state: ViewState, view: View) -> ViewState:
    """Show `view`, and give it the focus."""
    return replace(state, view=view, focus=view)


def next_pane(state: ViewState, shown: Sequence[View]) -> ViewState:
    """Focus on the next of the panes that are shown; where only one is, the next view."""
    if len(shown) == 1:
        views = list(View)
        return choose_view(state, views[(views.index(state.view) + 1) % len(views)])
    at = shown.index(state.focus) if state.focus in shown else -1
    return replace(state, focus=shown[(at + 1) % len(shown)])


def cycle_sort(state: ViewState) -> ViewState:
    """The next order of the rows, from the top row."""
    sorts = list(Sort)
    return replace(state, sort=sorts[(sorts.index(state.sort) + 1) % len(sorts)], row=0)


def cycle_base(state: ViewState) -> ViewState:
    """First, previous, pinned (where a step is pinned), first …"""
    modes = [mode for mode in BaseMode if mode is not BaseMode.PINNED or state.pinned is not None]
    return replace(state, base_mode=modes[(modes.index(state.base_mode) + 1) % len(modes)])


def pin(state: ViewState) -> ViewState:
    """Pin the present step as the base; at the pinned step, take the pin out."""
    if state.pinned == state.step:
        return replace(state, pinned=None, base_mode=BaseMode.FIRST)
    return replace(state, pinned=state.step, base_mode=BaseMode.PINNED)


def toggle_order_counts(state: ViewState) -> ViewState:
    """Orders as effects, or as counts of interactions."""
    return replace(state, order_counts=not state.order_counts)


def with_filter(state: ViewState, text: str) -> ViewState:
    """Only rows that match `text`, from the top row."""
    return state if text == state.filter else replace(state, filter=text, row=0)


def with_rule(state: ViewState, rule: ThresholdRule) -> ViewState:
    """Another threshold."""
    return replace(state, rule=rule)


def move_row(state: ViewState, by: int, n_rows: int) -> ViewState:
    """The cursor `by` rows down, held within the `n_rows` rows."""
    return replace(state, row=min(max(state.row + by, 0), max(n_rows - 1, 0)))


def panes_shown(view: View, width: int) -> tuple[View, ...]:
    """The views that a screen of this width shows, left to right."""
    if width < NARROW:
        return (view,)
    if width < WIDE:
        return tuple(sorted((view, _COMPANION[view]), key=list(View).index))
    right = View.BACKBONE if view is View.BACKBONE else View.ORDERS
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
    "cycle_sort": cycle_sort,
    "cycle_base": cycle_base,
    "pin": pin,
    "order_counts": toggle_order_counts,
}
