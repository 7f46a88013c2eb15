"""The three classes without a threshold: how much strength was removed, preserved and emerged.

Per interaction, from its effect I_0 at the base step and I_t now:

    preserved = min(|I_0|, |I_t|) where the signs agree, else 0
    removed   = |I_0| - preserved
    emerged   = |I_t| - preserved

so that over any set of interactions (an order, a sign, all) removed + preserved = ‖I_0‖₁ and
preserved + emerged = ‖I_t‖₁. A step's values never change when later steps arrive.
"""

from dataclasses import dataclass

import numpy as np

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.lattice.transforms import Floats


@dataclass(frozen=True, eq=False)
class SoftClasses:
    """Strength of each class of one probe, in log-odds; every array is (T,), or (n + 1, 2) by order and sign."""

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
    now = table.effect.astype(np.float64)
    kept = _kept(table.at(base).ravel()[table.column], now)
    preserved = table.sums_at_steps(np.add, kept)
    # what is left of a class that nothing is left of is 0, and not what rounding leaves
    emerged = np.maximum(table.sums_at_steps(np.add, np.abs(now) - kept), 0.0)
    return SoftClasses(np.maximum(preserved[base] - preserved, 0.0), preserved, emerged)


def soft_classes_by_order(table: EffectTable, now: int, base: int = 0) -> SoftClasses:
    """The classes between two step indices by order and sign: (n + 1, 2) each, positive effects first.

    The sign of what emerged is that of I_t; of what was removed or preserved, that of I_0. Summed up they are those of
    `soft_classes` at that step.
    """
    before, after = table.at(base).ravel(), table.at(now).ravel()
    kept, size = _kept(before, after), table.n_variables + 1

    def sums(signs: Floats, strength: Floats) -> Floats:
        places = 2 * table.column_orders + (signs < 0)
        return np.bincount(places, strength, 2 * size).reshape(size, 2).astype(np.float64)

    return SoftClasses(sums(before, np.abs(before) - kept), sums(before, kept), sums(after, np.abs(after) - kept))


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


def share(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where there is nothing: (T,)."""
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def _kept(before: Floats, now: Floats) -> Floats:
    """What is preserved of each interaction."""
    kept: Floats = np.where(before * now > 0, np.minimum(np.abs(before), np.abs(now)), 0.0)
    return kept
