"""The training rows behind an interaction, and the interactions that a training row carries.

An AND interaction could be learned from rows that contain all of its words, an OR interaction from rows that contain
any. How much such rows say is a matter of chance, so each count comes with what chance would give: rows with all
words if words fell independently, N Π_i (k_i / N); rows with the probe's answer among k rows of N, of which K have that
answer, k K / N (hypergeometric).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import exp, lgamma

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.rows.row_index import Ints, RowIndex
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.views import ChangeRow
from sftscope.lattice.transforms import Floats, Relation


@dataclass(frozen=True)
class AnswerCount:
    """An answer among the rows of an interaction: how many rows have it, how many of all rows do."""

    answer: str
    count: int
    in_all: int


@dataclass(frozen=True, eq=False)
class TracedRows:
    """The training rows behind one interaction, of N in all.

    places: of these rows, ascending. expected: how many there would be if the words fell independently. answered: how
    many of them have the answer of the probe; answered_expected: how many would by chance; p_value: of at least as many
    by chance. answers: the most frequent first.
    """

    places: Ints
    n_rows: int
    expected: float
    answered: int
    answered_expected: float
    p_value: float
    answers: tuple[AnswerCount, ...]

    @property
    def lift(self) -> float:
        """Rows with the probe's answer over what chance gives; NaN where chance gives none."""
        return self.answered / self.answered_expected if self.answered_expected else float("nan")


def trace(index: RowIndex, words: Sequence[str], relation: str, response: str) -> TracedRows:
    """The rows behind the interaction of `words`. relation: the name of a Relation. response: the probe's answer."""
    n = len(index.rows)
    found = [index.containing(word) for word in words]
    shares = np.array([part.size for part in found]) / max(n, 1)
    if relation == Relation.AND.name:
        places, expected = reduce(np.intersect1d, found), n * float(np.prod(shares))
    else:
        places, expected = reduce(np.union1d, found), n * (1 - float(np.prod(1 - shares)))
    same = index.answering(response)
    answered = int(np.intersect1d(places, same).size)
    k = int(places.size)
    of_all = Counter(index.answers(np.arange(n)))
    counted = Counter(index.answers(places)).most_common()
    return TracedRows(
        places=places,
        n_rows=n,
        expected=expected,
        answered=answered,
        answered_expected=k * same.size / max(n, 1),
        p_value=at_least_by_chance(answered, k, int(same.size), n),
        answers=tuple(AnswerCount(answer, count, of_all[answer]) for answer, count in counted),
    )


def answered_first(index: RowIndex, places: Ints, response: str) -> list[int]:
    """Places of rows, those with the answer `response` first: they are what could have taught it."""
    answered = set(index.answering(response).tolist())
    return sorted(places.tolist(), key=lambda place: (place not in answered, place))


def count_rows(
    index: RowIndex, words: Sequence[str], relation: Ints, subset: NDArray[np.uint64], response: str
) -> tuple[Ints, Ints, Floats]:
    """What `trace` finds of E interactions of one probe: rows, with the probe's answer, that by chance: (E,) each.

    words: of the probe's n variables. relation, subset: (E,), bit i of a subset is word i.
    """
    n = len(index.rows)
    holds = np.stack([_packed(index.containing(word), n) for word in words])
    same = _packed(index.answering(response), n)
    rows, answered = np.zeros(subset.size, dtype=np.int64), np.zeros(subset.size, dtype=np.int64)
    for at, (kind, bits) in enumerate(zip(relation.tolist(), subset.tolist(), strict=True)):
        inside = holds[[i for i in range(len(words)) if bits >> i & 1]]
        found = (np.bitwise_and if kind == Relation.AND else np.bitwise_or).reduce(inside, axis=0)
        rows[at], answered[at] = np.bitwise_count(found).sum(), np.bitwise_count(found & same).sum()
    share = int(np.bitwise_count(same).sum()) / max(n, 1)
    return rows, answered, rows.astype(np.float64) * share


def _packed(places: Ints, n: int) -> NDArray[np.uint8]:
    """Places among n rows as one bit a row: 14,000 interactions and 50,000 rows take 3 s."""
    flags = np.zeros(n, dtype=bool)
    flags[places] = True
    return np.packbits(flags)


def carried_by(index: RowIndex, place: int, rows: Sequence[ChangeRow]) -> list[ChangeRow]:
    """The newly emerged interactions of `rows` that the training row at `place` carries: all words, or any for OR."""
    carried = []
    for row in rows:
        if row.change is not Change.EMERGED:
            continue
        inside = [index.holds(place, word) for word in row.words]
        if all(inside) if row.relation == Relation.AND.name else any(inside):
            carried.append(row)
    return carried


def at_least_by_chance(x: int, k: int, same: int, n: int) -> float:
    """P(X ≥ x) where k of n rows are drawn and `same` of the n have the answer: the hypergeometric tail."""
    most = min(k, same)
    if x <= max(0, k + same - n):
        return 1.0
    logs = [_log_choose(same, i) + _log_choose(n - same, k - i) - _log_choose(n, k) for i in range(x, most + 1)]
    return min(1.0, sum(map(exp, logs)))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
