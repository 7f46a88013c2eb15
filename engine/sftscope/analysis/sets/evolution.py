"""The sets of Eq. (4)-(6): which interactions SFT removed, preserved, and newly invented.

An interaction is encoded where it is stronger than τ and than the noise floor of its order:
Ω = {(relation, S): |I(S)| > max(τ, floor(S))}. The floor is part of Ω itself, at the base step and at
the present one alike, so that the partition laws hold with it: removed ∪ preserved = Ω_base,
preserved ∪ emerged = Ω_now, and what noise alone can make neither emerges nor is removed.

An interaction's identity is (relation, subset) within a probe; sets are boolean arrays
(2, K) over the K subsets of the probe's effect table, axis 0 by Relation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.noise_floor import noise_floor
from sftscope.analysis.sets.thresholds import ThresholdRule, thresholds
from sftscope.lattice.transforms import Floats, Subsets

Sets = NDArray[np.bool_]
EARLY, LATE = "emerged early", "emerged late"


class Change(StrEnum):
    """What became of an interaction between the base step and the present one."""

    REMOVED = "removed"
    PRESERVED = "preserved"
    EMERGED = "emerged"


CLASS_WORDS = {Change.REMOVED: "removed", Change.PRESERVED: "preserved", Change.EMERGED: "newly emerged"}


def partition(before: Sets, after: Sets, kept: Sets | None = None) -> dict[Change, Sets]:
    """The three sets between Ω `before` and Ω `after`; `kept` is preserved, by default what is in both."""
    if kept is None:
        kept = before & after
    return {Change.REMOVED: before & ~kept, Change.PRESERVED: kept, Change.EMERGED: after & ~kept}


class _OnDemand(Sequence[Sets]):
    """Ω of each probe as (T, 2, K), made when it is asked for: together they would be as large as the run."""

    def __init__(self, length: int, make: Callable[[int], Sets]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Sets: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sets]: ...
    def __getitem__(self, index: int | slice) -> Sets | Sequence[Sets]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._length))]
        return self._make(range(self._length)[index])


@dataclass(frozen=True, eq=False)
class Evolution:
    """A run's history with a threshold rule applied: Ω of every probe at every step.

    tau: per probe (T,). floor: per probe (K,), the same at all steps.
    """

    history: RunHistory
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    tau: tuple[Floats, ...] = field(init=False)
    floor: tuple[Floats, ...] = field(init=False)
    _kept: dict[int, NDArray[np.bool_]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        probes = self.history.probes
        object.__setattr__(self, "tau", thresholds(self.history, self.rule))
        object.__setattr__(self, "floor", tuple(noise_floor(part.noise, part.table.orders) for part in probes))

    @cached_property
    def replicates(self) -> tuple["Evolution", ...]:
        """The same rule on the run as each replicate of its estimates has it; none where nothing is estimated."""
        history = self.history
        return tuple(Evolution(history.replicate(number), self.rule) for number in range(history.n_replicates))

    def kept(self, probe: int) -> NDArray[np.bool_]:
        """Which pairs of the probe's effect table are encoded: (E,)."""
        if probe not in self._kept:
            table = self.history.probes[probe].table
            limit = np.repeat(self.tau[probe], np.diff(table.start))
            if self.floor[probe].any():
                limit = np.maximum(limit, np.tile(self.floor[probe], 2)[table.column])
            self._kept[probe] = np.abs(table.effect) > limit
        return self._kept[probe]

    @property
    def encoded(self) -> Sequence[Sets]:
        """Ω of each probe at all steps, (T, 2, K), computed on every call."""
        probes = self.history.probes
        return _OnDemand(len(probes), lambda p: probes[p].table.dense(self.kept(p), np.bool_))

    def omega(self, probe: int, now: int) -> Sets:
        """Ω of one probe at one step index: (2, K)."""
        return self.encodes(probe, now, self.history.probes[probe].table, now)

    def encodes_each(self, probe: int, now: int, relation: NDArray[np.int64], subset: Subsets) -> Sets:
        """Which of these interactions (R,) of a probe are in Ω at the step index `now`: (R,)."""
        table = self.history.probes[probe].table
        place = np.minimum(np.searchsorted(table.subsets, subset), table.subsets.size - 1)
        within = table.within(now)
        encoded = table.column[within][self.kept(probe)[within]]  # sorted, as the step's pairs are
        if not encoded.size:
            return np.zeros(len(subset), dtype=bool)
        column = relation * table.subsets.size + place
        at = np.minimum(np.searchsorted(encoded, column), encoded.size - 1)
        found: Sets = (table.subsets[place] == subset) & (encoded[at] == column)
        return found

    def encodes(self, probe: int, now: int, table: EffectTable, step: int = 0) -> Sets:
        """Ω that a step of another table would have in place of that of the step index `now`: (2, K) as there."""
        floor = noise_floor(self.history.probes[probe].noise, table.orders)
        encoded: Sets = np.abs(table.at(step)) > np.maximum(self.tau[probe][now], floor)
        return encoded

    def below_floor(self, probe: int) -> Sets:
        """What is stronger than τ and yet not counted, because noise can make it: (T, 2, K)."""
        table = self.history.probes[probe].table
        above = np.abs(table.effect) > np.repeat(self.tau[probe], np.diff(table.start))
        below: Sets = table.dense(above & ~self.kept(probe), np.bool_)
        return below

    def counts(self) -> NDArray[np.int64]:
        """|Ω_t| by probe and step: (P, T)."""
        tables = [probe.table for probe in self.history.probes]
        kept = [table.sums_at_steps(np.add, self.kept(p).astype(np.int64)) for p, table in enumerate(tables)]
        return np.array(kept).astype(np.int64)

    def partition(self, probe: int, now: int, base: int = 0, *, trajectory: bool = False) -> dict[Change, Sets]:
        """The three sets of a probe between the step indices `base` and `now`, each (2, K).

        removed = Ω_base ∖ preserved, preserved = Ω_base ∩ Ω_now, emerged = Ω_now ∖ preserved. With
        `trajectory`, preserved asks that the interaction be encoded at every step in between; one that
        left Ω and came back is then both removed and emerged.
        """
        kept: Sets | None = None
        if trajectory:
            between = range(min(base, now), max(base, now) + 1)
            kept = np.logical_and.reduce([self.omega(probe, step) for step in between])
        return partition(self.omega(probe, base), self.omega(probe, now), kept)

    def support(
        self,
        probe: int,
        change: Change,
        relation: NDArray[np.int64],
        subset: Subsets,
        now: int,
        base: int = 0,
        *,
        trajectory: bool = False,
    ) -> NDArray[np.int64] | None:
        """Of each of these interactions (R,): in how many replicates of the probe's estimates it is in this class.

        What most replicates find does not depend on a few masked states. None without replicates.
        """
        if not self.history.probes[probe].replicates:
            return None
        count = np.zeros(len(subset), dtype=np.int64)
        between = range(min(base, now), max(base, now) + 1)
        for replicate in self.replicates:
            encoded = {
                step: replicate.encodes_each(probe, step, relation, subset)
                for step in (between if trajectory else (base, now))
            }
            kept = np.logical_and.reduce(list(encoded.values()))
            count += partition(encoded[base], encoded[now], kept)[change]
        return count

    def effects_of(self, probe: int, change: Change, now: int, base: int = 0) -> Floats:
        """The effects that stand for a class: of the base step for removed, of the present step otherwise."""
        return self.history.probes[probe].table.at(base if change is Change.REMOVED else now)

    def seen_by(self, probe: int, boundary: int) -> Sets:
        """What was encoded at any step index up to `boundary`: (2, K)."""
        table = self.history.probes[probe].table
        end = int(table.start[boundary + 1])
        seen = np.zeros(table.width, dtype=bool)
        seen[table.column[:end][self.kept(probe)[:end]]] = True
        return seen.reshape(2, -1)
