"""In how many noisy copies of the scores a row of Changes has its class, computed while the user looks at it.

What takes long is decomposing the copies of a step. It depends on no τ and no base step, and is asked of the loader one
probe and step at a time: what is not looked at any more is not computed. Rows whose probe is still to come have -1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.set_diff import CHANGES, Ints
from sftscope.analysis.sets.views import Selection
from sftscope.analysis.trust.noise_support import copy_table, noise_support
from sftscope_tui.contents.background import Done, Loader, Urgency
from sftscope_tui.contents.change_table import ChangeTable
from sftscope_tui.contents.recent import Recent

_origins = count()
_MOST_STATES = 1 << 18  # masked states of the probes whose copies are kept; 16 words have megabytes of them


@dataclass(frozen=True)
class CopiesJob:
    """Key of a background job. origin: of a run that is open; fingerprint: of the scores, should a file be replaced."""

    origin: int
    probe: str
    step: int
    fingerprint: tuple[float, float]


class RowSupport:
    """Of one run. before: of the same run with fewer steps, whose copies are taken over."""

    def __init__(self, history: RunHistory, loader: Loader, before: "RowSupport | None" = None) -> None:
        self._history, self._loader = history, loader
        largest = max(part.states.subset.size for part in history.probes)
        self.origin: int = before.origin if before is not None else next(_origins)
        self.copies: Recent = before.copies if before is not None else Recent(min(max(_MOST_STATES // largest, 8), 256))
        self._rows = Recent(512)

    def keep(self, done: Done) -> None:
        """Store the copies of a step, or that there are none."""
        if isinstance(done.key, CopiesJob) and done.key.origin == self.origin:
            self.copies.put(done.key, done.value if done.error is None else done.failure)

    def known(self, evolution: Evolution, selection: Selection, table: ChangeTable) -> dict[int, Ints]:
        """By probe, the support of its rows in the order of `table`; what is missing next is asked for."""
        found: dict[int, Ints] = {}
        is_asking = False
        for p in selection.probes_of(evolution):
            if evolution.history.probes[p].is_estimated:
                continue
            key = ("rows", evolution.rule, replace(selection, probe=p))
            if (rows := self._rows.get(key)) is None:
                copies = {}
                for step in dict.fromkeys((selection.base, selection.now)):
                    copies[step] = self.copies.get(job := self._job(p, step))
                    if copies[step] is None and not is_asking:
                        is_asking = True
                        self._loader.request(job, partial(copy_table, self._history, p, step), Urgency.SHOWN)
                if all(isinstance(each, EffectTable) for each in copies.values()):
                    rows = _support_of(evolution, selection, p, table, lambda _, step, made=copies: made[step])
                    self._rows.put(key, rows)
            if rows is not None:
                found[p] = rows
        return found

    def _job(self, probe: int, step: int) -> CopiesJob:
        part = self._history.probes[probe]
        fingerprint = float(part.zeta[step]), float(part.scores[step].sum(dtype=np.float64))
        return CopiesJob(self.origin, part.probe.id, int(self._history.steps[step]), fingerprint)


def filled(table: ChangeTable, support: dict[int, Ints]) -> ChangeTable:
    """The table with the support of the rows of some probes."""
    column = table.support.copy()
    for probe, rows in support.items():
        column[table.probe == probe] = rows
    return ChangeTable(**{**vars(table), "support": column})


def _support_of(
    evolution: Evolution, selection: Selection, probe: int, table: ChangeTable, made: Callable[..., Any]
) -> Ints:
    """Of the rows of one probe."""
    counts = noise_support(evolution, probe, selection.now, selection.base, trajectory=selection.trajectory, made=made)
    own = table.probe == probe
    place = np.searchsorted(evolution.history.probes[probe].table.subsets, table.subset[own])
    by_class = np.stack([counts[change] for change in CHANGES])
    rows: Ints = by_class[table.change[own], table.relation[own], place]
    return rows
