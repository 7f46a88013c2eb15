"""Sums over a class of interactions at every step at once: what all curves of a run are made of.

One pass over a probe's pairs per class and no loop over steps. A removed interaction stands with its
effect at the base step, so its sums are those of Ω_base less those of what of it is preserved.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.sets.chance import Signs, chance_of_sharing, stratum
from sftscope.analysis.sets.evolution import EARLY, LATE, Change, Evolution
from sftscope.lattice.transforms import Floats


@dataclass(frozen=True, eq=False)
class ClassSums:
    """One class of one probe over the steps; every array is (T,).

    count: members. effect: Σ I. strength: Σ |I|. squares: Σ I². order: Σ |S|. shared: members that the reference LLM
    encodes with the same sign, Eq. (7); shared_by_chance: how many it would be of an independent set as large as the
    reference LLM's; both NaN without a reference.
    """

    count: Floats
    effect: Floats
    strength: Floats
    squares: Floats
    order: Floats
    shared: Floats
    shared_by_chance: Floats

    def less(self, other: "ClassSums") -> "ClassSums":
        """The sums of the members that are not among `other`'s; exactly 0 where there are none."""
        count = self.count - other.count
        rest = {part.name: getattr(self, part.name) - getattr(other, part.name) for part in fields(self)}
        for name in ("effect", "strength", "squares", "order"):
            rest[name] = np.where(count > 0, rest[name], 0.0)
        return ClassSums(**rest)

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
    def uncancelled_by_chance(self) -> Floats:
        """What Eq. (10) is where the signs are random, √(2/π) · √Σ I² / Σ |I|: mostly a matter of the class's size."""
        return np.minimum(self.ratio(np.sqrt(2 / np.pi) * np.sqrt(np.maximum(self.squares, 0.0)), self.strength), 1.0)

    @property
    def z(self) -> Floats:
        """Σ I / √Σ I²: 0 for random signs, its standard error then 1; keeps the sign."""
        return self.ratio(self.effect, np.sqrt(np.maximum(self.squares, 0.0)))

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

    @property
    def generalizable_by_chance(self) -> Floats:
        """What Eq. (9) is where the reference LLM's set is independent."""
        return self.ratio(self.shared_by_chance, self.count)


def class_sums(
    evolution: Evolution, probe: int, base: int = 0, *, trajectory: bool = False, reference: Signs | None = None
) -> dict[Change, ClassSums]:
    """The three classes of a probe at every step against the step index `base`."""
    table, sharing = evolution.history.probes[probe].table, _Sharing.of(evolution, probe, reference)
    omega, at_base = evolution.omega(probe, base).ravel(), table.at(base).ravel()
    encoded, strict = _encoded(evolution, probe)
    stays = _preserved(evolution, probe, base, encoded, strict, trajectory=trajectory)
    kept = encoded.of(stays & omega[encoded.column])
    return {
        Change.REMOVED: _all_of(omega, at_base, table, sharing).less(
            _sums(replace(kept, effect=at_base[kept.column]), sharing)
        ),
        Change.PRESERVED: _sums(encoded.of(stays), sharing),
        Change.EMERGED: _sums(encoded.of(strict & ~stays), sharing),
    }


def same_sign_sums(
    evolution: Evolution, probe: int, base: int = 0, *, trajectory: bool = False, reference: Signs | None = None
) -> ClassSums:
    """What is preserved with the sign that it has at the step index `base`."""
    encoded, strict = _encoded(evolution, probe)
    stays = _preserved(evolution, probe, base, encoded, strict, trajectory=trajectory)
    at_base = evolution.history.probes[probe].table.at(base).ravel()[encoded.column]
    return _sums(encoded.of(stays & (at_base * encoded.effect > 0)), _Sharing.of(evolution, probe, reference))


def emerged_sums(
    evolution: Evolution, probe: int, base: int, boundary: int, *, reference: Signs | None = None
) -> dict[str, ClassSums]:
    """The emerged class at every step, split by whether its members were seen up to the index `boundary`."""
    encoded, strict = _encoded(evolution, probe)
    emerged = encoded.of(strict & ~evolution.omega(probe, base, loose=True).ravel()[encoded.column])
    early = evolution.seen_by(probe, boundary).ravel()[emerged.column]
    sharing = _Sharing.of(evolution, probe, reference)
    return {EARLY: _sums(emerged.of(early), sharing), LATE: _sums(emerged.of(~early), sharing)}


def jaccard_of_neighbours(evolution: Evolution, probe: int) -> Floats:
    """|Ω_{t-1} ∩ Ω_t| / |Ω_{t-1} ∪ Ω_t|: (T,), NaN at the first step and where both are empty."""
    table, (loosely, strict) = evolution.history.probes[probe].table, _encoded(evolution, probe)
    encoded, width = loosely.of(strict), table.width
    places = encoded.step * width + encoded.column  # sorted, so that the step before is one search away
    found = np.minimum(np.searchsorted(places, places - width), places.size - 1)
    before = places[found] == places - width
    size = np.bincount(places // width, minlength=table.n_steps).astype(np.float64)
    both = np.bincount(places[before] // width, minlength=table.n_steps)[1:]
    union = size[1:] + size[:-1] - both
    return np.concatenate([[np.nan], np.divide(both, union, out=np.full(union.shape, np.nan), where=union > 0)])


def _preserved(
    evolution: Evolution,
    probe: int,
    base: int,
    encoded: "_Members",
    strict: NDArray[np.bool_],
    *,
    trajectory: bool,
) -> NDArray[np.bool_]:
    """Which members of Ω_t^h are preserved at their step: (M,). strict: which are in Ω_t."""
    before, loosely_before = (evolution.omega(probe, base, loose=loose).ravel() for loose in (False, True))
    stays: NDArray[np.bool_] = before[encoded.column] | (strict & loosely_before[encoded.column])
    if trajectory:
        stays &= _unbroken(evolution, probe, base)[encoded.step, encoded.column]
    return stays


def _unbroken(evolution: Evolution, probe: int, base: int) -> NDArray[np.bool_]:
    """Whether a column was in Ω^h at every step between `base` and t: (T, 2 K)."""
    table = evolution.history.probes[probe].table
    loosely = table.dense(evolution.kept(probe, loose=True), np.bool_).reshape(table.n_steps, -1)
    after = np.logical_and.accumulate(loosely[base:], axis=0)
    before = np.logical_and.accumulate(loosely[base::-1], axis=0)[::-1]
    return np.concatenate([before[:-1], after])


def _all_of(omega: NDArray[np.bool_], effects: Floats, table: EffectTable, sharing: "_Sharing | None") -> ClassSums:
    """The sums of one set, the same at every step."""
    column = np.flatnonzero(omega)
    sums = _sums(_Members(table, np.zeros(column.size, dtype=np.int64), column, effects[column]), sharing)
    return ClassSums(**{part.name: np.full(table.n_steps, getattr(sums, part.name)[0]) for part in fields(sums)})


@dataclass(frozen=True, eq=False)
class _Sharing:
    """What a reference LLM encodes, and how likely an independent set as large has a member of a stratum."""

    signs: NDArray[np.int8]  # (2 K,)
    by_chance: Floats  # (2 (n + 1) 2,)

    @classmethod
    def of(cls, evolution: Evolution, probe: int, reference: Signs | None) -> "_Sharing | None":
        table = evolution.history.probes[probe].table
        return None if reference is None else cls(reference.ravel(), chance_of_sharing(table, reference).ravel())


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


def _encoded(evolution: Evolution, probe: int) -> tuple[_Members, NDArray[np.bool_]]:
    """The members of Ω^h of a probe at all steps, and which of them are in Ω."""
    table = evolution.history.probes[probe].table
    found = np.flatnonzero(evolution.kept(probe, loose=True))
    step = np.repeat(np.arange(table.n_steps), np.diff(np.searchsorted(found, table.start)))
    column, effect = table.column[found].astype(np.int64), table.effect[found].astype(np.float64)
    return _Members(table, step, column, effect), evolution.kept(probe)[found]


def _sums(members: _Members, sharing: _Sharing | None) -> ClassSums:
    """The sums of the members at every step."""

    def sums(values: NDArray[Any] | None) -> Floats:
        return np.bincount(members.step, weights=values, minlength=members.table.n_steps).astype(np.float64)

    shared = by_chance = np.full(members.table.n_steps, np.nan)
    if sharing is not None:
        shared = sums(np.sign(members.effect) == sharing.signs[members.column])
        by_chance = sums(sharing.by_chance[stratum(members.table, members.column, members.effect)])
    effect, order = members.effect, members.table.column_orders[members.column]
    return ClassSums(sums(None), sums(effect), sums(np.abs(effect)), sums(effect**2), sums(order), shared, by_chance)
