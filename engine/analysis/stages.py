"""Where denoising ends: the checkpoint with the fewest encoded interactions, and how sure that is.

SFT first removes more than it invents, then invents more than it removes; between the two, the
mean of |Ω_t| over probes has its minimum. The interval is a bootstrap over probes. Where the
minimum lies at either end, or the counts around it do not differ clearly, there are no two stages.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.analysis.evolution import Evolution

RESAMPLES = 1000
CLEAR_CHANGE = 0.10


@dataclass(frozen=True)
class Boundary:
    """The end of the denoising stage.

    index, step: the last checkpoint of the denoising stage, None where there are not two stages.
    low, high: 90 % bootstrap interval of the step over probes. reason: one sentence.
    """

    index: int | None
    step: int | None
    low: int | None
    high: int | None
    reason: str


def find_boundary(evolution: Evolution, *, seed: int = 0) -> Boundary:
    """The checkpoint with the fewest encoded interactions, if removal before and emergence after are clear.

    Clear is a change of the mean over probes by `CLEAR_CHANGE`: a fall relative to the first step, a
    growth relative to the minimum. Always against the first extracted step and over all probes.
    """
    counts = evolution.counts().astype(np.float64)
    steps = evolution.history.steps
    mean = counts.mean(axis=0)
    index = int(mean.argmin())
    step, last = int(steps[index]), int(steps[-1])
    fewest, peak = mean[index], index + int(mean[index:].argmax())
    if steps.size < 3:
        return _no_boundary(f"two stages need at least 3 extracted steps, this run has {steps.size}")
    if index == 0:
        return _no_boundary("the number of interactions never falls below its start")
    if fewest > (1 - CLEAR_CHANGE) * mean[0]:
        return _no_boundary(f"the number of interactions hardly falls ({mean[0]:.1f} → {fewest:.1f} a probe)")
    if index == steps.size - 1:
        return _no_boundary(f"interactions are still being removed at step {last} ({fewest:.1f} a probe)")
    if mean[peak] == fewest or mean[peak] < (1 + CLEAR_CHANGE) * fewest:
        return _no_boundary(
            f"interactions per probe fall from {mean[0]:.1f} to {fewest:.1f} by step {step}, "
            f"and hardly any emerge until step {last}"
        )
    low, high = _interval(counts, steps, np.random.default_rng(seed))
    reason = (
        f"interactions per probe fall from {mean[0]:.1f} to {fewest:.1f} by step {step}, "
        f"then grow to {mean[peak]:.1f} by step {int(steps[peak])}"
    )
    if len(counts) == 1:
        reason += "; with one probe the interval says nothing"
    return Boundary(index, step, low, high, reason)


def _no_boundary(reason: str) -> Boundary:
    return Boundary(None, None, None, None, reason)


def _interval(counts: NDArray[np.float64], steps: NDArray[np.int64], rng: np.random.Generator) -> tuple[int, int]:
    """5 % and 95 % points of the minimum's step when probes are drawn with replacement.

    counts: (P, T). A resample is how often each probe is drawn, so that all of them are one product
    of whole numbers, exact in any order of summation.
    """
    probes = counts.shape[0]
    drawn = rng.multinomial(probes, np.full(probes, 1 / probes), size=RESAMPLES)
    minima = steps[(drawn @ counts).argmin(axis=1)]
    low, high = np.quantile(minima, [0.05, 0.95], method="nearest")
    return int(low), int(high)
