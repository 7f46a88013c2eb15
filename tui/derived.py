"""What is derived from a run, kept so that scrubbing looks up instead of computing.

A `Reading` is a run under one threshold rule. Knows the loader and the analysis, and no widget.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.analysis import views
from engine.analysis.evolution import Evolution
from engine.analysis.history import RunHistory
from engine.analysis.stages import Boundary, find_boundary
from engine.analysis.thresholds import ThresholdRule
from engine.analysis.views import Backbone, Orders, Selection, Trends
from tui.change_table import ChangeTable, Identity, Ints, arrange, build_table
from tui.loader import Done, Loader
from tui.state import ViewState, move_row


@dataclass(frozen=True, eq=False)
class Reading:
    """A run under one threshold rule. changed: (P, T), whether Ω differs from that of the step before."""

    evolution: Evolution
    boundary: Boundary
    changed: NDArray[np.bool_]

    def changed_steps(self, probe: int | None) -> list[bool]:
        """The steps at which the set of `probe`, or of any probe, changes."""
        rows = self.changed if probe is None else self.changed[[probe]]
        return np.any(rows, axis=0).astype(bool).tolist()


def read_history(history: RunHistory, rule: ThresholdRule) -> Reading:
    """Apply `rule` to a run."""
    evolution = Evolution(history, rule)
    changed = np.zeros((len(history.probes), history.steps.size), dtype=bool)
    for row, omega in zip(changed, evolution.encoded, strict=True):
        row[1:] = (omega[1:] != omega[:-1]).any(axis=(1, 2))
    return Reading(evolution, find_boundary(evolution), changed)


class Recent:
    """A mapping that forgets what was not used for longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """The value of `key`, None where there is none."""
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keep `value`."""
        self._items[key] = value
        self._items.move_to_end(key)
        while len(self._items) > self._size:
            self._items.popitem(last=False)

    def made(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of `key`, made now where it is not kept."""
        if (value := self.get(key)) is None:
            value = make()
            self.put(key, value)
        return value


class Derived:
    """What is derived from one run. Curves over all steps come from the loader, None until they are there;
    what belongs to one step is computed when it is first looked at."""

    def __init__(self, history: RunHistory, loader: Loader) -> None:
        self.history = history
        self._loader = loader
        self._slow = Recent(48)
        self._tables = Recent(24)  # of up to some megabytes
        self._small = Recent(128)

    def keep(self, done: Done) -> None:
        """Store a result of the loader."""
        self._slow.put(done.key, done.value)

    def reading(self, rule: ThresholdRule) -> Reading | None:
        """The run under `rule`."""
        found: Reading | None = self._asked(("reading", rule), lambda: read_history(self.history, rule))
        return found

    def trends(self, reading: Reading, state: ViewState) -> Trends | None:
        """The curves against the base step of `state`."""
        found: Trends | None = self._over_steps("trends", views.trends, reading, state)
        return found

    def backbone(self, reading: Reading, state: ViewState) -> Backbone | None:
        """Backbone-only cross-entropy over the steps."""
        found: Backbone | None = self._over_steps("backbone", views.backbone, reading, state)
        return found

    def table(self, reading: Reading, state: ViewState) -> ChangeTable:
        """The set diff of the present step."""
        selection = selection_of(state)
        table: ChangeTable = self._tables.made(
            ("table", reading.evolution.rule, selection), lambda: build_table(reading.evolution, selection)
        )
        return table

    def arrangement(self, reading: Reading, state: ViewState) -> Ints:
        """The rows of `table` that are listed, in order."""
        key = ("rows", reading.evolution.rule, selection_of(state), state.sort, state.filter)
        rows: Ints = self._small.made(key, lambda: arrange(self.table(reading, state), state.sort, state.filter))
        return rows

    def under_cursor(self, reading: Reading, state: ViewState) -> Identity | None:
        """The interaction in the cursor's row, None where no row is listed."""
        rows = self.arrangement(reading, state)
        if not rows.size:
            return None
        return self.table(reading, state).identity(int(rows[min(state.row, rows.size - 1)]))

    def follow(self, reading: Reading, state: ViewState, identity: Identity | None) -> ViewState:
        """The cursor on the row of `identity`, where it is listed, and within the rows."""
        rows = self.arrangement(reading, state)
        found = self.table(reading, state).find(identity) if identity is not None else None
        places = np.flatnonzero(rows == found) if found is not None else rows[:0]
        return move_row(replace(state, row=int(places[0])) if places.size else state, 0, rows.size)

    def orders(self, reading: Reading, state: ViewState) -> Orders:
        """The order distributions of the present step."""
        selection = selection_of(state)
        found: Orders = self._small.made(
            ("orders", reading.evolution.rule, selection),
            lambda: views.orders_view(reading.evolution, selection),
        )
        return found

    def _over_steps(
        self, name: str, view: Callable[[Evolution, Selection], Any], reading: Reading, state: ViewState
    ) -> Any:
        """A view that does not depend on the present step, against the base of the curves."""
        selection = Selection(now=state.trend_base, base=state.trend_base, probe=state.probe)
        key = (name, reading.evolution.rule, selection)
        return self._asked(key, lambda: view(reading.evolution, selection))

    def _asked(self, key: Hashable, job: Callable[[], Any]) -> Any:
        if (value := self._slow.get(key)) is None:
            self._loader.request(key, job)
        return value


def selection_of(state: ViewState) -> Selection:
    """The state as what the views of the analysis take."""
    return Selection(now=state.step, base=state.base, probe=state.probe)
