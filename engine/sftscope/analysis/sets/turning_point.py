"""Where a noisy curve over checkpoints stops falling and begins to rise, and whether it does both.

Knows counts and no interactions. The curve is the logarithm of 1 + the mean count over probes, smoothed
over neighbouring checkpoints; the turning point is its minimum. Noise is of
two kinds, that of the probes and that of a checkpoint as a whole: the interval draws probes anew and
flips the signs of what the smoothing took away. Fall and rise are each tested against curves that
only rise or only fall, with normal noise of the size that third differences show.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.lattice.transforms import Floats

RESAMPLES = 1000
MOST_VALUES = 1 << 21  # of resampled curves that are drawn at a time
BLOCK_VALUES = 1 << 15  # of those that are worked on at a time, small enough for a core's cache
COVERAGE = 0.95
ALIKE = 0.25  # of the noise of a checkpoint
MIN_STEPS = 5  # fewer have no noise to measure


@dataclass(frozen=True)
class TurningPoint:
    """index: the minimum. low, high: interval, as indices. fall, rise: in logs. falls, rises: p-values of none."""

    index: int
    low: int
    high: int
    fall: float
    rise: float
    falls: float
    rises: float


def find_turning_point(counts: NDArray[Any], rng: np.random.Generator) -> TurningPoint:
    """The turning point of counts (P, T), T ≥ `MIN_STEPS`."""
    mean = np.log1p(counts.mean(axis=0))
    index = _end_of_fall(smooth(mean), float(_noise(mean)))
    low, high = _interval(counts.astype(np.float64), rng)
    level = smooth(mean)
    return TurningPoint(
        index,
        min(low, index),
        max(high, index),
        float(_fall(level)),
        float(_fall(level[::-1])),
        _p_value(mean, _monotone(mean), rng),
        _p_value(mean[::-1], _monotone(mean[::-1]), rng),
    )


def smooth(curves: Floats) -> Floats:
    """Triangular weights over neighbours, 1-2-1 up to 24 checkpoints and wider beyond: (..., T)."""
    half = max(1, round(curves.shape[-1] / 16))
    edges = [(0, 0)] * (curves.ndim - 1) + [(half, half)]
    padded = np.pad(curves, edges, mode="edge")
    if half == 1:
        return (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4
    # a triangle is a box over a box; sums so far make each of them as cheap as it is long
    for _ in range(2):
        sums = np.cumsum(padded, axis=-1)
        boxes = sums[..., half:].copy()
        boxes[..., 1:] -= sums[..., : -half - 1]
        padded = boxes
    return padded / (half + 1) ** 2


def _end_of_fall(level: Floats, noise: float) -> int:
    """The minimum of a smoothed curve (T,), or the checkpoint after it where noise cannot tell the two apart.

    A fall flattens before the curve turns: with straight and curved falls alike this is nearest to the turn.
    """
    index = int(level.argmin())
    later = index + 1
    return later if later < level.size and level[later] <= level[index] + ALIKE * noise else index


def _interval(counts: Floats, rng: np.random.Generator) -> tuple[int, int]:
    """Quantiles of the minimum over resamples of counts (P, T)."""
    probes, steps = counts.shape
    half = max(1, round(steps / 16))
    minima = []
    for size in _parts(steps):
        drawn = rng.multinomial(probes, np.full(probes, 1 / probes), size=size)
        flipped = rng.integers(0, 2, size=(size, steps))
        for rows in _blocks(size, steps):
            again = np.log1p(drawn[rows] @ counts / probes)
            level = smooth(again)
            rest = (again - level) / (1 - 1 / (half + 1))  # the weight of the point itself is 1 / (half + 1)
            minima.append(smooth(level + rest * (2 * flipped[rows] - 1)).argmin(axis=1))
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    low, high = np.quantile(np.concatenate(minima), ends, method="nearest")
    return int(low), int(high)


def _parts(steps: int) -> list[int]:
    """`RESAMPLES` in parts whose curves of T = `steps` stay small."""
    most = min(RESAMPLES, max(1, MOST_VALUES // steps))
    return [most] * (RESAMPLES // most) + ([RESAMPLES % most] if RESAMPLES % most else [])


def _blocks(curves: int, steps: int) -> list[slice]:
    """Rows of `curves` curves of T = `steps`, as many at a time as a core's cache holds."""
    most = max(1, BLOCK_VALUES // steps)
    return [slice(first, min(first + most, curves)) for first in range(0, curves, most)]


def _noise(curves: Floats) -> Floats:
    """σ of a checkpoint from third differences, which a smooth curve hardly has: (...)."""
    sigma: Floats = np.abs(np.diff(curves, 3, axis=-1)).mean(axis=-1) * np.sqrt(np.pi / 40)
    return np.maximum(sigma, 1e-3)


def _fall(level: Floats) -> Floats:
    """How far a smoothed curve (..., T) falls to its minimum: (...)."""
    before = np.arange(level.shape[-1]) <= level.argmin(axis=-1)[..., None]
    fall: Floats = np.where(before, level, -np.inf).max(axis=-1) - level.min(axis=-1)
    return fall


def _p_value(mean: Floats, null: Floats, rng: np.random.Generator) -> float:
    """The share of noisy copies of a curve without a fall whose fall, in units of its noise, is as large."""
    noise = _noise(mean)
    seen = _fall(smooth(mean)) / noise
    as_large = 0
    for rows in _blocks(RESAMPLES, mean.size):
        copies = null + noise * rng.normal(size=(rows.stop - rows.start, mean.size))
        as_large += int((_fall(smooth(copies)) / _noise(copies) >= seen).sum())
    return (1 + as_large) / (1 + RESAMPLES)


def _monotone(values: Floats) -> Floats:
    """The closest curve that never falls (pool adjacent violators): (T,)."""
    blocks: list[tuple[float, int]] = []
    for value in values.tolist():
        total, size = value, 1
        while blocks and blocks[-1][0] * size >= total * blocks[-1][1]:
            before, width = blocks.pop()
            total, size = total + before, size + width
        blocks.append((total, size))
    return np.concatenate([np.full(size, total / size) for total, size in blocks])
