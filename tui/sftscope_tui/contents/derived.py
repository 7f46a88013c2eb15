"""What is derived from a run, kept so that scrubbing looks up instead of computing.

A `Reading` is a run under one threshold rule. Knows the loader and the analysis, and no widget.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis import DEFAULT_HYSTERESIS
from sftscope.analysis.comparison.baseline_llm import shared_probes, shared_signs
from sftscope.analysis.comparison.run_pairs import RunDiff, compare_steps, jaccard_over_steps, linked_step
from sftscope.analysis.conclusions.verdict import Verdict, judge
from sftscope.analysis.course.events import Events, find_events
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets import views
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.one_masked_state import Matching, matching
from sftscope.analysis.sets.set_diff import Ints
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Backbone, Orders, Selection, Trends
from sftscope.analysis.soft.effective import effective_numbers
from sftscope.analysis.soft.soft_orders import SoftOrders, soft_orders
from sftscope.analysis.trust.estimate_intervals import EstimateView, estimate_view
from sftscope.analysis.trust.sensitivity import SensitivityRow, measure_sensitivity
from sftscope.foundation.errors import NotReadError
from sftscope.lattice.transforms import Floats
from sftscope.store import RunFolder, StepRecord, TooSlowError
from sftscope_tui.contents.background import Done, Loader
from sftscope_tui.contents.change_table import ChangeTable, Identity, arrange, build_table
from sftscope_tui.contents.recent import Recent
from sftscope_tui.contents.row_support import RowSupport, filled
from sftscope_tui.state.view_state import ViewState, move_row

_serials = count()


@dataclass(frozen=True, eq=False)
class Reading:
    """A run under one threshold rule. changed: (P, T), whether Ω differs from that of the step before.

    effective: N_eff, (P, T).
    serial: a number that no other reading has, for the keys of caches.
    """

    evolution: Evolution
    events: Events
    changed: NDArray[np.bool_]
    effective: Floats
    serial: int = field(default_factory=_serials.__next__)

    def changed_steps(self, probe: int | None) -> list[bool]:
        """The steps at which the set of `probe`, or of any probe, changes."""
        rows = self.changed if probe is None else self.changed[[probe]]
        return np.any(rows, axis=0).astype(bool).tolist()


def read_history(history: RunHistory, rule: ThresholdRule, hysteresis: float = DEFAULT_HYSTERESIS) -> Reading:
    """Apply `rule` to a run."""
    evolution = Evolution(history, rule, hysteresis)
    changed = np.zeros((len(history.probes), history.steps.size), dtype=bool)
    for row, omega in zip(changed, evolution.encoded, strict=True):
        row[1:] = (omega[1:] != omega[:-1]).any(axis=(1, 2))
    return Reading(evolution, find_events(history), changed, effective_numbers(history))


@dataclass(frozen=True)
class _Missing:
    """What could not be computed, and is not asked for again at every paint."""

    why: str


@dataclass(frozen=True)
class Wanted:
    """Key of a job of the loader for one `Derived`: what is computed, from what. generation: of the history."""

    generation: int
    name: str
    of: tuple[Hashable, ...] = ()


class Derived:
    """What is derived from one run. Curves over all steps come from the loader, None until they are there;
    what belongs to one step is computed when it is first looked at."""

    def __init__(
        self,
        history: RunHistory,
        loader: Loader,
        generation: int = 0,
        before: "Derived | None" = None,
        *,
        hysteresis: float = DEFAULT_HYSTERESIS,
        spare: Loader | None = None,
    ) -> None:
        self.history = history
        self.hysteresis = hysteresis
        self.generation = generation
        self._before = before.newest if before is not None else {}
        self.newest: dict[str, Any] = {}  # the newest curves by name, to be shown until newer ones are computed
        self._loader = loader
        self.row_support: RowSupport = RowSupport(
            history, spare or loader, before.row_support if before is not None else None
        )
        self._slow = Recent(48)
        self._records = Recent(2)  # step files, of up to some hundred megabytes
        self._tables = Recent(12)  # of up to some megabytes
        self._small = Recent(128)
        self._unread: set[Wanted] = set()  # records that could not be read, but may be at another time
        self._again: set[Wanted] = set()  # those that are to be read again when they are next looked at

    def keep(self, done: Done) -> None:
        """Store a result of the loader, or why there is none, unless it belongs to another history."""
        key = done.key
        self.row_support.keep(done)
        if isinstance(key, Wanted) and key.generation == self.generation:
            value = _Missing(done.failure) if done.error is not None else done.value
            may_come = isinstance(value, NotReadError) and not isinstance(value, TooSlowError)
            self._unread = self._unread | {key} if may_come else self._unread - {key}
            (self._records if key.name == "record" else self._slow).put(key, value)

    def _key(self, name: str, *of: Hashable) -> Wanted:
        return Wanted(self.generation, name, of)

    def adopt(self, reading: Reading) -> None:
        """Take over a reading that came with the history."""
        self._slow.put(self._key("reading", reading.evolution.rule), reading)

    def reading(self, rule: ThresholdRule) -> Reading | None:
        """The run under `rule`."""
        found: Reading | None = self._asked(
            self._key("reading", rule), lambda: read_history(self.history, rule, self.hysteresis)
        )
        return found

    def trends(self, reading: Reading, state: ViewState, other: Reading | None = None) -> Trends | None:
        """The curves against the base step of `state`; with ρ where there is another run."""

        def make(evolution: Evolution, selection: Selection) -> Trends:
            signs = shared_signs(evolution.history, other.evolution) if other is not None else None
            return views.trends(evolution, selection, references=signs)

        serial = other.serial if other is not None else None
        found: Trends | None = self._over_steps("trends", make, reading, state, serial)
        return found

    def verdict(self, reading: Reading) -> Verdict | None:
        """When to stop: always from all probes, against the first step."""
        selection = Selection(0)
        trends: Trends | None = self._asked(
            self._key("trends", reading.evolution.rule, selection, None),
            lambda: views.trends(reading.evolution, selection),
        )
        if trends is None:
            return None
        verdict: Verdict = self._small.made(
            ("verdict", reading.evolution.rule), lambda: judge(trends, self.history.held_out)
        )
        return verdict

    def sensitivity(self, reading: Reading) -> list[SensitivityRow] | None:
        """The headline under every threshold rule."""
        found: list[SensitivityRow] | None = self._asked(
            self._key("sensitivity", reading.evolution.rule), lambda: measure_sensitivity(reading.evolution)
        )
        return found

    def matching(self, reading: Reading, probe: int, now: int) -> Matching:
        """The matching errors of one probe at one step."""
        found: Matching = self._small.made(
            ("matching", reading.evolution.rule, probe, now), lambda: matching(reading.evolution, probe, now)
        )
        return found

    def record(self, run: RunFolder, step: int) -> StepRecord | Exception | None:
        """A step file as it lies on the disk, or why it cannot be read."""

        def read() -> StepRecord | Exception:
            try:
                return run.read_step(step)
            except Exception as error:  # whatever the file makes a reader raise: the pane says it
                return error

        key = self._key("record", step)
        if key in self._again:
            self._again.discard(key)
            self._loader.request(key, read)
        found: StepRecord | Exception | None = self._asked(key, read, self._records)
        return found

    def try_again(self) -> None:
        """Read what could not be read once more, when it is next looked at; until then its error stands."""
        self._again |= self._unread

    def diff(self, reading: Reading, state: ViewState, other: Reading) -> RunDiff:
        """The sets of this run and of another at linked steps, or at the other's own."""
        first, second = reading.evolution, other.evolution
        number = state.step_number if state.linked else state.other_step
        at = linked_step(second.history.steps, number)

        def compare() -> RunDiff:
            pairs = shared_probes(first.history, second.history)
            chosen = [pair for pair in pairs if state.probe in (None, pair[0])]
            return compare_steps(first, state.step, second, at, chosen)

        key = ("diff", first.rule, state.step, state.probe, other.serial, at)
        found: RunDiff = self._small.made(key, compare)
        return found

    def jaccard(self, reading: Reading, other: Reading) -> list[float] | None:
        """How alike the two runs' sets are at every step."""
        first, second = reading.evolution, other.evolution
        found: list[float] | None = self._asked(
            self._key("jaccard", first.rule, other.serial),
            lambda: jaccard_over_steps(first, second, shared_probes(first.history, second.history)),
        )
        return found

    def backbone(self, reading: Reading, state: ViewState) -> Backbone | None:
        """Backbone-only cross-entropy over the steps."""
        found: Backbone | None = self._over_steps("backbone", views.backbone, reading, state)
        return found

    def estimate(self, reading: Reading, state: ViewState) -> EstimateView | None:
        """How far estimated interactions can be believed; None where none is, or until it is computed."""
        chosen = self.history.probes if state.probe is None else (self.history.probes[state.probe],)
        if not any(part.is_estimated for part in chosen):  # not asked for: nothing would ever come
            return None
        found: EstimateView | None = self._over_steps("estimate", estimate_view, reading, state)
        return found

    def table(self, reading: Reading, state: ViewState) -> ChangeTable:
        """The set diff of the present step, with the support of its rows where that is wanted and known."""
        return self._table(reading, state)[0]

    def _table(self, reading: Reading, state: ViewState) -> tuple[ChangeTable, frozenset[int]]:
        """The table, and the probes whose support is in it."""
        evolution, selection = reading.evolution, selection_of(state)
        key = ("table", evolution.rule, selection)
        table: ChangeTable = self._tables.made(key, lambda: build_table(evolution, selection))
        support = self.row_support.known(evolution, selection, table) if state.support else {}
        if not support:
            return table, frozenset()
        known = frozenset(support)
        return self._tables.made((*key, known), lambda: filled(table, support)), known

    def arrangement(self, reading: Reading, state: ViewState) -> Ints:
        """The rows of `table` that are listed, in order."""
        table, known = self._table(reading, state)
        key = ("rows", reading.evolution.rule, selection_of(state), state.row_sort, state.filter, known)
        rows: Ints = self._small.made(key, lambda: arrange(table, state.row_sort, state.filter))
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

    def soft_orders(self, reading: Reading, state: ViewState) -> SoftOrders:
        """How the soft classes of the present step are spread over orders and signs."""
        selection = selection_of(state)
        tables = [self.history.probes[p].table for p in selection.probes_of(reading.evolution)]
        found: SoftOrders = self._small.made(
            ("soft orders", selection), lambda: soft_orders(tables, selection.now, selection.base)
        )
        return found

    def _over_steps(
        self,
        name: str,
        view: Callable[[Evolution, Selection], Any],
        reading: Reading,
        state: ViewState,
        other: int | None = None,
    ) -> Any:
        """A view that does not depend on the present step, against the base of the curves. other: a serial."""
        selection = replace(selection_of(state), now=state.trend_base, base=state.trend_base)
        key = self._key(name, reading.evolution.rule, selection, other)
        found = self._asked(key, lambda: view(reading.evolution, selection))
        if found is not None:
            self.newest[name] = found
        return found if found is not None else self.newest.get(name, self._before.get(name))

    def _asked(self, key: Wanted, job: Callable[[], Any], kept: Recent | None = None) -> Any:
        if (value := (kept or self._slow).get(key)) is None:
            self._loader.request(key, job)
        return None if isinstance(value, _Missing) else value

    def is_missing(self, name: str) -> bool:
        """Whether something of this name could not be computed."""
        return any(key.name == name and isinstance(value, _Missing) for key, value in self._slow.items())


def selection_of(state: ViewState) -> Selection:
    """The state as what the views of the analysis take."""
    return Selection(now=state.step, base=state.base, probe=state.probe, trajectory=state.trajectory)
