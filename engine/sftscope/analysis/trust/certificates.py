"""How far the numbers of a run can be trusted: certificates, noise, universal matching.

Knows effects and scores, not how they were made; judges nothing, it only measures.
"""

from dataclasses import dataclass

import numpy as np

from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection

CERTIFIED_GAP = 1e-3


@dataclass(frozen=True)
class Quality:
    """Certificates and noise of the probes looked at; lists are over all T steps.

    gap_max: largest certified relative gap. noise_max: largest σ of v in log-odds, NaN where no probe
    was measured. zeta_low, zeta_high: range of ζ over steps and probes, in log-odds. mismatch_max:
    largest |h(x_T) - v(x_T)| / ζ with all interactions; at most 1 is universal matching, Eq. (3) (files of earlier
    versions: 1 + TINY_SHARE).
    uncertified: steps with a gap above `CERTIFIED_GAP`, whose results are not final.
    below_noise: interactions of all probes that are stronger than τ and not counted as encoded, because
    noise alone can make them (see `noise`).
    """

    steps: list[int]
    gap_max: list[float]
    uncertified: list[int]
    noise_max: list[float]
    zeta_low: float
    zeta_high: float
    mismatch_max: float
    below_noise: list[int]


def measure_quality(evolution: Evolution, selection: Selection) -> Quality:
    """The certificates and the noise of the selected probes at every step."""
    history = evolution.history
    probes = selection.probes_of(evolution)
    chosen = [history.probes[p] for p in probes]
    zeta = np.stack([part.zeta for part in chosen])
    noise = np.stack([part.noise for part in chosen])
    mismatch = [float((part.mismatch.largest / np.maximum(part.zeta, 1e-9)).max()) for part in chosen]  # ζ may be 0
    below = np.sum([evolution.below_floor(p).sum(axis=(1, 2)) for p in probes], axis=0)
    gap = np.stack([part.gap for part in chosen]).max(axis=0)
    largest = np.where(np.isnan(noise), -np.inf, noise).max(axis=0)
    return Quality(
        steps=history.steps.tolist(),
        gap_max=gap.tolist(),
        uncertified=history.steps[~(gap <= CERTIFIED_GAP)].tolist(),
        noise_max=np.where(np.isinf(largest), metrics.NAN, largest).tolist(),
        zeta_low=float(zeta.min()),
        zeta_high=float(zeta.max()),
        mismatch_max=max(mismatch),
        below_noise=below.tolist(),
    )
