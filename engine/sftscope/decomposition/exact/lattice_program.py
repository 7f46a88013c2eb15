"""The AND-OR program as linear algebra: columns, weights, D = [Z O], its transpose and D diag(θ) Dᵀ.

    minimise Σ_j w_j |x_j|   subject to   |D x − v|_∞ ≤ ζ
    maximise vᵀu − ζ‖u‖₁     subject to   |Dᵀu|_j ≤ w_j

v is a centred score, indexed by subset; x holds the effects of the kept columns: every AND but the empty
set, then every OR but the empty set and the singletons (a singleton's OR is its AND). Products with D are
butterflies. Nothing here knows how the program is solved.
"""

from copy import copy
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.decomposition.exact.normal_matrix import fill_normal_matrix
from sftscope.decomposition.exact.program import Ints as Ints
from sftscope.decomposition.exact.program import Program
from sftscope.lattice.transforms import (
    Floats,
    Relation,
    moebius_transform,
    or_model,
    or_transpose,
    orders,
    zeta_transform,
    zeta_transpose,
)

ORDER_WEIGHT = 1e-3  # δ: an effect of order k costs 1 + δ(k − 1), and an OR δ/2 more than the AND of its set
# δ alone leaves faces of equal optima (moving effect from AND_ij + OR_ij to AND_ik + OR_ik can be free).
# A fixed pseudo-random share, far below δ/2, makes the optimum one point, so that it moves continuously with v.
# It is tied to the labels: `decompose` gives the variables the order of their words. Weights that all labellings
# share could not tell AND_ij from AND_ik; weights that follow the scores would jump where two scores cross.
TIE_WEIGHT = 1e-5


def tie_breaks(relation: int, subsets: NDArray[np.uint64]) -> Floats:
    """One number in [0, 1) for the effect of each subset, the same for every n (splitmix64)."""
    z = (np.uint64(2) * subsets + np.uint64(relation)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def least_weights(relation: int, orders: NDArray[Any], order_weight: float = ORDER_WEIGHT) -> Floats:
    """What effects of these orders cost before ties are broken."""
    return 1.0 + order_weight * (orders.astype(np.float64) - 1.0) + order_weight / 2 * relation


def weights_of(relation: int, subsets: NDArray[np.uint64], order_weight: float = ORDER_WEIGHT) -> Floats:
    """w of the effect of each subset."""
    least = least_weights(relation, np.bitwise_count(subsets), order_weight)
    return least + TIE_WEIGHT * tie_breaks(relation, subsets)


def effect_weights(n: int, order_weight: float = ORDER_WEIGHT) -> Floats:
    """w of every effect: (2, 2^n), AND then OR."""
    subsets = np.arange(1 << n, dtype=np.uint64)
    return np.stack([weights_of(relation, subsets, order_weight) for relation in Relation])


class LatticeProgram(Program):
    """What depends on n, and on which masked states are matched: `rows`, all of them or (see `on`) some.

    Vectors: x (n_columns,), an effect a column; u and what is compared with v (n_rows,), a value a row.
    """

    def __init__(self, n: int, order_weight: float = ORDER_WEIGHT) -> None:
        self.n = n
        self.n_states = 1 << n
        kept = np.ones((2, self.n_states), dtype=bool)
        kept[:, 0] = False
        kept[1, orders(n) == 1] = False
        self.columns: Ints = np.flatnonzero(kept).astype(np.int64)
        self.weights: Floats = effect_weights(n, order_weight).ravel()[self.columns]
        self.rows: Ints = np.arange(self.n_states)
        self.is_whole = self.has_empty_row = True

    def on(self, rows: Ints) -> "LatticeProgram":
        """The same effects, with only the masked states `rows` (not x_∅) to be matched."""
        part = copy(self)
        part.rows, part.is_whole, part.has_empty_row = rows, False, False
        return part

    @property
    def n_columns(self) -> int:
        return len(self.columns)

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    def spread(self, x: Floats) -> Floats:
        """(2, 2^n), AND then OR, zero where there is no column."""
        effects = np.zeros(2 * self.n_states)
        effects[self.columns] = x
        return effects.reshape(2, self.n_states)

    def model_everywhere(self, x: Floats) -> Floats:
        """h − b at every masked state: (2^n,)."""
        and_effects, or_effects = self.spread(x)
        return zeta_transform(and_effects) + or_model(or_effects)

    def model(self, x: Floats) -> Floats:
        """D x."""
        everywhere = self.model_everywhere(x)
        return everywhere if self.is_whole else everywhere[self.rows]

    def everywhere(self, values: Floats) -> Floats:
        """Values of the rows (n_rows,) at every masked state, 0 at those that are no row: (2^n,)."""
        if self.is_whole:
            return values
        out = np.zeros(self.n_states)
        out[self.rows] = values
        return out

    def prices(self, u: Floats) -> Floats:
        """Dᵀu."""
        u = self.everywhere(u)
        return np.concatenate([zeta_transpose(u), or_transpose(u)])[self.columns]

    def effects_for(self, values: Floats) -> Floats:
        """AND effects that are `values` at the rows and 0 at the other masked states."""
        effects = np.zeros((2, self.n_states))
        effects[0] = moebius_transform(self.everywhere(values))
        return effects.ravel()[self.columns]

    def entries(self, rows: Ints, columns: Ints) -> Floats:
        """D[rows, columns], dense; `rows` counts the rows and `columns` the kept columns."""
        relation, subsets = np.divmod(self.columns[columns], self.n_states)
        shared = self.rows[rows][:, None] & subsets
        return np.where(relation == 0, shared == subsets, shared != 0).astype(np.float64)

    def normal_matrix(self, theta: Floats, diagonal: Floats, out: Floats | None = None) -> Floats:
        """As in `Program`."""
        if out is None:
            out = np.empty((self.n_rows, self.n_rows))
        fill_normal_matrix(out, self.spread(theta), None if self.is_whole else self.rows)
        out.reshape(-1)[:: self.n_rows + 1] += diagonal
        return out


@lru_cache(maxsize=4)
def lattice_program(n: int, order_weight: float = ORDER_WEIGHT) -> LatticeProgram:
    return LatticeProgram(n, order_weight)
