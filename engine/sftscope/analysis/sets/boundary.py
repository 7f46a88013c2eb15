"""Where denoising ends: the checkpoint with the fewest encoded interactions, and how sure that is.

SFT first removes more than it invents, then invents more than it removes; between the two, |Ω_t| has
its minimum (see `turning_point`). Where the counts do not clearly fall before it and grow after it,
there are no two stages, and the reason says which is missing.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.turning_point import MIN_STEPS, TurningPoint, find_turning_point

CLEAR_CHANGE = 0.15  # of log(1 + count), smoothed; less is not called a fall or a growth
_FOUND: WeakKeyDictionary[Evolution, dict[int, "Boundary"]] = WeakKeyDictionary()  # every view asks for it
LEVEL = 0.025  # of the test of the fall, and of that of the growth


@dataclass(frozen=True)
class Boundary:
    """The end of the denoising stage.

    index, step: the last checkpoint of the denoising stage, None where there are not two stages.
    low, high: 95 % bootstrap interval of the step. reason: one sentence.
    """

    index: int | None
    step: int | None
    low: int | None
    high: int | None
    reason: str


def find_boundary(evolution: Evolution, *, seed: int = 0) -> Boundary:
    """The end of denoising, over all probes and from the first extracted step on."""
    found = _FOUND.setdefault(evolution, {})
    if seed not in found:
        found[seed] = boundary_of(evolution.counts(), evolution.history.steps, seed=seed)
    return found[seed]


def boundary_of(counts: NDArray[np.int64], steps: NDArray[np.int64], *, seed: int = 0) -> Boundary:
    """The end of denoising of counts |Ω_t| (P, T) at the steps (T,)."""
    if steps.size < MIN_STEPS:
        return _no_boundary(f"two stages need at least {MIN_STEPS} extracted steps, this run has {steps.size}")
    turn = find_turning_point(counts, np.random.default_rng(seed))
    mean = counts.mean(axis=0)
    if missing := _missing(turn, mean, steps):
        return _no_boundary(missing)
    step, peak = int(steps[turn.index]), turn.index + int(mean[turn.index :].argmax())
    reason = (
        f"interactions per probe fall from {mean[0]:.1f} to {mean[turn.index]:.1f} by step {step}, "
        f"then grow to {mean[peak]:.1f} by step {int(steps[peak])}"
    )
    if len(counts) == 1:
        reason += "; with one probe the interval says little"
    return Boundary(turn.index, step, int(steps[turn.low]), int(steps[turn.high]), reason)


def first_claim(spoken: list[Boundary]) -> int | None:
    """The index of the first that names a step, of what could be said at each; None where none does."""
    return next((index for index, boundary in enumerate(spoken) if boundary.step is not None), None)


def _missing(turn: TurningPoint, mean: NDArray[np.float64], steps: NDArray[np.int64]) -> str:
    """What speaks against two stages; empty if nothing does."""
    fewest, step, last = mean[turn.index], int(steps[turn.index]), int(steps[-1])
    if turn.fall < CLEAR_CHANGE and mean.min() >= mean[0]:
        return "the number of interactions never falls below its start"
    if turn.fall < CLEAR_CHANGE:
        return f"the number of interactions hardly falls ({mean[0]:.1f} → {fewest:.1f} per probe)"
    if turn.rise < CLEAR_CHANGE and turn.index == steps.size - 1:
        return f"interactions are still being removed at step {last} ({fewest:.1f} per probe)"
    if turn.rise < CLEAR_CHANGE:
        fall = f"interactions per probe fall from {mean[0]:.1f} to {fewest:.1f} by step {step}"
        return f"{fall}, and hardly any emerge until step {last}"
    for name, p_value in (("fall", turn.falls), ("growth", turn.rises)):
        if p_value > LEVEL:
            at = f"the fewest interactions are at step {step} ({int(steps[turn.low])}–{int(steps[turn.high])})"
            where = "before it" if name == "fall" else "after it"
            return f"{at}, but the {name} {where} is within the variation between checkpoints (p {p_value:.2f})"
    return ""


def _no_boundary(reason: str) -> Boundary:
    return Boundary(None, None, None, None, reason)
