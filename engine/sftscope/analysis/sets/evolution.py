"""The sets of Eq. (4)-(6): which interactions SFT removed, preserved, and newly invented.

An interaction is encoded where it is stronger than τ and than the noise floor of its order:
Ω = {(relation, S): |I(S)| > max(τ, floor(S))}. τ is that of the step and the probe.

What lies close to τ would flicker, so a change has to be large: with the hysteresis factor h ≤ 1 and the looser
set Ω^h = {(relation, S): |I(S)| > max(h τ, floor(S))} ⊇ Ω, of the base step 0 and the present step t,

    removed   = Ω_0 ∖ Ω_t^h                           encoded at the base, clearly not now
    emerged   = Ω_t ∖ Ω_0^h                           encoded now, clearly not at the base
    preserved = (Ω_0 ∩ Ω_t^h) ∪ (Ω_0^h ∩ Ω_t)         encoded at one of the two, and not clearly absent at the other

The laws: the three are disjoint; together they are Ω_0 ∪ Ω_t, so that each encoded interaction is in exactly one;
removed ⊆ Ω_0 ⊆ removed ∪ preserved and emerged ⊆ Ω_t ⊆ preserved ∪ emerged; exchanging the two steps exchanges
removed and emerged. A step against itself changes nothing: all of Ω is preserved. With h = 1, Ω^h is Ω and they are
the sets of Eq. (4)-(6): removed ∪ preserved = Ω_0, preserved ∪ emerged = Ω_t.

The floor is part of Ω and Ω^h at both steps, so that what noise alone can make neither emerges nor is removed.

An interaction's identity is (relation, subset) within a probe; sets are boolean arrays
(2, K) over the K subsets of the probe's effect table, axis 0 by Relation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis import DEFAULT_HYSTERESIS
from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.noise_floor import noise_floor
from sftscope.analysis.sets.thresholds import ThresholdRule, default_rule, thresholds
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import Floats, Subsets

Sets = NDArray[np.bool_]
EARLY, LATE = "emerged early", "emerged late"


class Change(StrEnum):
    """What became of an interaction between the base step and the present one."""

    REMOVED = "removed"
    PRESERVED = "preserved"
    EMERGED = "emerged"


CLASS_WORDS = {Change.REMOVED: "removed", Change.PRESERVED: "preserved", Change.EMERGED: "newly emerged"}


@dataclass(frozen=True, eq=False)
class Encoded:
    """Ω and the looser Ω^h ⊇ Ω of one step, boolean arrays of one shape."""

    strict: Sets
    loose: Sets


def partition(before: Encoded, after: Encoded, between: Sequence[Encoded] = ()) -> dict[Change, Sets]:
    """The three sets between two steps; of what is preserved, each of the steps `between` has to hold Ω^h."""
    kept: Sets = (before.strict & after.loose) | (before.loose & after.strict)
    for step in between:
        kept = kept & step.loose
    return {Change.REMOVED: before.strict & ~kept, Change.PRESERVED: kept, Change.EMERGED: after.strict & ~kept}


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

    hysteresis: h, in (0, 1]; 1 gives the sets of Eq. (4)-(6). tau: per probe (T,). floor: per probe (K,), the same at
    all steps.
    """

    history: RunHistory
    rule: ThresholdRule = field(default_factory=default_rule)
    hysteresis: float = DEFAULT_HYSTERESIS
    tau: tuple[Floats, ...] = field(init=False)
    floor: tuple[Floats, ...] = field(init=False)
    _kept: dict[tuple[int, bool], NDArray[np.bool_]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        check_hysteresis(self.hysteresis)
        probes = self.history.probes
        object.__setattr__(self, "tau", thresholds(self.history, self.rule))
        object.__setattr__(self, "floor", tuple(noise_floor(part.noise, part.table.orders) for part in probes))

    @cached_property
    def replicates(self) -> tuple["Evolution", ...]:
        """The same rule on the run as each replicate of its estimates has it; none where nothing is estimated."""
        history = self.history
        return tuple(replace(self, history=history.replicate(number)) for number in range(history.n_replicates))

    @property
    def settings(self) -> str:
        """The rule and the hysteresis in words, as they are asked for."""
        return f"{self.rule}, {'no hysteresis' if self.hysteresis == 1 else f'hysteresis {self.hysteresis:g}'}"

    def under(self, rule: ThresholdRule) -> "Evolution":
        """The same run under another rule, with the same hysteresis."""
        return self if rule == self.rule else replace(self, rule=rule)

    def kept(self, probe: int, *, loose: bool = False) -> NDArray[np.bool_]:
        """Which pairs of the probe's effect table are in Ω, or in Ω^h: (E,)."""
        if (probe, loose) not in self._kept:
            table = self.history.probes[probe].table
            limit = np.repeat(self._tau(probe, loose=loose), np.diff(table.start))
            if self.floor[probe].any():
                limit = np.maximum(limit, np.tile(self.floor[probe], 2)[table.column])
            self._kept[probe, loose] = np.abs(table.effect) > limit
        return self._kept[probe, loose]

    def _tau(self, probe: int, *, loose: bool) -> Floats:
        """τ, or h τ: (T,)."""
        return self.hysteresis * self.tau[probe] if loose else self.tau[probe]

    @property
    def encoded(self) -> Sequence[Sets]:
        """Ω of each probe at all steps, (T, 2, K), computed on every call."""
        probes = self.history.probes
        return _OnDemand(len(probes), lambda p: probes[p].table.dense(self.kept(p), np.bool_))

    def omega(self, probe: int, now: int, *, loose: bool = False) -> Sets:
        """Ω of one probe at one step index, or Ω^h: (2, K)."""
        return self.encodes(probe, now, self.history.probes[probe].table, now, loose=loose)

    def both(self, probe: int, now: int) -> Encoded:
        """Ω and Ω^h of one probe at one step index: (2, K) each."""
        return self.both_of(probe, now, self.history.probes[probe].table, now)

    def both_of(self, probe: int, now: int, table: EffectTable, step: int = 0) -> Encoded:
        """Ω and Ω^h that a step of another table would have in place of those of the step index `now`."""
        strict, loose = (self.encodes(probe, now, table, step, loose=loose) for loose in (False, True))
        return Encoded(strict, loose)

    def encodes_each(self, probe: int, now: int, relation: NDArray[np.int64], subset: Subsets, *, loose: bool) -> Sets:
        """Which of these interactions (R,) of a probe are in Ω, or Ω^h, at the step index `now`: (R,)."""
        table = self.history.probes[probe].table
        place = np.minimum(np.searchsorted(table.subsets, subset), table.subsets.size - 1)
        within = table.within(now)
        encoded = table.column[within][self.kept(probe, loose=loose)[within]]  # sorted, as the step's pairs are
        if not encoded.size:
            return np.zeros(len(subset), dtype=bool)
        column = relation * table.subsets.size + place
        at = np.minimum(np.searchsorted(encoded, column), encoded.size - 1)
        found: Sets = (table.subsets[place] == subset) & (encoded[at] == column)
        return found

    def encodes(self, probe: int, now: int, table: EffectTable, step: int = 0, *, loose: bool = False) -> Sets:
        """Ω that a step of another table would have in place of that of the step index `now`: (2, K) as there."""
        floor = noise_floor(self.history.probes[probe].noise, table.orders)
        encoded: Sets = np.abs(table.at(step)) > np.maximum(self._tau(probe, loose=loose)[now], floor)
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

        With `trajectory`, preserved asks that the interaction be in Ω^h at every step in between; one of both Ω that
        left and came back is then both removed and emerged.
        """
        between = [self.both(probe, step) for step in between_steps(base, now)] if trajectory else ()
        return partition(self.both(probe, base), self.both(probe, now), between)

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
        for replicate in self.replicates:
            steps = (base, now, *(between_steps(base, now) if trajectory else ()))
            before, after, *between = (
                Encoded(
                    *(replicate.encodes_each(probe, step, relation, subset, loose=loose) for loose in (False, True))
                )
                for step in steps
            )
            count += partition(before, after, between)[change]
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


def check_hysteresis(factor: float) -> None:
    """SftscopeError where it is no factor above 0 and at most 1."""
    if not 0 < factor <= 1:
        raise SftscopeError(f"hysteresis: expected a factor above 0 and at most 1, got {factor}")


def between_steps(base: int, now: int) -> range:
    """The step indices strictly between two."""
    return range(min(base, now) + 1, max(base, now))
