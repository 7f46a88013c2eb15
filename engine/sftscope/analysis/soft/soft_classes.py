"""The three classes without a threshold: how much strength was removed, preserved and emerged.

Per interaction, from its effect I_0 at the base step and I_t now:

    preserved = min(|I_0|, |I_t|) where the signs agree, else 0
    removed   = |I_0| - preserved
    emerged   = |I_t| - preserved

so that over any set of interactions (an order, a sign, all) removed + preserved = ‖I_0‖₁ and
preserved + emerged = ‖I_t‖₁. A step's values never change when later steps arrive.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.lattice.transforms import Floats


@dataclass(frozen=True, eq=False)
class SoftClasses:
    """Strength of each class of one probe, in log-odds; every array is (T,), or (T, n + 1) by order."""

    removed: Floats
    preserved: Floats
    emerged: Floats

    @property
    def at_base(self) -> Floats:
        """‖I_0‖₁."""
        return self.removed + self.preserved

    @property
    def now(self) -> Floats:
        """‖I_t‖₁."""
        return self.preserved + self.emerged


def soft_classes(table: EffectTable, base: int = 0) -> SoftClasses:
    """The classes of a probe at every step against the step index `base`."""

    def sums(steps: NDArray[np.int64], columns: NDArray[np.int64], values: Floats) -> Floats:
        return np.bincount(steps, values, table.n_steps).astype(np.float64)

    return _classes(table, base, sums)


def soft_classes_by_order(table: EffectTable, base: int = 0) -> SoftClasses:
    """The same, split by order 0 … n."""
    width = table.n_variables + 1

    def sums(steps: NDArray[np.int64], columns: NDArray[np.int64], values: Floats) -> Floats:
        places = steps * width + table.column_orders[columns]
        return np.bincount(places, values, table.n_steps * width).astype(np.float64).reshape(table.n_steps, width)

    return _classes(table, base, sums)


def soft_turnover(table: EffectTable) -> Floats:
    """Σ |I_t - I_(t-1)| / (‖I_t‖₁ + ‖I_(t-1)‖₁): (T,), in [0, 1]; NaN at the first step and where there is nothing.

    What is exchanged between neighbouring checkpoints, which net counts hide.
    """
    strength = table.sums_at_steps(np.add, np.abs(table.effect.astype(np.float64)))
    change = np.zeros(table.n_steps)
    before = table.at(0).ravel()
    for step in range(1, table.n_steps):
        now = table.at(step).ravel()
        change[step] = np.abs(now - before).sum()
        before = now
    both = strength[1:] + strength[:-1]
    return np.concatenate([[np.nan], np.divide(change[1:], both, out=np.full(both.shape, np.nan), where=both > 0)])


def _classes(
    table: EffectTable, base: int, sums: Callable[[NDArray[np.int64], NDArray[np.int64], Floats], Floats]
) -> SoftClasses:
    at_base, columns = table.at(base).ravel(), table.column.astype(np.int64)
    now = table.effect.astype(np.float64)
    then = at_base[columns]
    kept = np.where(then * now > 0, np.minimum(np.abs(then), np.abs(now)), 0.0)
    preserved = sums(table.step, columns, kept)
    of_base = np.flatnonzero(at_base)
    whole = sums(np.full(of_base.size, base), of_base, np.abs(at_base[of_base]))[base]
    # what is left of a class that nothing is left of is 0, and not what rounding leaves
    removed = np.maximum(whole - preserved, 0.0)
    emerged = np.maximum(sums(table.step, columns, np.abs(now) - kept), 0.0)
    return SoftClasses(removed, preserved, emerged)


def share(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where there is nothing: (T,)."""
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio
