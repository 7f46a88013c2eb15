"""The effects of one probe over the steps, without the zeros: what a history holds in memory.

A decomposition leaves most of its 2·2^n columns at 0. The rest is kept step by step as (column,
effect) pairs; column = relation · 2^n + subset. Every sum over a class and a step is then one
`bincount`, and no array of the size steps × 2^n is made for a whole run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.interactions import Floats, Relation, orders, zeta_columns

Pairs = tuple[NDArray[Any], NDArray[Any]]
BLOCK_VALUES = 1 << 16  # of one block of logical models, small enough for a core's cache


@dataclass(frozen=True, eq=False)
class EffectTable:
    """Non-zero effects over T steps: step t owns [start[t], start[t + 1]) of both columns, sorted by column.

    start: (T + 1,). column: (E,), relation · 2^n + subset. effect: (E,), log-odds, float64, or float32
    in a large run.
    """

    n_variables: int
    start: NDArray[np.int64]
    column: NDArray[Any]
    effect: NDArray[Any]

    @classmethod
    def of_steps(cls, n: int, steps: Sequence[Pairs], dtype: Any = np.float64) -> "EffectTable":
        """The table of the (column, effect) pairs of each step."""
        start = np.concatenate([[0], np.cumsum([part[0].size for part in steps])]).astype(np.int64)
        column = np.empty(start[-1], dtype=np.uint16 if n < 16 else np.uint32)
        effect = np.empty(start[-1], dtype=dtype)
        for (first, last), (columns, effects) in zip(pairwise(start), steps, strict=True):
            column[first:last], effect[first:last] = columns, effects
        return cls(n, start, column, effect)

    @classmethod
    def of_dense(cls, effects: Floats) -> "EffectTable":
        """The table of effects (T, 2, 2^n)."""
        flat = effects.reshape(effects.shape[0], -1)
        n = effects.shape[-1].bit_length() - 1
        return cls.of_steps(n, [(found, row[found]) for row in flat for found in [np.flatnonzero(row)]])

    @property
    def n_steps(self) -> int:
        """T."""
        return int(self.start.size - 1)

    @property
    def step(self) -> NDArray[np.int64]:
        """The step index of every pair: (E,)."""
        return np.repeat(np.arange(self.n_steps), np.diff(self.start))

    @property
    def order(self) -> NDArray[np.int64]:
        """The order |S| of every pair: (E,)."""
        return orders(self.n_variables)[self.column & ((1 << self.n_variables) - 1)]

    @cached_property
    def strongest(self) -> Floats:
        """max |I| at every step, 0 where there is none: (T,)."""
        return self.sums_at_steps(np.maximum, np.abs(self.effect))

    def sums_at_steps(self, function: np.ufunc, values: NDArray[Any]) -> Floats:
        """`function` reduced over the values (E,) of each step: (T,); 0 at a step without any."""
        out = np.zeros(self.n_steps)
        filled = np.diff(self.start) > 0
        if filled.any():
            out[filled] = function.reduceat(values, self.start[:-1][filled])
        return out

    def until(self, step: int) -> "EffectTable":
        """The steps up to the index `step`; shares memory."""
        start = self.start[: step + 2]
        return EffectTable(self.n_variables, start, self.column[: start[-1]], self.effect[: start[-1]])

    def within(self, step: int) -> slice:
        """Where a step lies in the columns."""
        return slice(int(self.start[step]), int(self.start[step + 1]))

    def spread(self, step: int, values: NDArray[Any], dtype: Any = np.float64) -> NDArray[Any]:
        """Values of a step's pairs at their places, 0 elsewhere: (2, 2^n)."""
        out = np.zeros(2 << self.n_variables, dtype=dtype)
        out[self.column[self.within(step)]] = values
        return out.reshape(2, -1)

    def at(self, step: int) -> Floats:
        """The effects of one step: (2, 2^n), axis 0 by Relation."""
        return self.spread(step, self.effect[self.within(step)])

    def series(self, relation: int, subset: int) -> Floats:
        """One interaction's effect over the steps, its life line: (T,)."""
        out = np.zeros(self.n_steps)
        found = np.flatnonzero(self.column == (relation << self.n_variables) + subset)
        out[np.searchsorted(self.start, found, side="right") - 1] = self.effect[found]
        return out

    def dense(self, values: NDArray[Any] | None = None, dtype: Any = np.float64) -> NDArray[Any]:
        """All steps at once, (T, 2, 2^n); `values` (E,) in place of the effects. Large: for one probe at a time."""
        out = np.zeros((self.n_steps, 2 << self.n_variables), dtype=dtype)
        out[self.step, self.column] = self.effect if values is None else values
        return out.reshape(self.n_steps, 2, -1)

    def models(self, kept: NDArray[np.bool_] | None = None) -> Iterator[tuple[slice, Floats]]:
        """h(x_T) - b of the logical model, Eq. (2), a block of steps at a time: steps, (B, 2^n).

        kept: (E,), the pairs that the model is made of; all by default.
        """
        n, width = self.n_variables, max(1, BLOCK_VALUES >> (self.n_variables + 1))
        for first in range(0, self.n_steps, width):
            last = min(first + width, self.n_steps)
            pairs = slice(int(self.start[first]), int(self.start[last]))
            values = self.effect[pairs] if kept is None else np.where(kept[pairs], self.effect[pairs], 0)
            block = np.zeros((2 << n, last - first))
            step = np.repeat(np.arange(last - first), np.diff(self.start[first : last + 1]))
            block[self.column[pairs], step] = values
            below = zeta_columns(block.reshape(2, 1 << n, -1).transpose(1, 0, 2).copy())
            by_and, by_or = below[:, Relation.AND], below[:, Relation.OR]
            yield slice(first, last), (by_and + by_or[-1] - by_or[::-1]).T


@dataclass(frozen=True, eq=False)
class Mismatch:
    """|v - h| of a probe over its masked states at every step: mean and largest, each (T,), in log-odds."""

    mean: Floats
    largest: Floats


def measure_mismatch(scores: NDArray[Any], table: EffectTable, kept: NDArray[np.bool_] | None = None) -> Mismatch:
    """How far the logical model of the kept pairs lies from scores (T, 2^n)."""
    mean, largest = np.empty(table.n_steps), np.empty(table.n_steps)
    for steps, model in table.models(kept):
        part = scores[steps].astype(np.float64)
        apart = np.abs(part - part[:, :1] - model)
        mean[steps], largest[steps] = apart.mean(axis=1), apart.max(axis=1)
    return Mismatch(mean, largest)
