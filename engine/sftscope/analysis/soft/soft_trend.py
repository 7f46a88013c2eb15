"""What needs no threshold, as curves: the effective number of interactions, soft classes, order and turnover."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.probe_means import mean_over_probes
from sftscope.analysis.soft.effective import effective_number
from sftscope.analysis.soft.soft_classes import share, soft_classes, soft_turnover
from sftscope.lattice.transforms import Floats


@dataclass(frozen=True)
class SoftTrend:
    """Means over probes, T long.

    effective_mean: N_eff, see `effective`. removed_mean, preserved_mean, emerged_mean: strength of the soft classes as
    shares of ‖I_base‖₁, see `soft_classes`. order_mean: mean order weighted by strength. turnover_mean: Σ|ΔI| between
    neighbouring steps as a share of what is there.
    """

    effective_mean: list[float]
    removed_mean: list[float]
    preserved_mean: list[float]
    emerged_mean: list[float]
    order_mean: list[float]
    turnover_mean: list[float]


def soft_trend(tables: Sequence[EffectTable], base: int) -> SoftTrend:
    """The curves of several probes against the step index `base`."""
    soft = [soft_classes(table, base) for table in tables]

    def shares(name: str) -> list[float]:
        return mean_over_probes([share(getattr(each, name), each.at_base) for each in soft])

    return SoftTrend(
        effective_mean=mean_over_probes([effective_number(table) for table in tables]),
        removed_mean=shares("removed"),
        preserved_mean=shares("preserved"),
        emerged_mean=shares("emerged"),
        order_mean=mean_over_probes([_weighted_order(table) for table in tables]),
        turnover_mean=mean_over_probes([soft_turnover(table) for table in tables]),
    )


def _weighted_order(table: EffectTable) -> Floats:
    """Σ |S| |I| / Σ |I| at every step: (T,)."""
    strength = np.abs(table.effect.astype(np.float64))
    return share(table.sums_at_steps(np.add, strength * table.order), table.sums_at_steps(np.add, strength))
