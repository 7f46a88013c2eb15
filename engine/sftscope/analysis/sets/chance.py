"""How many interactions two sets share by chance: what independent sets of the same make-up would have in common.

Interactions fall into strata by relation, order and sign. n words have K = C(n, k) subsets of order k, so of a set A
that holds A_s interactions of a stratum, and an independent set B that holds B_s, each K_s subsets of that relation
and order being equally likely, the overlap is hypergeometric with the mean

    E |A ∩ B| = Σ_s A_s B_s / K_s.

With strata by relation, order and sign, this counts what both have with the same sign; with strata by relation and
order alone, what both have with any sign. With hysteresis, preserved = (Ω_0 ∩ Ω_t^h) ∪ (Ω_0^h ∩ Ω_t), and as the two
parts have Ω_0 ∩ Ω_t in common,

    E |preserved| = Σ_s (Ω_0,s Ω^h_t,s + Ω^h_0,s Ω_t,s - Ω_0,s Ω_t,s) / K_s.

A sample of masked states has effects of some subsets only; K counts all, so there chance is a little larger than said.
"""

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.sets.evolution import Evolution
from sftscope.lattice.transforms import Floats

Signs = NDArray[np.int8]  # (2, K): the sign of a reference LLM's encoded effects, 0 where it encodes none


@dataclass(frozen=True, eq=False)
class PreservedByChance:
    """Expected size of preserved, with any sign and with the same sign: (T,) each, NaN at the base step."""

    any_sign: Floats
    same_sign: Floats


def preserved_by_chance(
    evolution: Evolution, probe: int, base: int = 0, *, trajectory: bool = False
) -> PreservedByChance:
    """What independent sets as large as those of the probe's steps would preserve from the step index `base`.

    With `trajectory`, the sets of the steps in between are independent too.
    """
    table = evolution.history.probes[probe].table
    possible = possible_subsets(table.n_variables)
    strict, loose = (_set_strata(evolution, probe, loose=loose) for loose in (False, True))
    by_sign = _overlap(strict, loose, base) / possible[:, None]
    whole = _overlap(strict.sum(axis=-1), loose.sum(axis=-1), base) / possible
    if trajectory:
        stay = _all_between(loose.sum(axis=-1) / possible, base)
        by_sign, whole = by_sign * stay[..., None], whole * stay
    both = PreservedByChance(whole.sum(axis=(1, 2)), by_sign.sum(axis=(1, 2, 3)))
    both.any_sign[base] = both.same_sign[base] = np.nan
    return both


def possible_subsets(n: int) -> Floats:
    """The number of subsets of n words by order 0 … n: (n + 1,)."""
    return np.array([comb(n, order) for order in range(n + 1)], dtype=np.float64)


def chance_of_sharing(table: EffectTable, reference: Signs) -> Floats:
    """By relation, order and sign (first positive), how likely an independent set as large as the reference's has an
    interaction, with that sign: (2, n + 1, 2)."""
    column = np.flatnonzero(reference)
    counts = _counted(table, np.zeros(column.size, dtype=np.int64), column, reference.ravel()[column], 1)[0]
    rates: Floats = counts / possible_subsets(table.n_variables)[:, None]
    return rates


def stratum(table: EffectTable, column: NDArray[np.int64], effect: NDArray[Any]) -> NDArray[np.int64]:
    """The place of members of these columns and effects, (M,) each, in a flat (2, n + 1, 2)."""
    relation, order = column // table.subsets.size, table.column_orders[column]
    place: NDArray[np.int64] = ((relation * (table.n_variables + 1) + order) * 2 + (effect < 0)).astype(np.int64)
    return place


def _set_strata(evolution: Evolution, probe: int, *, loose: bool) -> Floats:
    """Members of Ω_t, or Ω_t^h, by step, relation, order and sign: (T, 2, n + 1, 2)."""
    table = evolution.history.probes[probe].table
    found = np.flatnonzero(evolution.kept(probe, loose=loose))
    column = table.column[found].astype(np.int64)
    return _counted(table, table.step[found], column, table.effect[found], table.n_steps)


def _counted(
    table: EffectTable, step: NDArray[np.int64], column: NDArray[np.int64], effect: NDArray[Any], steps: int
) -> Floats:
    """Members by step, relation, order and sign: (steps, 2, n + 1, 2)."""
    shape = (2, table.n_variables + 1, 2)
    size = int(np.prod(shape))
    counts = np.bincount(step * size + stratum(table, column, effect), minlength=steps * size)
    return counts.reshape(steps, *shape).astype(np.float64)


def _overlap(strict: Floats, loose: Floats, base: int) -> Floats:
    """Ω_0 Ω_t^h + Ω_0^h Ω_t - Ω_0 Ω_t of counts by step and stratum, at every step."""
    return strict[base] * loose + loose[base] * strict - strict[base] * strict


def _all_between(share: Floats, base: int) -> Floats:
    """The product of shares (T, …) over the steps strictly between `base` and each step."""
    product = np.ones_like(share)
    for step in range(base + 2, len(share)):
        product[step] = product[step - 1] * share[step - 1]
    for step in range(base - 2, -1, -1):
        product[step] = product[step + 1] * share[step + 1]
    return product
