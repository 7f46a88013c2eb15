"""Whether curves over checkpoints fall and then grow, and how sure that is. Knows numbers and no interactions.

The input is one curve a probe, in logarithms, (P, T). A checkpoint has noise of its own that all probes share, which
lasts from one checkpoint to the next: neither resampling probes nor a model of independent errors sees it. So the
test is a ratio of sums of squares that has no scale. With m the mean curve, and least-squares fits

    U: never rising up to some checkpoint, never falling from there on;
    R: never falling;   D: never rising,

a fall shows as RSS(R) / RSS(U), growth as RSS(D) / RSS(U). A jump fits as well as a slope does, and noise is measured
by what no such curve explains. The ratio must reach `limit(T)`, which noise of an autoregression of 0.8 reaches in
7.5 % of cases (`tests/benchmarks/bench_events.py --limits` computes them), and the fall and growth must be `CLEAR`:
noise that lasts has a size, and most of it does not reach this one. In the end false claims are below 5 %.

A mean can fall and grow where no probe does both, so the median probe must fall and grow by half as much, too.
"""

from dataclasses import dataclass

import numpy as np

from sftscope.lattice.transforms import Floats

MIN_STEPS = 7  # of fewer, noise that lasts falls and grows without exception in more than 7 % of cases
CLEAR = 0.35  # in logs: by 30 % downwards, by 42 % upwards
REPEATED = 2.0  # times the limit where a run is looked at after every checkpoint
LIMITS = {7: 1500.0, 8: 66.0, 9: 26.0, 10: 16.0, 11: 12.6, 12: 10.0, 13: 8.7, 14: 7.9, 15: 6.7, 16: 6.6, 18: 6.5}
_LEAST_RSS = 1e-5  # a curve without any noise


@dataclass(frozen=True)
class Trend:
    """A fall, or growth. depth: in logs, of the smoothed mean. typical: of the median probe. ratio: of the test."""

    depth: float
    typical: float
    ratio: float
    limit: float
    probes: int  # that change so by themselves, by half of `CLEAR`

    @property
    def is_clear(self) -> bool:
        """Whether it is large, beyond what noise does, and not the work of a few probes."""
        return self.depth >= CLEAR and self.ratio >= self.limit and self.typical >= CLEAR / 2


@dataclass(frozen=True)
class TurningPoint:
    """index: of the lowest checkpoint. fall, growth: before and after it. both: of a probe, whichever is smaller."""

    index: int
    fall: Trend
    growth: Trend
    both: Trend


def find_turning_point(logs: Floats, *, looks: bool = False) -> TurningPoint:
    """The turning point of the curves (P, T), T ≥ 2. looks: the curves are looked at after every checkpoint."""
    mean, allowed = logs.mean(axis=0), limit(logs.shape[1], looks=looks)
    level, single = smooth(mean), smooth(logs)
    low = int(level.argmin())
    first, last = int(level[: low + 1].argmax()), low + int(level[low:].argmax())
    fits = _fits(mean)
    falls, grows = single[:, first] - single[:, low], single[:, last] - single[:, low]
    fall, growth = float(level[first] - level[low]), float(level[last] - level[low])
    against_fall, against_growth = fits.rising / fits.turning, fits.falling / fits.turning
    return TurningPoint(
        low,
        _trend(fall, falls, against_fall, allowed),
        _trend(growth, grows, against_growth, allowed),
        _trend(min(fall, growth), np.minimum(falls, grows), min(against_fall, against_growth), allowed),
    )


def limit(steps: int, *, looks: bool = False) -> float:
    """What the ratio must reach with T checkpoints; infinite below `MIN_STEPS`."""
    if steps < MIN_STEPS:
        return float("inf")
    value = np.exp(np.interp(steps, list(LIMITS), np.log(list(LIMITS.values()))))
    return float(value * (REPEATED if looks else 1.0))


def smooth(curves: Floats) -> Floats:
    """Weights 1-2-1 over neighbouring checkpoints: (..., T)."""
    before = np.concatenate([curves[..., :1], curves[..., :-1]], axis=-1)
    after = np.concatenate([curves[..., 1:], curves[..., -1:]], axis=-1)
    smoothed: Floats = (before + 2 * curves + after) / 4
    return smoothed


def checkpoint_noise(mean: Floats) -> float:
    """σ of a checkpoint in a mean curve (T,): from third differences, and from what a curve with one turn leaves.

    A smooth curve hardly has third differences; their median does not see a jump.
    """
    left = np.sqrt(_fits(mean).turning / max(1.0, mean.size / 2))
    if mean.size < 4:
        return float(left)
    third = np.median(np.abs(np.diff(mean, 3))) / (0.6745 * np.sqrt(20))
    return float(max(left, third))


@dataclass(frozen=True)
class _Fits:
    """Residual sums of squares of the fits U, R, D."""

    turning: float
    rising: float
    falling: float


def _fits(mean: Floats) -> _Fits:
    falling, rising_after = monotone_rss(-mean), monotone_rss(-mean[::-1])[::-1]
    turning = min(falling[:-1] + rising_after[1:], default=0.0)
    return _Fits(max(float(turning), _LEAST_RSS), float(monotone_rss(mean)[-1]), float(falling[-1]))


def monotone_rss(values: Floats) -> Floats:
    """Residual sum of squares of the closest curve that never falls, to the first 1, 2, … T values: (T,).

    Pool adjacent violators: a block that lies below the one before it is merged with it.
    """
    blocks: list[tuple[float, int, float]] = []  # mean, size, sum of squares about the mean
    total, sums = 0.0, np.empty(values.size)
    for place, value in enumerate(values.tolist()):
        mean, size, inside = value, 1, 0.0
        while blocks and blocks[-1][0] > mean:
            other, width, theirs = blocks.pop()
            total -= theirs
            inside += theirs + size * width / (size + width) * (other - mean) ** 2
            mean, size = (size * mean + width * other) / (size + width), size + width
        blocks.append((mean, size, inside))
        total += inside
        sums[place] = total
    return sums


def _trend(depth: float, of_probes: Floats, ratio: float, allowed: float) -> Trend:
    probes = int((of_probes >= CLEAR / 2).sum())
    return Trend(depth, float(np.median(of_probes)), float(ratio), allowed, probes)


def turning_fit(mean: Floats) -> Floats:
    """The closest curve that never rises up to some checkpoint and never falls from there on: (T,)."""
    if mean.size < 2:
        return mean.copy()
    falling, rising_after = monotone_rss(-mean), monotone_rss(-mean[::-1])[::-1]
    last = int((falling[:-1] + rising_after[1:]).argmin())
    return np.concatenate([-_never_falling(-mean[: last + 1]), _never_falling(mean[last + 1 :])])


def _never_falling(values: Floats) -> Floats:
    """The closest curve that never falls: (T,)."""
    blocks: list[tuple[float, int]] = []
    for value in values.tolist():
        mean, size = value, 1
        while blocks and blocks[-1][0] > mean:
            other, width = blocks.pop()
            mean, size = (size * mean + width * other) / (size + width), size + width
        blocks.append((mean, size))
    return np.concatenate([np.full(size, mean) for mean, size in blocks]) if blocks else values
