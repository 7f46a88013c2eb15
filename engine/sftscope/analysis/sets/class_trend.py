"""One class of interactions as curves over the steps: means over probes of the quantities of `class_sums`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sftscope.analysis.run.probe_means import mean_over_probes, two_errors
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.class_sums import ClassSums


@dataclass(frozen=True)
class ClassTrend:
    """One class over all T steps; every list is T long.

    z: Σ I / √Σ I², 0 for random signs; z_error: two standard errors over the probes. by_chance: of an uncancelled ratio
    with random signs, of a generalizable one with an independent reference.
    """

    count_mean: list[float]
    strength_mean: list[float]
    order_mean: list[float]
    uncancelled_mean: list[float]
    uncancelled_pooled: list[float]
    contribution_mean: list[float]
    contribution_absolute_mean: list[float] = field(default_factory=list)
    contribution_strength_mean: list[float] = field(default_factory=list)
    generalizable_mean: list[float] = field(default_factory=list)
    generalizable_by_chance: list[float] = field(default_factory=list)
    uncancelled_by_chance: list[float] = field(default_factory=list)
    z_mean: list[float] = field(default_factory=list)
    z_error: list[float] = field(default_factory=list)


def class_trend(parts: Sequence[ClassSums]) -> ClassTrend:
    """One class of several probes as curves."""
    effect, strength = sum(part.effect for part in parts), sum(part.strength for part in parts)
    pooled = np.divide(np.abs(effect), strength, out=np.full(np.shape(strength), metrics.NAN), where=strength > 0)
    return ClassTrend(
        count_mean=mean_over_probes([part.count for part in parts]),
        strength_mean=mean_over_probes([part.strength for part in parts]),
        order_mean=mean_over_probes([part.mean_order for part in parts]),
        uncancelled_mean=mean_over_probes([part.uncancelled for part in parts]),
        uncancelled_pooled=np.minimum(pooled, 1.0).tolist(),
        contribution_mean=mean_over_probes([part.contribution for part in parts]),
        contribution_absolute_mean=mean_over_probes([part.contribution_absolute for part in parts]),
        contribution_strength_mean=mean_over_probes([part.contribution_strength for part in parts]),
        generalizable_mean=mean_over_probes([part.generalizable for part in parts]),
        generalizable_by_chance=mean_over_probes([part.generalizable_by_chance for part in parts]),
        uncancelled_by_chance=mean_over_probes([part.uncancelled_by_chance for part in parts]),
        z_mean=mean_over_probes([part.z for part in parts]),
        z_error=two_errors([part.z for part in parts]),
    )
