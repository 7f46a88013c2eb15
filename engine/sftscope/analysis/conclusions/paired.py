"""Checkpoints compared on the same held-out rows: what changed, how sure that is, and the best of several later ones.

A row that is hard at one checkpoint is hard at the next: most of the variation of a loss or an accuracy is between
rows, and cancels where each row is compared with itself. The rows are the sample, so all that is said holds for rows
like these. Pure functions; "better" is a lower loss, or more rows that are right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import atan, cos, exp, inf, lgamma, log, pi, sin, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LEVEL = 0.95
_DRAWS = 2000  # of rows or signs: a p-value of .05 then has a standard error of .005
_BLOCK = 1 << 22  # of them at a time


@dataclass(frozen=True)
class PairedChange:
    """From a first checkpoint to a second one, on R rows.

    mean: nats a token, or a share of 1; low, high: its 95 % interval. p_value: how likely the second would look at
    least this much better if nothing had changed; p_worse: at least this much worse. Each is one-sided.
    """

    mean: float
    low: float
    high: float
    p_value: float
    p_worse: float
    rows: int


def loss_change(first: ArrayLike, second: ArrayLike, tokens: ArrayLike) -> PairedChange:
    """The change of Σ loss / Σ tokens. first, second: Σ loss of each row, (R,) nats; tokens: of its answer, (R,).

    With d = second − first and n tokens a row, θ = Σ d / Σ n is a ratio of two means over rows. Its linearised parts
    e = d − θ n have mean 0 and Var θ ≈ R/(R−1) Σ e² / (Σ n)²: a long answer weighs by its tokens, as it does in the
    loss, and tokens of one answer, which depend on each other, are never counted as independent. θ divided by its
    standard error is compared with Student's t of R − 1 degrees of freedom; with answers of one length that is the
    paired t test. With fewer than 2 rows nothing can be said: an infinite interval and p-values of 1.
    """
    change = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    count = np.asarray(tokens, dtype=np.float64)
    rows = change.size
    mean = float(change.sum() / count.sum()) if rows else 0.0
    if rows < 2:
        return PairedChange(mean, -inf, inf, 1.0, 1.0, rows)
    parts = change - mean * count
    error = sqrt(rows / (rows - 1) * float(parts @ parts)) / float(count.sum())
    statistic = mean / error if error else inf * mean if mean else 0.0  # all rows changed alike, or none did
    p_value = _t_above(-statistic, rows - 1)
    margin = _t_quantile(rows - 1) * error
    return PairedChange(mean, mean - margin, mean + margin, p_value, 1.0 - p_value, rows)


def accuracy_change(first: ArrayLike, second: ArrayLike) -> PairedChange:
    """The change of the share of right rows. first, second: whether each row is right, (R,).

    Only the rows that were gained or lost say anything (McNemar): if nothing changed each of them is as likely one as
    the other, so the number gained is binomial with ½, exactly, however few they are. p_value and p_worse both count
    the outcome itself and add up to more than 1. The interval is Bonett and Price's (2012): Wald's with one row added
    to each kind of change, which holds its level with few changes too.
    """
    before, after = np.asarray(first, dtype=np.bool_), np.asarray(second, dtype=np.bool_)
    rows, gained, lost = before.size, int((after & ~before).sum()), int((before & ~after).sum())
    if not rows:
        return PairedChange(0.0, -1.0, 1.0, 1.0, 1.0, 0)
    up, down = (gained + 1) / (rows + 2), (lost + 1) / (rows + 2)
    margin = NormalDist().inv_cdf((1 + _LEVEL) / 2) * sqrt((up + down - (up - down) ** 2) / (rows + 2))
    return PairedChange(
        mean=(gained - lost) / rows,
        low=max(-1.0, up - down - margin),
        high=min(1.0, up - down + margin),
        p_value=_half_at_least(gained, gained + lost),
        p_worse=_half_at_least(lost, gained + lost),
        rows=rows,
    )


def best_loss(first: ArrayLike, later: ArrayLike, *, draws: int = _DRAWS, seed: int = 0) -> NDArray[np.float64]:
    """One-sided p-values (k,) that each of k later checkpoints has a lower loss, corrected for their number.

    first: Σ loss of each row, (R,) nats; later: (k, R). Compare the least p-value with the level: one of them is
    wrongly called better in at most that share of runs. Negated losses ask the same of "worse".

    Each mean gain of a row is divided by its standard error, and compared with the largest of the k in resampled rows
    from which the k means were taken (max-t, Westfall and Young; bootstrap-t). Later checkpoints resemble each other:
    this knows by how much, where Bonferroni takes the worst case. It also knows that gains are skewed (overfitting
    makes few rows much worse), where Student's t, and random signs, call too much an improvement. 1 with fewer than 2
    rows.
    """
    gains = np.asarray(first, dtype=np.float64) - np.atleast_2d(np.asarray(later, dtype=np.float64))
    count, rows = gains.shape
    if rows < 2:
        return np.ones(count)
    found = _studentised(gains.sum(axis=1), (gains**2).sum(axis=1), rows)
    centred = (gains - gains.mean(axis=1, keepdims=True)).T
    rng = np.random.default_rng(seed)

    def largest(size: int) -> NDArray[np.float64]:
        places = rng.integers(0, rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        drawn = np.bincount(places.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)
        most: NDArray[np.float64] = _studentised(drawn @ centred, drawn @ centred**2, rows).max(axis=1)
        return most

    return _share_reached(found, largest, rows, draws)


def best_accuracy(first: ArrayLike, later: ArrayLike, *, draws: int = _DRAWS, seed: int = 0) -> NDArray[np.float64]:
    """As `best_loss`, of k later checkpoints with more right rows. first: (R,), later: (k, R), whether each is right.

    If nothing changed, what a row gained is as likely the opposite, at all k together. So the signs of the rows are
    drawn at random (for one later checkpoint that is McNemar's test), which is exact also where few rows changed.
    """
    gains = np.atleast_2d(np.asarray(later, dtype=np.float64)) - np.asarray(first, dtype=np.float64)
    changed = gains[:, gains.any(axis=0)]
    scale = np.sqrt(np.maximum((changed**2).sum(axis=1), 1.0))
    unit = (changed / scale[:, None]).T
    rng = np.random.default_rng(seed)

    def largest(size: int) -> NDArray[np.float64]:
        signs = rng.integers(0, 2, size=(size, len(unit)), dtype=np.int8) * 2.0 - 1.0
        most: NDArray[np.float64] = (signs @ unit).max(axis=1)
        return most

    return _share_reached(unit.sum(axis=0), largest, len(unit), draws)


def _share_reached(
    found: NDArray[np.float64], largest: Callable[[int], NDArray[np.float64]], rows: int, draws: int
) -> NDArray[np.float64]:
    """p-values (k,): in what share of the draws, itself included, the largest statistic reached each of `found`."""
    block = max(1, _BLOCK // max(1, rows))
    sizes = [min(block, draws - start) for start in range(0, draws, block)]
    most = np.concatenate([largest(size) for size in sizes])
    p_values: NDArray[np.float64] = (1 + (most[None, :] >= found[:, None] - 1e-9).sum(axis=1)) / (1 + draws)
    return p_values


def _studentised(total: NDArray[np.float64], squares: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Mean over standard error from Σ x and Σ x² of `rows` values; 0 where all are 0, infinite where all are equal."""
    spread = np.sqrt(np.maximum(squares - total**2 / rows, 0.0) * rows / (rows - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(total / spread, nan=0.0, posinf=inf, neginf=-inf)


def _half_at_least(count: int, of: int) -> float:
    """P(X ≥ count) for X binomial(of, ½)."""
    pmf = (exp(lgamma(of + 1) - lgamma(k + 1) - lgamma(of - k + 1) - of * log(2)) for k in range(count, of + 1))
    return min(1.0, sum(pmf))


def _t_above(t: float, freedom: int) -> float:
    """P(T > t) for Student's t with a whole number of degrees of freedom: the finite series in cos² of atan(t/√ν)."""
    angle = atan(t / sqrt(freedom))
    square, terms = cos(angle) ** 2, np.arange(1, (freedom - freedom % 2) // 2)
    if freedom % 2:
        series = 1.0 + np.cumprod(2 * terms / (2 * terms + 1) * square).sum()
        inside = 2 / pi * (angle + (sin(angle) * cos(angle) * series if freedom > 1 else 0.0))
    else:
        inside = sin(angle) * (1.0 + np.cumprod((2 * terms - 1) / (2 * terms) * square).sum())
    return min(1.0, max(0.0, (1.0 - float(inside)) / 2))


def _t_quantile(freedom: int) -> float:
    """What |T| exceeds in 5 % of draws, by bisection."""
    low, high = 0.0, 20.0  # 12.7 for one degree of freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_above(middle, freedom) > (1 - _LEVEL) / 2 else (low, middle)
    return high
