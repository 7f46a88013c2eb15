"""Two runs side by side: which interactions both encode. Needs the same probes with the same words.

Says nothing of generalizability: that is a ratio of one run's classes (see the metrics); here two sets
Ω are compared at two steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.comparison.baseline_llm import Pair
from sftscope.analysis.run.effect_table import on_common_subsets
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.evolution import Evolution, Sets
from sftscope.lattice.transforms import Floats, Subsets


class Side(StrEnum):
    """Which of the two runs encodes an interaction."""

    HERE = "here only"
    BOTH = "both"
    THERE = "there only"


SIDES = tuple(Side)


@dataclass(frozen=True, eq=False)
class RunDiff:
    """Ω of the first run at one step next to Ω of the second at another; columns are (R,), strongest first.

    counts: interactions of all shared probes by side. jaccard: both / all, NaN where there is none.
    same_sign: share of `both` whose effects have one sign, NaN where there is none.
    """

    step: int
    other_step: int
    counts: dict[Side, int]
    jaccard: float
    same_sign: float
    probe: NDArray[np.int64]
    side: NDArray[np.int64]
    relation: NDArray[np.int64]
    subset: Subsets
    effect: Floats
    other_effect: Floats


def linked_step(steps: NDArray[np.int64], number: int) -> int:
    """Index of the step of a run that is nearest to the step `number`; the earlier of two equally near."""
    return int(np.abs(steps - number).argmin())


def compare_steps(first: Evolution, now: int, second: Evolution, other: int, pairs: Sequence[Pair]) -> RunDiff:
    """The sets of two runs at the step indices `now` and `other`, over the shared probes `pairs`."""
    columns: list[tuple[NDArray[Any], ...]] = []
    for here, there in pairs:
        one, two = on_common_subsets(first.history.probes[here].table, second.history.probes[there].table)
        ours, theirs = first.encodes(here, now, one, now), second.encodes(there, other, two, other)
        relations, places = np.nonzero(ours | theirs)
        in_first, in_second = ours[relations, places], theirs[relations, places]
        side = np.where(in_first & in_second, 1, np.where(in_first, 0, 2))
        effect, other_effect = one.at(now)[relations, places], two.at(other)[relations, places]
        columns.append((np.full(side.size, here), side, relations, one.subsets[places], effect, other_effect))
    whole = [np.zeros(0, dtype=np.int64) for _ in range(3)]
    empty: tuple[NDArray[Any], ...] = (*whole, np.zeros(0, dtype=np.uint64), np.zeros(0), np.zeros(0))
    probe, side, relation, subset, effect, other_effect = (
        np.concatenate(column) for column in zip(*(columns or [empty]), strict=True)
    )
    order = np.argsort(-np.maximum(np.abs(effect), np.abs(other_effect)), kind="stable")
    counts = {name: int(count) for name, count in zip(SIDES, np.bincount(side, minlength=3), strict=True)}
    both = side == SIDES.index(Side.BOTH)
    return RunDiff(
        step=int(first.history.steps[now]),
        other_step=int(second.history.steps[other]),
        counts=counts,
        jaccard=counts[Side.BOTH] / side.size if side.size else metrics.NAN,
        same_sign=float(np.mean(effect[both] * other_effect[both] > 0)) if both.any() else metrics.NAN,
        probe=probe[order],
        side=side[order],
        relation=relation[order],
        subset=subset[order],
        effect=effect[order],
        other_effect=other_effect[order],
    )


def jaccard_over_steps(first: Evolution, second: Evolution, pairs: Sequence[Pair]) -> list[float]:
    """Jaccard of the two runs' sets at every step of the first, the second at its nearest step: T values."""
    values = []
    for now, number in enumerate(first.history.steps.tolist()):
        other = linked_step(second.history.steps, number)
        shared = union = 0
        for here, there in pairs:
            ours, theirs = sets_of_both(first, here, now, second, there, other)
            shared += int((ours & theirs).sum())
            union += int((ours | theirs).sum())
        values.append(shared / union if union else metrics.NAN)
    return values


def sets_of_both(first: Evolution, here: int, now: int, second: Evolution, there: int, other: int) -> tuple[Sets, Sets]:
    """Ω of a probe of each run at a step of each, over the same subsets: two of (2, K)."""
    one, two = on_common_subsets(first.history.probes[here].table, second.history.probes[there].table)
    return first.encodes(here, now, one, now), second.encodes(there, other, two, other)
