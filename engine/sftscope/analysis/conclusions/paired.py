"""Checkpoints compared on the same held-out rows: what changed, how sure that is, and the best of several later ones.

A row that is hard at one checkpoint is hard at the next: most of the variation of a loss or an accuracy is between
rows, and cancels where each row is compared with itself. The rows are the sample, so all that is said holds for rows
like these. Pure functions; "better" is a lower loss, or more rows that are right.
"""

from collections.abc import Callable
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWS = 2000  # of rows or signs: a p-value of .05 then has a standard error of .005
_BLOCK = 1 << 22  # of them at a time


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
