"""Sums over a class of interactions at every step at once: what all curves of a run are made of.

One pass over a probe's pairs per class and no loop over steps. A removed interaction stands with its
effect at the base step, so its sums are those of Ω_base less those of what is preserved.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.sets.evolution import EARLY, LATE, Change, Evolution
from sftscope.lattice.transforms import Floats

Signs = NDArray[np.int8]  # (2, K): the sign of a reference LLM's encoded effects, 0 where it encodes none


@dataclass(frozen=True, eq=False)
class ClassSums:
    """One class of one probe over the steps; every array is (T,).

    count: members. effect: Σ I. strength: Σ |I|. order: Σ |S|. shared: members that the reference LLM
    encodes with the same sign, Eq. (7); NaN without a reference.
    """

    count: Floats
    effect: Floats
    strength: Floats
    order: Floats
    shared: Floats

    def less(self, other: "ClassSums") -> "ClassSums":
        """The sums of the members that are not among `other`'s; exactly 0 where there are none."""
        count = self.count - other.count
        rest = [self.effect - other.effect, self.strength - other.strength, self.order - other.order]
        effect, strength, order = (np.where(count > 0, values, 0.0) for values in rest)
        return ClassSums(count, effect, strength, order, self.shared - other.shared)

    def ratio(self, over: Floats, under: Floats) -> Floats:
        """over / under, NaN where the class is empty."""
        return np.divide(over, under, out=np.full(under.shape, np.nan), where=(under > 0) & (self.count > 0))

    @property
    def mean_order(self) -> Floats:
        """Mean |S|."""
        return self.ratio(self.order, self.count)

    @property
    def uncancelled(self) -> Floats:
        """Eq. (10): |Σ I| / Σ |I|, in [0, 1]."""
        return np.minimum(self.ratio(np.abs(self.effect), self.strength), 1.0)

    @property
    def contribution(self) -> Floats:
        """Average contribution, §3.3 (2): Σ I / count, signed."""
        return self.ratio(self.effect, self.count)

    @property
    def contribution_absolute(self) -> Floats:
        """Its second reading: |Σ I| / count."""
        return np.abs(self.contribution)

    @property
    def contribution_strength(self) -> Floats:
        """Its third reading: Σ |I| / count."""
        return self.ratio(self.strength, self.count)

    @property
    def generalizable(self) -> Floats:
        """Eq. (9): the share of members that the reference LLM encodes too, with the same sign."""
        return self.ratio(self.shared, self.count)


def class_sums(
    evolution: Evolution, probe: int, base: int = 0, *, trajectory: bool = False, reference: Signs | None = None
) -> dict[Change, ClassSums]:
    """The three classes of a probe at every step against the step index `base`."""
    table, encoded = evolution.history.probes[probe].table, _encoded(evolution, probe)
    omega, at_base = evolution.omega(probe, base).ravel(), table.at(base).ravel()
    preserved = omega[encoded.column]
    if trajectory:
        preserved &= _unbroken(evolution, probe, base)[encoded.step, encoded.column]
    total = _all_of(omega, at_base, table, reference)
    stays = encoded.of(preserved)
    return {
        Change.REMOVED: total.less(_sums(replace(stays, effect=at_base[stays.column]), reference)),
        Change.PRESERVED: _sums(stays, reference),
        Change.EMERGED: _sums(encoded.of(~preserved), reference),
    }


def emerged_sums(evolution: Evolution, probe: int, base: int, boundary: int) -> dict[str, ClassSums]:
    """The emerged class at every step, split by whether its members were seen up to the index `boundary`."""
    encoded = _encoded(evolution, probe)
    emerged = encoded.of(~evolution.omega(probe, base).ravel()[encoded.column])
    early = evolution.seen_by(probe, boundary).ravel()[emerged.column]
    return {EARLY: _sums(emerged.of(early), None), LATE: _sums(emerged.of(~early), None)}


def jaccard_of_neighbours(evolution: Evolution, probe: int) -> Floats:
    """|Ω_{t-1} ∩ Ω_t| / |Ω_{t-1} ∪ Ω_t|: (T,), NaN at the first step and where both are empty."""
    table, encoded = evolution.history.probes[probe].table, _encoded(evolution, probe)
    width = table.width
    places = encoded.step * width + encoded.column  # sorted, so that the step before is one search away
    found = np.minimum(np.searchsorted(places, places - width), places.size - 1)
    before = places[found] == places - width
    size = np.bincount(places // width, minlength=table.n_steps).astype(np.float64)
    both = np.bincount(places[before] // width, minlength=table.n_steps)[1:]
    union = size[1:] + size[:-1] - both
    return np.concatenate([[np.nan], np.divide(both, union, out=np.full(union.shape, np.nan), where=union > 0)])


def _unbroken(evolution: Evolution, probe: int, base: int) -> NDArray[np.bool_]:
    """Whether a column was encoded at every step between `base` and t: (T, 2 K)."""
    omega = evolution.encoded[probe].reshape(evolution.history.steps.size, -1)
    after = np.logical_and.accumulate(omega[base:], axis=0)
    before = np.logical_and.accumulate(omega[base::-1], axis=0)[::-1]
    return np.concatenate([before[:-1], after])


def _all_of(omega: NDArray[np.bool_], effects: Floats, table: EffectTable, reference: Signs | None) -> ClassSums:
    """The sums of one set, the same at every step."""
    inside = effects[omega]
    order = table.column_orders[omega]
    shared = np.nan if reference is None else (np.sign(inside) == reference.ravel()[omega]).sum()
    totals = (inside.size, inside.sum(), np.abs(inside).sum(), order.sum(), shared)
    return ClassSums(*(np.full(table.n_steps, value, dtype=np.float64) for value in totals))


@dataclass(frozen=True, eq=False)
class _Members:
    """Pairs of a probe's effect table: step, column and effect, each (M,)."""

    table: EffectTable
    step: NDArray[np.int64]
    column: NDArray[np.int64]
    effect: Floats

    def of(self, chosen: NDArray[np.bool_]) -> "_Members":
        """Those that are chosen (M,)."""
        return replace(self, step=self.step[chosen], column=self.column[chosen], effect=self.effect[chosen])


def _encoded(evolution: Evolution, probe: int) -> _Members:
    """What the probe encodes, at all steps."""
    table = evolution.history.probes[probe].table
    found = np.flatnonzero(evolution.kept(probe))
    step = np.repeat(np.arange(table.n_steps), np.diff(np.searchsorted(found, table.start)))
    column, effect = table.column[found].astype(np.int64), table.effect[found].astype(np.float64)
    return _Members(table, step, column, effect)


def _sums(members: _Members, reference: Signs | None) -> ClassSums:
    """The sums of the members at every step."""

    def sums(values: NDArray[Any] | None) -> Floats:
        return np.bincount(members.step, weights=values, minlength=members.table.n_steps).astype(np.float64)

    shared = np.full(members.table.n_steps, np.nan)
    if reference is not None:
        shared = sums(np.sign(members.effect) == reference.ravel()[members.column])
    order = members.table.column_orders[members.column]
    return ClassSums(sums(None), sums(members.effect), sums(np.abs(members.effect)), sums(order), shared)
