"""What held-out loss and accuracy say between checkpoints, beyond their own noise.

Where the loss of each held-out row is known, checkpoints are compared by paired tests (`paired`). Elsewhere, as in
runs of earlier versions and in most logs, the noise is what a curve that falls and then rises leaves unexplained, and
a change must be several times as large: what that costs is in `tests/benchmarks/bench_events.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.conclusions.paired import accuracy_p_value, loss_p_value
from sftscope.analysis.course.turning_point import checkpoint_noise, turning_fit
from sftscope.lattice.transforms import Floats
from sftscope.store.held_out_file import HeldOutRows

LEAST_LOSS = 0.005  # a smaller relative change of held-out loss changes nobody's choice, however sure it is
IMPROVES, RISES = 3.5, 4.5  # times the noise: the lowest of many later checkpoints, the last against the lowest
LOOKS = 1.3  # times that where a run is looked at after every checkpoint
# of the paired tests: on 400 skewed rows a bootstrap at 5 % is wrong in 6 %; and one of many looks
LEVEL, LEVEL_OF_LOOKS = 0.04, 0.01
MIN_VALUES = 6  # without rows: fewer are fitted so closely that no noise is left to compare with
_LEAST_VALUE = 1e-9  # nats: a loss of 0 has no logarithm
PATIENCE = 3  # checkpoints without a new minimum after which early stopping gives up


@dataclass(frozen=True, eq=False)
class Curve:
    """A quantity at M steps, in order: held-out loss in nats a token, or accuracy as a share of 1.

    rows: how many accuracy is measured on; 0 where that is not known. each: every row by itself, where that is stored.
    """

    steps: NDArray[np.int64]
    values: Floats
    rows: int = 0
    each: HeldOutRows | None = None

    @property
    def pairs(self) -> list[tuple[int, float]]:
        """Step and value."""
        return list(zip(self.steps.tolist(), self.values.tolist(), strict=True))


@dataclass(frozen=True)
class Difference:
    """From one step to another. is_clear: beyond noise. sure: how that is known, in words.

    is_tested: whether there were enough values to tell.
    """

    step: int
    value: float
    later_step: int
    later: float
    is_clear: bool
    sure: str
    is_tested: bool = True


def window(steps: NDArray[np.int64], low: int, high: int) -> NDArray[np.int64]:
    """Indices of what was measured at the steps low … high; of the two around them where nothing was."""
    inside = np.flatnonzero((steps >= low) & (steps <= high))
    if inside.size:
        return inside
    before, after = np.flatnonzero(steps < low), np.flatnonzero(steps > high)
    return np.concatenate([before[-1:], after[:1]]) if before.size and after.size else inside


def loss_improves_after(loss: Curve, low: int, high: int, *, looks: bool = False) -> Difference | None:
    """Whether held-out loss falls after an event whose interval is low … high; None where that was not measured."""
    if (paired := _paired_improvement(loss, low, high, looks=looks)) is not None:
        return paired
    here = window(loss.steps, low, high)
    if not here.size or here[-1] == loss.steps.size - 1:
        return None
    logs = np.log(np.maximum(loss.values, _LEAST_VALUE))
    fit, noise = turning_fit(logs), checkpoint_noise(logs)
    first = int(here[logs[here].argmin()])
    later = int(here[-1]) + 1 + int(logs[here[-1] + 1 :].argmin())
    gain = float(fit[here].min() - fit[here[-1] + 1 :].min())
    if loss.steps.size < MIN_VALUES:
        return _untested(loss, first, later)
    needed = max(LEAST_LOSS, IMPROVES * (LOOKS if looks else 1.0) * noise)
    return _difference(loss, first, later, gain >= needed, _beyond(gain, noise))


def loss_rises(loss: Curve, *, looks: bool = False) -> Difference | None:
    """Whether held-out loss has risen from its minimum to the last step; None with too few values to tell."""
    if (paired := _paired_rise(loss, looks=looks)) is not None:
        return paired
    if loss.steps.size < MIN_VALUES:
        return None
    logs = np.log(np.maximum(loss.values, _LEAST_VALUE))
    fit, noise = turning_fit(logs), checkpoint_noise(logs)
    lowest = int(logs.argmin())
    rise = float(fit[-1] - fit.min())
    needed = max(LEAST_LOSS, RISES * (LOOKS if looks else 1.0) * noise)
    clear = lowest < loss.steps.size - 1 and rise >= needed
    return _difference(loss, lowest, loss.steps.size - 1, clear, _beyond(rise, noise))


def more_accurate_after(accuracy: Curve, step: int, *, looks: bool = False) -> Difference | None:
    """Whether a checkpoint after `step` is clearly more accurate than the best up to there."""
    if (paired := _paired_accuracy(accuracy, step, looks=looks)) is not None:
        return paired
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
        return _difference(accuracy, best, later, p_value <= _level(looks), f"p {p_value:.2g}, {rows} rows")
    if values.size < MIN_VALUES:
        return _untested(accuracy, best, later)
    noise = checkpoint_noise(values)
    gain = float(values[later] - values[best])
    needed = IMPROVES * (LOOKS if looks else 1.0) * noise
    return _difference(accuracy, best, later, gain >= needed, _beyond(gain, noise))


def patience_step(measured: Sequence[tuple[int, float]], patience: int = PATIENCE) -> int | None:
    """The step at which `patience` checkpoints in a row brought no new minimum; None where that never is."""
    best, waited = math.inf, 0
    for step, loss in measured:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            return step
    return None


def _paired_improvement(loss: Curve, low: int, high: int, *, looks: bool) -> Difference | None:
    """By the rows; None where they were not measured both in the interval and after it."""
    rows = loss.each
    if rows is None:
        return None
    here, after = np.flatnonzero((rows.steps >= low) & (rows.steps <= high)), np.flatnonzero(rows.steps > high)
    if not here.size or not after.size:
        return None
    means = rows.loss_per_token
    first = int(here[means[here].argmin()])
    p_value = loss_p_value(rows, first, after.tolist())
    later = int(after[means[after].argmin()])
    large = means[later] <= means[first] * (1 - LEAST_LOSS)
    return _of_rows(rows.steps, means, first, later, bool(large and p_value <= _level(looks)), p_value, rows.loss)


def _paired_rise(loss: Curve, *, looks: bool) -> Difference | None:
    """By the rows: the last checkpoint against all before it, corrected for choosing the lowest of these."""
    rows = loss.each
    if rows is None or rows.steps.size < 3:
        return None
    means, last = rows.loss_per_token, rows.steps.size - 1
    lowest = int(means.argmin())
    p_value = loss_p_value(rows, last, range(last))
    large = lowest < last and means[last] >= means[lowest] * (1 + LEAST_LOSS)
    return _of_rows(rows.steps, means, lowest, last, bool(large and p_value <= _level(looks)), p_value, rows.loss)


def _paired_accuracy(accuracy: Curve, step: int, *, looks: bool) -> Difference | None:
    """By the rows; None where they were not measured both up to the step and after it."""
    rows = accuracy.each
    if rows is None:
        return None
    before, after = np.flatnonzero(rows.correct_steps <= step), np.flatnonzero(rows.correct_steps > step)
    if not before.size or not after.size:
        return None
    shares = rows.accuracy
    first, later = int(before[shares[before].argmax()]), int(after[shares[after].argmax()])
    p_value = accuracy_p_value(rows, first, after.tolist())
    is_clear = bool(shares[later] > shares[first] and p_value <= _level(looks))
    return _of_rows(rows.correct_steps, shares, first, later, is_clear, p_value, rows.correct)


def _of_rows(
    steps: NDArray[np.int64],
    values: Floats,
    first: int,
    later: int,
    is_clear: bool,
    p_value: float,
    rows: NDArray[Any],
) -> Difference:
    sure = f"p {p_value:.2g} over {rows.shape[1]} held-out rows"
    return Difference(int(steps[first]), float(values[first]), int(steps[later]), float(values[later]), is_clear, sure)


def _level(looks: bool) -> float:
    return LEVEL_OF_LOOKS if looks else LEVEL


def _difference(curve: Curve, first: int, later: int, is_clear: bool, sure: str) -> Difference:
    at, value = curve.steps, curve.values
    return Difference(int(at[first]), float(value[first]), int(at[later]), float(value[later]), bool(is_clear), sure)


def _untested(curve: Curve, first: int, later: int) -> Difference:
    at, value, count = curve.steps, curve.values, curve.steps.size
    sure = f"{count} evaluations are too few to tell it from noise, {MIN_VALUES} are needed"
    return Difference(int(at[first]), float(value[first]), int(at[later]), float(value[later]), False, sure, False)


def _beyond(change: float, noise: float) -> str:
    return f"{change / max(noise, 1e-9):.1f} times the noise between checkpoints" if change > 0 else "not at all"


def _upper_tail(z: float) -> float:
    """Of the standard normal distribution."""
    return 0.5 * math.erfc(z / math.sqrt(2))
