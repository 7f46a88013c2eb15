"""The training rows behind a row of Changes, and what each of them carries. For the loader's thread: it reads files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.rows.traced_rows import TracedRows, answered_first, trace
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.set_diff import CHANGES, Ints
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Selection
from sftscope.lattice.transforms import Relation
from sftscope.training.data.shapes import Row
from sftscope_tui.contents.change_table import ChangeTable, Identity
from sftscope_tui.contents.derived import Derived, Reading, selection_of
from sftscope_tui.state.view_state import ViewState

MOST_ROWS = 200  # training rows that are listed


@dataclass(frozen=True)
class TraceJob:
    """Key of a background job: the training rows behind an interaction of the run at `path`."""

    path: Path
    rule: ThresholdRule
    selection: Selection
    identity: Identity


def trace_job(path: Path, derived: Derived, reading: Reading, state: ViewState) -> TraceJob | None:
    """The job for the row under the cursor, None where there is none."""
    identity = derived.under_cursor(reading, state)
    return None if identity is None else TraceJob(path, reading.evolution.rule, selection_of(state), identity)


@dataclass(frozen=True, eq=False)
class Origin:
    """A training row. number: from 1. carries: rows of the table that newly emerged and are in it, strongest first."""

    number: int
    row: Row
    carries: Ints


@dataclass(frozen=True, eq=False)
class Origins:
    """The training rows behind an interaction of a table; `rows`: MOST_ROWS at most, those with the answer first."""

    table: ChangeTable
    identity: Identity
    found: TracedRows
    rows: tuple[Origin, ...]


class RowTracing:
    """The training rows of one run, read once. train: a file or hub name in place of what the run names."""

    def __init__(self, path: Path, train: str = "") -> None:
        self.train = train
        self._path = path
        self._index: RowIndex | None = None

    def known(self) -> RowIndex | str:
        """The training rows, or why there are none, in a sentence; SftscopeError as of `rows_or_why`."""
        if self._index is not None:
            return self._index
        from sftscope.analysis.rows.known_rows import rows_or_why  # here, so that the explorer starts without it

        found = rows_or_why(self._path, self.train)
        self._index = None if isinstance(found, str) else found
        return found

    def behind(self, table: ChangeTable, identity: Identity) -> Origins | str:
        """The training rows behind an interaction of the table, or why they are not known."""
        index = self.known()
        if isinstance(index, str):
            return index
        probe, relation, subset = identity
        part = table.probes[probe]
        found = trace(index, part.words_of(subset), Relation(relation).name, part.probe.response)
        places = answered_first(index, found.places, part.probe.response)[:MOST_ROWS]
        rows = (Origin(place + 1, index.rows[place], _carried(index, table, place)) for place in places)
        return Origins(table, identity, found, tuple(rows))


def _carried(index: RowIndex, table: ChangeTable, place: int) -> Ints:
    """As `traced_rows.carried_by`, for all rows of the table at once."""
    masks = np.array(
        [
            sum(1 << i for i, word in enumerate(part.probe.variables) if index.holds(place, word))
            for part in table.probes
        ],
        dtype=np.uint64,
    )[table.probe]
    every, some = (table.subset & ~masks) == 0, (table.subset & masks) != 0
    inside = np.where(table.relation == Relation.AND, every, some)
    kept = np.flatnonzero(inside & (table.change == CHANGES.index(Change.EMERGED)))
    return kept[np.argsort(-np.abs(table.effect_now[kept]), kind="stable")]
