"""Checkpoints compared on the same held-out rows: how sure it is that the best of several later ones is better.

A row that is hard at one checkpoint is hard at the next: most of the variation of a loss or an accuracy is between
rows, and cancels where each row is compared with itself. The rows are the sample, so all that is said holds for rows
like these. "Better" is a lower loss, or more rows that are right.

The rows are drawn again the same way for each pair of checkpoints. So what the draws make of a pair can be kept, and
all pairs of a run, which looks after every checkpoint need, are made in one pass (`draw_all`).
"""

from collections.abc import Iterator, Sequence
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sftscope.store.held_out_file import HeldOutRows

Floats = NDArray[np.float64]
_DRAWS = 2000  # of rows or signs: a p-value of .05 then has a standard error of .005
_BLOCK = 1 << 22  # of them at a time
_NOTHING = 1e-12  # of the largest loss: gains that vary by less are equal


def best_loss(first: ArrayLike, later: ArrayLike, *, draws: int = _DRAWS, seed: int = 0) -> Floats:
    """One-sided p-values (k,) that each of k later checkpoints has a lower loss, corrected for their number.

    first: Σ loss of each row, (R,) nats; later: (k, R). Compare the least p-value with the level: one of them is
    wrongly called better in at most that share of runs. Negated losses ask the same of "worse".

    Each mean gain of a row is divided by its standard error, and compared with the largest of the k in resampled rows
    from which the k means were taken (max-t, Westfall and Young; bootstrap-t). Later checkpoints resemble each other:
    this knows by how much, where Bonferroni takes the worst case. It also knows that gains are skewed (overfitting
    makes few rows much worse), where Student's t, and random signs, call too much an improvement. 1 with fewer than 2
    rows.
    """
    loss = np.vstack([np.asarray(first, dtype=np.float64), np.atleast_2d(np.asarray(later, dtype=np.float64))])
    if loss.shape[1] < 2:
        return np.ones(len(loss) - 1)
    pairs = [(0, place) for place in range(1, len(loss))]
    return _share_reached(_gains(loss, pairs), _loss_draws(loss, pairs, draws, seed))


def best_accuracy(first: ArrayLike, later: ArrayLike, *, draws: int = _DRAWS, seed: int = 0) -> Floats:
    """As `best_loss`, of k later checkpoints with more right rows. first: (R,), later: (k, R), whether each is right.

    If nothing changed, what a row gained is as likely the opposite, at all k together. So the signs of the rows are
    drawn at random (for one later checkpoint that is McNemar's test), which is exact also where few rows changed.
    """
    before, after = np.asarray(first, dtype=np.bool_), np.atleast_2d(np.asarray(later, dtype=np.bool_))
    drawn = _sign_draws(np.vstack([before, after]), draws, seed)
    return _more_right(before, after, drawn[:, 0], drawn[:, 1:])


def loss_p_value(rows: HeldOutRows, first: int, later: Sequence[int]) -> float:
    """The least p-value of `best_loss` for the loss of `rows` at the indices `first` and `later`."""
    if rows.tokens.size < 2:
        return 1.0
    steps, pairs = rows.steps.tolist(), [(first, each) for each in later]
    missing = [tuple(sorted(pair)) for pair in pairs if _key(steps, pair) not in rows.drawn]
    if missing:
        _keep(rows, missing)
    drawn = [np.sign(b - a) * rows.drawn[_key(steps, (a, b))] for a, b in pairs]
    return float(_share_reached(_gains(rows.loss, pairs), np.stack(drawn, axis=1)).min())


def accuracy_p_value(rows: HeldOutRows, first: int, later: Sequence[int]) -> float:
    """The least p-value of `best_accuracy` for the right rows of `rows` at the indices `first` and `later`."""
    steps = rows.correct_steps.tolist()
    if any(("right", steps[each]) not in rows.drawn for each in (first, *later)):
        _keep_signs(rows)
    drawn = np.stack([rows.drawn["right", steps[each]] for each in later], axis=1)
    right = rows.correct
    return float(_more_right(right[first], right[list(later)], rows.drawn["right", steps[first]], drawn).min())


def draw_all(rows: HeldOutRows) -> None:
    """Make what the tests of all pairs of checkpoints need, in one pass; it is kept with the rows."""
    count = rows.steps.size
    if rows.tokens.size > 1 and count > 1:
        _keep(rows, [(a, b) for a in range(count) for b in range(a + 1, count)])
    if rows.correct_steps.size > 1:
        _keep_signs(rows)


def _key(steps: Sequence[int], pair: tuple[int, int]) -> tuple[str, int, int]:
    first, second = sorted(pair)
    return "loss", steps[first], steps[second]


def _keep(rows: HeldOutRows, pairs: Sequence[tuple[int, ...]]) -> None:
    steps, ordered = rows.steps.tolist(), sorted({(pair[0], pair[1]) for pair in pairs})
    drawn = _loss_draws(rows.loss, ordered, _DRAWS, 0)
    rows.drawn.update({_key(steps, pair): drawn[:, place] for place, pair in enumerate(ordered)})


def _keep_signs(rows: HeldOutRows) -> None:
    drawn = _sign_draws(rows.correct, _DRAWS, 0)
    rows.drawn.update({("right", step): drawn[:, place] for place, step in enumerate(rows.correct_steps.tolist())})


def _gains(loss: Floats, pairs: Sequence[tuple[int, int]]) -> Floats:
    """The mean gain of a row over its standard error, from the first to the second of each pair: (pairs,)."""
    gains = np.array([loss[a] - loss[b] for a, b in pairs])
    return _studentised(gains.sum(axis=1), (gains**2).sum(axis=1), loss.shape[1])


def _loss_draws(loss: Floats, pairs: Sequence[tuple[int, int]], draws: int, seed: int) -> Floats:
    """The same in resampled rows, from which the mean gain was taken: (draws, pairs). loss: (M, R)."""
    rows, found = loss.shape[1], np.empty((draws, len(pairs)))
    width = max(1, 2 * _BLOCK // rows)  # pairs at a time: their gains are as large as the draws
    for start in range(0, len(pairs), width):
        part = slice(start, start + width)
        first, second = np.array(pairs[part]).T
        gains = loss[first] - loss[second]
        mean = gains.mean(axis=1)
        gains -= mean[:, None]
        equal = np.abs(gains).max(axis=1) <= _NOTHING * np.abs(loss).max()
        np.square(gains, out=gains)
        gains[equal] = 0.0
        for block, times in _resampled(rows, draws, seed):
            sums = times @ loss.T
            total = np.where(equal, 0.0, sums[:, first] - sums[:, second] - rows * mean)
            found[block, part] = _studentised(total, times @ gains.T, rows)
    return found


def _resampled(rows: int, draws: int, seed: int) -> Iterator[tuple[slice, Floats]]:
    """How often each row is in a draw, (B, R), a block of draws at a time."""
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // rows)
    for start in range(0, draws, size):
        block = slice(start, min(start + size, draws))
        count = block.stop - start
        places = rng.integers(0, rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        yield block, np.bincount(places.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)


def _sign_draws(right: NDArray[np.bool_], draws: int, seed: int) -> Floats:
    """Σ over the right rows of random signs, a column a checkpoint: (draws, M). right: (M, R)."""
    rows, wide = right.shape[1], right.T.astype(np.float64)
    rng, found = np.random.default_rng(seed), np.empty((draws, len(right)))
    size = max(1, _BLOCK // max(1, rows))
    for start in range(0, draws, size):
        count = min(size, draws - start)
        signs = rng.integers(0, 2, size=(count, rows), dtype=np.int8)
        found[start : start + count] = (signs * 2.0 - 1.0) @ wide
    return found


def _more_right(before: NDArray[np.bool_], after: NDArray[np.bool_], first: Floats, later: Floats) -> Floats:
    """p-values (k,) of right rows before, (R,), and after, (k, R), from their sums of random signs."""
    scale = np.sqrt(np.maximum((before != after).sum(axis=1), 1.0))
    gained = after.sum(axis=1) - before.sum()
    return _share_reached(gained / scale, (later - first[:, None]) / scale)


def _share_reached(found: Floats, drawn: Floats) -> Floats:
    """p-values (k,): in what share of the draws (draws, k), itself included, their largest reached each of `found`."""
    most = drawn.max(axis=1)
    p_values: Floats = (1 + (most[None, :] >= found[:, None] - 1e-9).sum(axis=1)) / (1 + len(drawn))
    return p_values


def _studentised(total: Floats, squares: Floats, rows: int) -> Floats:
    """Mean over standard error from Σ x and Σ x² of `rows` values; 0 where all are 0, infinite where all are equal."""
    spread = np.sqrt(np.maximum(squares - total**2 / rows, 0.0) * rows / (rows - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(total / spread, nan=0.0, posinf=inf, neginf=-inf)
