"""What held-out loss and accuracy say between checkpoints, beyond their own noise.

Where the loss of each held-out row is known, checkpoints are compared by paired tests (`paired`). Elsewhere, as in
runs of earlier versions and in most logs, the noise is what a curve that falls and then rises leaves unexplained, and
a change must be several times as large: what that costs is in `tests/benchmarks/bench_events.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.course.turning_point import checkpoint_noise, turning_fit
from sftscope.lattice.transforms import Floats

LEAST_LOSS = 0.01  # a smaller relative change of held-out loss changes nobody's choice, however sure it is
IMPROVES, RISES = 3.5, 4.5  # times the noise: the lowest of many later checkpoints, the last against the lowest
LOOKS = 1.3  # times that where a run is looked at after every checkpoint
ALPHA = 0.05
PATIENCE = 3  # checkpoints without a new minimum after which early stopping gives up


@dataclass(frozen=True, eq=False)
class Curve:
    """A quantity at M steps, in order: held-out loss in nats a token, or accuracy as a share of 1. rows: of accuracy,
    how many it is measured on; 0 where that is not known."""

    steps: NDArray[np.int64]
    values: Floats
    rows: int = 0

    @property
    def pairs(self) -> list[tuple[int, float]]:
        """Step and value."""
        return list(zip(self.steps.tolist(), self.values.tolist(), strict=True))


@dataclass(frozen=True)
class Change:
    """From one step to another. is_clear: beyond noise. sure: how that is known, in words."""

    step: int
    value: float
    later_step: int
    later: float
    is_clear: bool
    sure: str


def window(steps: NDArray[np.int64], low: int, high: int) -> NDArray[np.int64]:
    """Indices of what was measured at the steps low … high; of the two around them where nothing was."""
    inside = np.flatnonzero((steps >= low) & (steps <= high))
    if inside.size:
        return inside
    before, after = np.flatnonzero(steps < low), np.flatnonzero(steps > high)
    return np.concatenate([before[-1:], after[:1]]) if before.size and after.size else inside


def loss_improves_after(loss: Curve, low: int, high: int, *, looks: bool = False) -> Change | None:
    """Whether held-out loss falls after an event whose interval is low … high; None where that was not measured."""
    here = window(loss.steps, low, high)
    if not here.size or here[-1] == loss.steps.size - 1:
        return None
    logs = np.log(loss.values)
    fit, noise = turning_fit(logs), checkpoint_noise(logs)
    first = int(here[logs[here].argmin()])
    later = int(here[-1]) + 1 + int(logs[here[-1] + 1 :].argmin())
    gain = float(fit[here].min() - fit[here[-1] + 1 :].min())
    needed = max(LEAST_LOSS, IMPROVES * (LOOKS if looks else 1.0) * noise)
    return _change(loss, first, later, gain >= needed, _beyond(gain, noise))


def loss_rises(loss: Curve, *, looks: bool = False) -> Change | None:
    """Whether held-out loss has risen from its minimum to the last step; None with fewer than three values."""
    if loss.steps.size < 3:
        return None
    logs = np.log(loss.values)
    fit, noise = turning_fit(logs), checkpoint_noise(logs)
    lowest = int(logs.argmin())
    rise = float(fit[-1] - fit.min())
    needed = max(LEAST_LOSS, RISES * (LOOKS if looks else 1.0) * noise)
    clear = lowest < loss.steps.size - 1 and rise >= needed
    return _change(loss, lowest, loss.steps.size - 1, clear, _beyond(rise, noise))


def more_accurate_after(accuracy: Curve, step: int) -> Change | None:
    """Whether a checkpoint after `step` is clearly more accurate than the best up to there."""
    before, after = np.flatnonzero(accuracy.steps <= step), np.flatnonzero(accuracy.steps > step)
    if not before.size or not after.size:
        return None
    values = accuracy.values
    best, later = int(before[values[before].argmax()]), int(after[values[after].argmax()])
    rows = accuracy.rows
    if rows:
        both = (values[best] + values[later]) / 2
        error = math.sqrt(max(2 * both * (1 - both), 1 / rows) / rows)
        p_value = min(1.0, after.size * _upper_tail((values[later] - values[best]) / error))
        return _change(accuracy, best, later, p_value <= ALPHA, f"p {p_value:.2g}, {rows} rows")
    noise = checkpoint_noise(values)
    gain = float(values[later] - values[best])
    return _change(accuracy, best, later, gain >= IMPROVES * noise, _beyond(gain, noise))


def patience_step(measured: Sequence[tuple[int, float]], patience: int = PATIENCE) -> int | None:
    """The step at which `patience` checkpoints in a row brought no new minimum; None where that never is."""
    best, waited = math.inf, 0
    for step, loss in measured:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            return step
    return None


def _change(curve: Curve, first: int, later: int, is_clear: bool, sure: str) -> Change:
    at, value = curve.steps, curve.values
    return Change(int(at[first]), float(value[first]), int(at[later]), float(value[later]), bool(is_clear), sure)


def _beyond(change: float, noise: float) -> str:
    return f"{change / max(noise, 1e-9):.1f} times the noise between checkpoints" if change > 0 else "no change"


def _upper_tail(z: float) -> float:
    """Of the standard normal distribution."""
    return 0.5 * math.erfc(z / math.sqrt(2))
