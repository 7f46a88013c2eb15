"""Which masked states of a probe are scored: all 2^n, or a sample that is the same at every step.

A masked state is a bitmask of 64 bits, bit i set where word i is present. The sample depends on its arguments
alone, so that differences between steps are never differences between samples.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import Bools, Floats, Relation, Subsets, all_subsets, logical_model

MOST_ENUMERATED = 16  # words: 65,536 masked states, all of which are scored and decomposed
MOST_WORDS = 64
MOST_SAMPLED = (
    10_000  # masked states: an estimate of n = 20 from this many takes 8 GB, and its time grows with the cube
)
MOST_ON_LATTICE = MOST_ENUMERATED  # words up to which effects of every order are candidates
MOST_ORDER = 4  # with more words: effects of up to this many, and those of complete masked states, are candidates
BLOCK_VALUES = 1 << 20  # states × effects looked at together
HELD_OUT = 0.1  # of a sample: not matched, but predicted, which is how far an estimate can be believed


@dataclass(frozen=True, eq=False)
class States:
    """m masked states of n words.

    subset: (m,), ascending, so that the state without words is the first and the one with all words the last.
    held_out: (m,), never those two.
    """

    n: int
    subset: Subsets
    held_out: Bools

    @property
    def are_all(self) -> bool:
        """Whether these are all 2^n, in the order of their subsets: nothing is estimated then."""
        return self.n < 32 and self.subset.size == 1 << self.n and not self.held_out.any()


def largest_order(n: int) -> int:
    """Up to which all effects are candidates of an estimate of n words."""
    return n if n <= MOST_ON_LATTICE else MOST_ORDER


def candidates(n: int, only_and: bool = False) -> str:
    """Which effects are candidates of an estimate of n words, for people."""
    if n <= MOST_ON_LATTICE and not only_and:
        return "effects of every order"
    return f"{'AND ' if only_and else ''}effects of up to {MOST_ORDER} words and of complete masked states"


@lru_cache(maxsize=32)
def every_state(n: int) -> States:
    """All 2^n masked states, indexed by subset."""
    return States(n, all_subsets(n), np.zeros(1 << n, dtype=bool))


def sample_states(n: int, count: int, seed: int = 0, held_out: float = HELD_OUT) -> States:
    """Distinct masked states: none, all, then sizes drawn evenly from 1 to n − 1; a share `held_out` of those.

    With even sizes the AND of k words is triggered in 1 of k + 1 states and its OR missed in as many, while of
    subsets drawn evenly it would be 1 of 2^k. Raises SftscopeError for sizes that cannot be.
    """
    if not 1 <= n <= MOST_WORDS or not 2 <= count <= 2.0**n:
        raise SftscopeError(f"{count} masked states of {n} words: expected 1 to {MOST_WORDS} words, 2 to 2^n states")
    random = np.random.default_rng(seed)
    full = (1 << n) - 1
    seen = {0: None, full: None}
    while len(seen) < count:
        seen.setdefault(sum(1 << int(word) for word in random.permutation(n)[: random.integers(1, n)]))
    return hold_out(n, np.array(list(seen), dtype=np.uint64), seed, held_out)


def hold_out(n: int, subset: Subsets, seed: int = 0, share: float = HELD_OUT) -> States:
    """These masked states, of which a share is held out; the empty and the full one must be there.

    Raises SftscopeError where they are not, or where a state is there twice.
    """
    ordered = np.unique(subset)
    if ordered.size < 2 or int(ordered[0]) or int(ordered[-1]) != (1 << n) - 1:
        raise SftscopeError("expected the masked states with no word and with all words, once each")
    if ordered.size != subset.size:
        raise SftscopeError(f"{subset.size - ordered.size} masked states are given twice; give each once")
    inner = ordered.size - 2
    out = np.zeros(ordered.size, dtype=bool)
    out[1 + np.random.default_rng(seed).permutation(inner)[: round(share * inner)]] = True
    return States(n, ordered, out)


def triggers(states: Subsets, relation: NDArray[Any], subset: Subsets) -> Bools:
    """Which masked state (row) triggers which interaction (column): AND with S ⊆ T, OR with S ∩ T ≠ ∅."""
    shared = states[:, None] & subset
    found: Bools = np.where(relation == Relation.AND, shared == subset, shared != 0)
    return found


def model_at(n: int, states: Subsets, relation: NDArray[Any], subset: Subsets, effect: Floats) -> Floats:
    """h(x_T) - b of Eq. (2) at masked states (m,) of n words: (m,). relation, subset, effect: (k,).

    In memory for BLOCK_VALUES of states and effects, or for two numbers a state of all 2^n.
    """
    if n > MOST_ON_LATTICE or states.size * subset.size < n << n:
        model, width = np.zeros(states.size), max(1, BLOCK_VALUES // states.size)
        for first in range(0, subset.size, width):
            part = slice(first, first + width)
            model += triggers(states, relation[part], subset[part]) @ effect[part]
        return model
    place = (relation.astype(np.int64) << n) | subset.astype(np.int64)
    dense = np.asarray(np.bincount(place, effect, 2 << n), dtype=np.float64).reshape(2, -1)
    return logical_model(0.0, dense[Relation.AND], dense[Relation.OR])[states.astype(np.int64)]


def held_out_r2(states: States, scores: Floats, model: Floats) -> float:
    """1 − Σ(v − h)² / Σ(v − mean v)² of the held-out states, NaN without any; scores and model: (m,)."""
    out = states.held_out
    variance = float(((scores[out] - scores[out].mean()) ** 2).sum()) if out.any() else 0.0
    return 1.0 - float(((scores - model)[out] ** 2).sum()) / variance if variance > 0.0 else float("nan")
