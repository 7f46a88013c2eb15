"""The AND-OR program as linear algebra: columns, weights, D = [Z O], its transpose and D diag(θ) Dᵀ.

    minimise Σ_j w_j |x_j|   subject to   |D x − v|_∞ ≤ ζ
    maximise vᵀu − ζ‖u‖₁     subject to   |Dᵀu|_j ≤ w_j

v is a centred score, indexed by subset; x holds the effects of the kept columns: every AND but the empty
set, then every OR but the empty set and the singletons (a singleton's OR is its AND). Products with D are
butterflies. Nothing here knows how the program is solved.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.interactions import Floats, or_model, or_transpose, orders, zeta_transform, zeta_transpose

Ints = NDArray[np.int64]

ORDER_WEIGHT = 1e-3  # δ: an effect of order k costs 1 + δ(k − 1)
OR_WEIGHT = ORDER_WEIGHT / 2  # and an OR a little more than the AND of its set
# δ alone leaves faces of equal optima (moving effect from AND_ij + OR_ij to AND_ik + OR_ik can be free).
# A fixed pseudo-random share, far below δ/2, makes the optimum one point, so that it moves continuously with v.
# It is tied to the labels: among exact ties, other labels may choose another optimum. Weights that all labellings
# share cannot tell AND_ij from AND_ik; weights that follow the scores would jump where two scores cross.
TIE_WEIGHT = 1e-5
TILE_BITS = 5  # the normal matrix is put together from tiles of 32 × 32: 8 KiB, copied at memory speed


def tie_breaks(n: int) -> Floats:
    """One number in [0, 1) per (relation, subset): (2, 2^n), the same for every n (splitmix64)."""
    subsets = np.arange(1 << n, dtype=np.uint64)
    z = np.stack([2 * subsets, 2 * subsets + 1]) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def effect_weights(n: int) -> Floats:
    """w of every effect: (2, 2^n), AND then OR."""
    by_order = 1.0 + ORDER_WEIGHT * (orders(n) - 1)
    return np.stack([by_order, by_order + OR_WEIGHT]) + TIE_WEIGHT * tie_breaks(n)


class LatticeProgram:
    """The part of the program that depends on n alone. Vectors: x (n_columns,), v and u (2^n,)."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.n_states = 1 << n
        kept = np.ones((2, self.n_states), dtype=bool)
        kept[:, 0] = False
        kept[1, orders(n) == 1] = False
        self.columns: Ints = np.flatnonzero(kept).astype(np.int64)
        self.weights: Floats = effect_weights(n).ravel()[self.columns]
        low, high = np.arange(1 << min(n, TILE_BITS)), np.arange(1 << max(0, n - TILE_BITS))
        self._low_meets, self._low_joins = low[:, None] & low, low[:, None] | low
        self._high_meets, self._high_joins = high[:, None] & high, high[:, None] | high

    @property
    def n_columns(self) -> int:
        return len(self.columns)

    def spread(self, x: Floats) -> Floats:
        """(2, 2^n), AND then OR, zero where there is no column."""
        effects = np.zeros(2 * self.n_states)
        effects[self.columns] = x
        return effects.reshape(2, self.n_states)

    def model(self, x: Floats) -> Floats:
        """D x."""
        and_effects, or_effects = self.spread(x)
        return zeta_transform(and_effects) + or_model(or_effects)

    def prices(self, u: Floats) -> Floats:
        """Dᵀu."""
        return np.concatenate([zeta_transpose(u), or_transpose(u)])[self.columns]

    def entries(self, states: Ints, columns: Ints) -> Floats:
        """D[states, columns], dense; `columns` counts the kept columns."""
        relation, subsets = np.divmod(self.columns[columns], self.n_states)
        shared = states[:, None] & subsets
        return np.where(relation == 0, shared == subsets, shared != 0).astype(np.float64)

    def normal_matrix(self, theta: Floats, diagonal: Floats, out: Floats | None = None) -> Floats:
        """D diag(θ) Dᵀ + diag(diagonal), upper triangle: (2^n, 2^n); what lies below it is not defined.

        No product of matrices: with ζ_and, ζ_or the zeta transforms of θ's halves and T̄ = N∖T,
            entry (T, T') = ζ_and(T ∩ T') + ζ_or(N) − ζ_or(T̄) − ζ_or(T̄') + ζ_or(T̄ ∩ T̄').
        Split into high and low bits, T = (P, p), the entries at (P, ·), (P', ·) are one tile of ζ_and, chosen by
        P ∩ P', and one of ζ_or, chosen by P ∪ P'. Written into `out` where given.
        """
        if out is None:
            out = np.empty((self.n_states, self.n_states))
        below_and, below_or = zeta_transform(self.spread(theta))
        missing = below_or[::-1]  # ζ_or(T̄), so T̄ ∩ T̄' is found at T ∪ T'
        tiles, width = len(self._high_meets), len(self._low_meets)
        and_tiles = np.take(below_and.reshape(tiles, width), self._low_meets, axis=1)  # (tiles, width, width)
        by_tile = missing.reshape(tiles, width)
        or_tiles = np.take(by_tile, self._low_joins, axis=1)
        blocks = out.reshape(tiles, width, tiles, width)
        spare = np.empty((2, tiles, width, width))  # made once: fresh memory costs as much as filling it
        for row in range(tiles):
            block, other = spare[:, row:]
            np.take(and_tiles, self._high_meets[row, row:], axis=0, out=block, mode="clip")  # clip: unbuffered
            np.take(or_tiles, self._high_joins[row, row:], axis=0, out=other, mode="clip")
            block += other
            block -= by_tile[row:, None, :]
            shift = (missing[0] - by_tile[row])[:, None, None]
            np.add(block.swapaxes(0, 1), shift, out=blocks[row, :, row:])
        out.reshape(-1)[:: self.n_states + 1] += diagonal
        return out

    def cost(self, x: Floats) -> float:
        """Σ w_j |x_j|."""
        return float(self.weights @ np.abs(x))

    def dual_bound(self, u: Floats, v: Floats, zeta: float) -> float:
        """A lower bound of every feasible cost: the dual value of u, scaled until it is dual feasible."""
        excess = float(np.max(np.abs(self.prices(u)) / self.weights))
        value = float(v @ u - zeta * np.abs(u).sum())
        bound = value / max(1.0, excess)
        return bound if bound > 0.0 else 0.0  # u = 0 is feasible; also where u is not finite

    def excess(self, x: Floats, v: Floats, zeta: float) -> float:
        """By how much |D x − v|_∞ exceeds ζ (0 if feasible)."""
        return float(max(0.0, np.max(np.abs(self.model(x) - v)) - zeta))


@lru_cache(maxsize=4)
def lattice_program(n: int) -> LatticeProgram:
    return LatticeProgram(n)
