"""How the strength that was removed, preserved and emerged is spread over orders and signs, without a threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.soft.soft_classes import soft_classes_by_order
from sftscope.lattice.transforms import Floats


@dataclass(frozen=True)
class SoftOrderRow:
    """One order of one soft class: strength of its positive effects, and less that of its negative ones.

    Both as shares of ‖I_base‖₁, means over probes. Σ (positive - negative) over the orders is what Trends has.
    """

    order: int
    positive_mean: float
    negative_mean: float


@dataclass(frozen=True)
class SoftOrders:
    """The three soft classes between two steps by order 1 … n."""

    removed: list[SoftOrderRow]
    preserved: list[SoftOrderRow]
    emerged: list[SoftOrderRow]


def soft_orders(tables: Sequence[EffectTable], now: int, base: int = 0) -> SoftOrders:
    """Means over probes at the step index `now` against `base`; a probe without effects at `base` is left out."""
    highest = max(table.n_variables for table in tables)
    shares: dict[str, list[Floats]] = {"removed": [], "preserved": [], "emerged": []}
    for table in tables:
        soft = soft_classes_by_order(table, now, base)
        if (whole := float(soft.at_base.sum())) > 0:
            for name, parts in shares.items():
                grown = np.zeros((highest + 1, 2))
                grown[: table.n_variables + 1] = getattr(soft, name) / whole
                parts.append(grown)
    nothing = np.full((highest + 1, 2), np.nan)
    means = {name: np.mean(parts, axis=0) if parts else nothing for name, parts in shares.items()}
    return SoftOrders(
        **{
            name: [
                SoftOrderRow(order, float(mean[order, 0]), -float(mean[order, 1])) for order in range(1, highest + 1)
            ]
            for name, mean in means.items()
        }
    )
