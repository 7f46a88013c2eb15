"""The effects of one probe over the steps, without the zeros: what a history holds in memory.

A decomposition leaves most of its columns at 0. The rest is kept step by step as (column, effect) pairs;
column = relation · K + the place of the interaction's words among K subsets. These are all 2^n where every masked
state was scored, the place being the subset itself, else those that have an effect at any step. Every sum over a
class and a step is then one `bincount`, and no array of the size steps × K is made for a whole run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.lattice.masked_states import States, model_at
from sftscope.lattice.transforms import Floats, Relation, Subsets, all_subsets, orders, orders_of, zeta_columns
from sftscope.store import Pairs

BLOCK_VALUES = 1 << 16  # of one block of logical models, small enough for a core's cache


@dataclass(frozen=True, eq=False)
class EffectTable:
    """Non-zero effects over T steps: step t owns [start[t], start[t + 1]) of both columns, sorted by column.

    subsets: (K,), ascending, the empty one first. start: (T + 1,). column: (E,), relation · K + place among the
    subsets. effect: (E,), log-odds, float64, or float32 in a large run.
    """

    n_variables: int
    subsets: Subsets
    start: NDArray[np.int64]
    column: NDArray[Any]
    effect: NDArray[Any]

    @classmethod
    def of_pairs(cls, n: int, steps: Sequence[Pairs], dtype: Any = np.float64, *, every: bool = True) -> "EffectTable":
        """The table of the effects of each step; every: among all 2^n subsets, else among those that occur."""
        subsets = all_subsets(n) if every else occurring(steps)
        start = np.concatenate([[0], np.cumsum([part.effect.size for part in steps])]).astype(np.int64)
        column = np.empty(start[-1], dtype=np.uint16 if 2 * subsets.size <= 1 << 16 else np.uint32)
        effect = np.empty(start[-1], dtype=dtype)
        for (first, last), part in zip(pairwise(start), steps, strict=True):
            # where all are there a subset is its own place
            place = part.subset.astype(np.uint32) if every else np.searchsorted(subsets, part.subset)
            columns = part.relation * np.int64(subsets.size) + place
            effects = part.effect
            if (columns[1:] < columns[:-1]).any():
                order = np.argsort(columns)
                columns, effects = columns[order], effects[order]
            column[first:last], effect[first:last] = columns, effects
        return cls(n, subsets, start, column, effect)

    @classmethod
    def of_dense(cls, effects: Floats) -> "EffectTable":
        """The table of effects (T, 2, 2^n)."""
        steps = []
        for both in effects:
            relation, subset = np.nonzero(both)
            steps.append(Pairs(relation.astype(np.uint8), subset.astype(np.uint64), both[relation, subset]))
        return cls.of_pairs(effects.shape[-1].bit_length() - 1, steps)

    @property
    def width(self) -> int:
        """2 K, the number of columns."""
        return 2 * int(self.subsets.size)

    @property
    def has_every_subset(self) -> bool:
        """Whether the subsets are all 2^n."""
        return self.n_variables < 32 and self.subsets.size == 1 << self.n_variables

    @cached_property
    def orders(self) -> NDArray[np.int64]:
        """The order |S| of every subset: (K,)."""
        return orders(self.n_variables) if self.has_every_subset else orders_of(self.subsets)

    @cached_property
    def column_orders(self) -> NDArray[np.int64]:
        """The order |S| of every column: (2 K,)."""
        return np.tile(self.orders, 2)

    def place(self, subset: int) -> int | None:
        """The place of a subset, None where no step has an effect of it."""
        found = int(np.searchsorted(self.subsets, np.uint64(subset)))
        return found if found < self.subsets.size and int(self.subsets[found]) == subset else None

    def on(self, subsets: Subsets) -> "EffectTable":
        """The same effects among other subsets (K',), ascending; those of a subset that is not there are left out."""
        if subsets is self.subsets or np.array_equal(subsets, self.subsets):
            return self
        steps = []
        for step in range(self.n_steps):
            pairs = self.pairs(step)
            place = np.minimum(np.searchsorted(subsets, pairs.subset), subsets.size - 1)
            there = subsets[place] == pairs.subset
            columns = pairs.relation[there] * np.int64(subsets.size) + place[there]
            steps.append((columns, pairs.effect[there]))
        start = np.concatenate([[0], np.cumsum([part[0].size for part in steps])]).astype(np.int64)
        column, effect = (np.concatenate([part[i] for part in steps]) for i in (0, 1))
        return EffectTable(self.n_variables, subsets, start, column, effect)

    def pairs(self, step: int) -> Pairs:
        """The effects of one step."""
        column = self.column[self.within(step)].astype(np.int64)
        relation, place = np.divmod(column, self.subsets.size)
        return Pairs(relation.astype(np.uint8), self.subsets[place], self.effect[self.within(step)])

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
        return self.column_orders[self.column]

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
        return EffectTable(self.n_variables, self.subsets, start, self.column[: start[-1]], self.effect[: start[-1]])

    def within(self, step: int) -> slice:
        """Where a step lies in the columns."""
        return slice(int(self.start[step]), int(self.start[step + 1]))

    def spread(self, step: int, values: NDArray[Any], dtype: Any = np.float64) -> NDArray[Any]:
        """Values of a step's pairs at their places, 0 elsewhere: (2, K)."""
        out = np.zeros(self.width, dtype=dtype)
        out[self.column[self.within(step)]] = values
        return out.reshape(2, -1)

    def at(self, step: int) -> Floats:
        """The effects of one step: (2, K), axis 0 by Relation."""
        return self.spread(step, self.effect[self.within(step)])

    def series(self, relation: int, subset: int) -> Floats:
        """One interaction's effect over the steps, its life line: (T,)."""
        out = np.zeros(self.n_steps)
        place = self.place(subset)
        if place is None:
            return out
        found = np.flatnonzero(self.column == relation * self.subsets.size + place)
        out[np.searchsorted(self.start, found, side="right") - 1] = self.effect[found]
        return out

    def dense(self, values: NDArray[Any] | None = None, dtype: Any = np.float64) -> NDArray[Any]:
        """All steps at once, (T, 2, K); `values` (E,) in place of the effects. Large: for one probe at a time."""
        out = np.zeros((self.n_steps, self.width), dtype=dtype)
        out[self.step, self.column] = self.effect if values is None else values
        return out.reshape(self.n_steps, 2, -1)

    def models(self, states: States, kept: NDArray[np.bool_] | None = None) -> Iterator[tuple[slice, Floats]]:
        """h(x_T) - b of the logical model, Eq. (2), a block of steps at a time: steps, (B, m), at m masked states.

        kept: (E,), the pairs that the model is made of; all by default.
        """
        if not (self.has_every_subset and states.are_all):
            # a matrix of all states and columns would take gigabytes: at 14 words each step has other effects
            for step in range(self.n_steps):
                own = None if kept is None else kept[self.within(step)]
                yield slice(step, step + 1), self._model(step, states, own)[None]
            return
        width = max(1, BLOCK_VALUES // self.width)
        for first in range(0, self.n_steps, width):
            last = min(first + width, self.n_steps)
            pairs = slice(int(self.start[first]), int(self.start[last]))
            values = self.effect[pairs] if kept is None else np.where(kept[pairs], self.effect[pairs], 0)
            block = np.zeros((self.width, last - first))
            step_of = np.repeat(np.arange(last - first), np.diff(self.start[first : last + 1]))
            block[self.column[pairs], step_of] = values
            below = zeta_columns(block.reshape(2, self.subsets.size, -1).transpose(1, 0, 2).copy())
            by_and, by_or = below[:, Relation.AND], below[:, Relation.OR]
            yield slice(first, last), (by_and + by_or[-1] - by_or[::-1]).T

    def model(self, step: int, states: States, members: NDArray[np.bool_] | None = None) -> Floats:
        """h(x_T) - b at one step: (m,); members: (2, K), what the model is made of, all by default."""
        return self._model(step, states, None if members is None else members.ravel()[self.column[self.within(step)]])

    def _model(self, step: int, states: States, kept: NDArray[np.bool_] | None) -> Floats:
        """h(x_T) - b at one step: (m,); kept: which of the step's pairs the model is made of."""
        pairs = self.pairs(step)
        if kept is not None:
            pairs = Pairs(pairs.relation[kept], pairs.subset[kept], pairs.effect[kept])
        return model_at(states.n, states.subset, pairs.relation, pairs.subset, pairs.effect)


def occurring(steps: Sequence[Pairs]) -> Subsets:
    """The subsets of the effects of these steps, ascending, and the empty one: (K,)."""
    found: Subsets = np.unique(np.concatenate([np.zeros(1, dtype=np.uint64), *(part.subset for part in steps)]))
    return found


def on_common_subsets(first: EffectTable, second: EffectTable) -> tuple[EffectTable, EffectTable]:
    """Both tables with the subsets of either, so that their columns mean the same."""
    subsets = first.subsets
    if not np.array_equal(subsets, second.subsets):
        subsets = np.union1d(subsets, second.subsets)
    return first.on(subsets), second.on(subsets)


@dataclass(frozen=True, eq=False)
class Mismatch:
    """|v - h| of a probe over its masked states at every step: mean and largest, each (T,), in log-odds."""

    mean: Floats
    largest: Floats


def measure_mismatch(
    scores: NDArray[Any], states: States, table: EffectTable, kept: NDArray[np.bool_] | None = None
) -> Mismatch:
    """How far the logical model of the kept pairs lies from scores (T, m) at m masked states."""
    mean, largest = np.empty(table.n_steps), np.empty(table.n_steps)
    for steps, model in table.models(states, kept):
        part = scores[steps].astype(np.float64)
        apart = np.abs(part - part[:, :1] - model)
        mean[steps], largest[steps] = apart.mean(axis=1), apart.max(axis=1)
    return Mismatch(mean, largest)
