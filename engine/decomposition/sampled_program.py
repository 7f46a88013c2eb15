"""The AND-OR program on some masked states of up to 64 words, over all effects of few words.

    minimise Σ_j w_j |x_j|   subject to   |D x − v| ≤ ζ at the sampled masked states

The columns are every AND and OR of up to MOST_ORDER words: 1.4 million at n = 64. They are never written
down. With P the products of two variables at each state, Pᵀ diag(u) P holds Dᵀu for every AND of up to
four words at once; an OR is one minus the AND of the same words being absent. So all columns are priced by
two matrix products, the few that matter enter the program, and the bound holds for all of them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.decomposition.lattice_program import least_weights, weights_of
from engine.errors import SftscopeError
from engine.interactions import Bools, Floats, Relation, Subsets

Ints = NDArray[np.int64]

MOST_ORDER = 4
MOST_ROUNDS = 60
NEW_COLUMNS = 200  # brought in at a time
PENALTY, MOST_PENALTY = 1.0, 1e6  # of a state missed by more than ζ; raised until none is
EXACT = 1e-7  # a reduced cost, or a miss beyond ζ as a share of the largest score, below this is rounding


@dataclass(frozen=True, eq=False)
class SampledSolution:
    """relation, subset, effect: (k,), of the columns that are not zero; missed: Σ of |D x − v| beyond ζ."""

    relation: Ints
    subset: Subsets
    effect: Floats
    objective: float
    lower_bound: float
    missed: float

    @property
    def gap(self) -> float:
        """Relative distance of the objective from the least there can be, 0 where both are."""
        return (self.objective - self.lower_bound) / self.objective if self.objective > 0.0 else 0.0


class SampledProgram:
    """masks: (m, n) bool, n ≤ 64, a masked state a row, true where the word is present."""

    def __init__(self, masks: Bools) -> None:
        self.n_states, self.n = masks.shape
        self.masks = subsets_of(masks)
        present = masks.astype(np.float64)
        first, second = np.triu_indices(self.n)
        self._products = [values[:, first] * values[:, second] for values in (present, 1.0 - present)]
        single = np.uint64(1) << np.arange(self.n, dtype=np.uint64)
        pairs = single[first] | single[second]
        found = np.unique((pairs[:, None] | pairs[None, :]).astype(np.uint64), return_index=True)
        self.subsets: Subsets = found[0]
        self._place: Ints = found[1]  # of two pairs that make the subset, in PᵀP
        orders = np.bitwise_count(self.subsets)
        self._least = np.stack([least_weights(relation, orders) for relation in Relation])
        self._least[Relation.OR, orders == 1] = np.inf  # a singleton's OR is its AND

    @property
    def n_columns(self) -> int:
        """How many columns there are: AND, then OR, of every subset."""
        return self._least.size

    def prices(self, u: Floats) -> Floats:
        """Dᵀu of every column, (2, K)."""
        both = [(part.T @ (u[:, None] * part)).ravel()[self._place] for part in self._products]
        return np.stack([both[0], u.sum() - both[1]])

    def split(self, columns: Ints) -> tuple[Ints, Subsets]:
        """Relation and subset of columns."""
        relation: Ints = columns // len(self.subsets)
        return relation, self.subsets[columns % len(self.subsets)]

    def solve(self, v: Floats, zeta: float, tolerance: float) -> SampledSolution:
        """The sparsest effects that match v (m,), centred, to ζ, certified to `tolerance` or as near as it gets."""
        columns = np.flatnonzero(np.bitwise_count(self.subsets) == 1)
        penalty, bound = PENALTY, 0.0
        scale = max(float(np.abs(v).max()), 1e-300)
        for _ in range(MOST_ROUNDS):
            x, u, missed = self._solve_part(columns, v, zeta, penalty)
            ratios = np.abs(self.prices(u)) / self._least
            bound = max(bound, float((v @ u - zeta * np.abs(u).sum()) / max(1.0, ratios.max())))
            relation, subset = self.split(columns)
            weights = np.where(relation == 0, weights_of(0, subset), weights_of(1, subset))
            kept = np.abs(x) > EXACT * scale
            found = SampledSolution(relation[kept], subset[kept], x[kept], float(weights @ np.abs(x)), bound, missed)
            new = self._dearest(ratios.ravel(), columns)
            if found.missed > EXACT * scale * self.n_states:
                penalty = penalty if len(new) else 10.0 * penalty
            elif found.gap <= tolerance or not len(new):
                break
            if penalty > MOST_PENALTY:
                break
            columns = np.concatenate([columns, new])
        return found

    def _dearest(self, ratios: Floats, columns: Ints) -> Ints:
        """The columns that the dual point prices above their weight, dearest first, without those there are."""
        ratios[columns] = 0.0
        worst = np.argpartition(ratios, -min(NEW_COLUMNS, len(ratios)))[-NEW_COLUMNS:]
        worst = worst[np.argsort(-ratios[worst], kind="stable")]
        return worst[ratios[worst] > 1.0 + EXACT]

    def _solve_part(self, columns: Ints, v: Floats, zeta: float, penalty: float) -> tuple[Floats, Floats, float]:
        """(x, u, Σ missed) with the other columns at 0; D x − r − s⁺ + s⁻ = v, |r| ≤ ζ, s at a price."""
        try:
            from scipy.optimize import linprog
            from scipy.sparse import csr_array, eye_array, hstack
        except ImportError as error:
            raise SftscopeError("the decomposition needs scipy: pip install 'sftscope[engine]'") from error
        relation, subset = self.split(columns)
        weights = np.where(relation == 0, weights_of(0, subset), weights_of(1, subset))
        block, states = csr_array(entries(self.masks, relation, subset)), eye_array(self.n_states)
        k, m = len(columns), self.n_states
        result: Any = linprog(
            np.concatenate([weights, weights, np.zeros(m), np.full(2 * m, penalty)]),
            A_eq=hstack([block, -block, -states, -states, states], format="csc"),
            b_eq=v,
            bounds=[(0.0, None)] * (2 * k) + [(-zeta, zeta)] * m + [(0.0, None)] * (2 * m),
            method="highs",
        )
        if result.status != 0:
            raise SftscopeError(f"the program of the sampled masked states was not solved: {result.message}")
        x = result.x[:k] - result.x[k : 2 * k]
        return x, result.eqlin.marginals, float(result.x[2 * k + m :].sum())


def subsets_of(masks: Bools) -> Subsets:
    """Rows of (m, n) bool as bitmasks (m,), bit i = word i."""
    single = np.uint64(1) << np.arange(masks.shape[1], dtype=np.uint64)
    return np.asarray(np.bitwise_or.reduce(np.where(masks, single, np.uint64(0)), axis=1))


def entries(masks: Subsets, relation: Ints, subset: Subsets) -> Floats:
    """D: 1.0 where the masked state (row) triggers the interaction (column)."""
    shared = masks[:, None] & subset
    return np.where(relation == Relation.AND, shared == subset, shared != 0).astype(np.float64)
