"""What the solvers ask of an AND-OR program: weights, and the products with D, whatever its columns and rows are.

minimise Σ_j w_j |x_j|   subject to   |D x − v|_∞ ≤ ζ
maximise vᵀu − ζ‖u‖₁     subject to   |Dᵀu|_j ≤ w_j
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from sftscope.lattice.transforms import Floats

Ints = NDArray[np.int64]


class Program(ABC):
    """Vectors: x (n_columns,), an effect a column; u and what is compared with v (n_rows,), a value a row."""

    weights: Floats
    has_empty_row = False  # whether x_∅ is row 0, matched by construction, as D is zero there

    @property
    @abstractmethod
    def n_columns(self) -> int: ...

    @property
    @abstractmethod
    def n_rows(self) -> int: ...

    @abstractmethod
    def model(self, x: Floats) -> Floats:
        """D x."""

    @abstractmethod
    def prices(self, u: Floats) -> Floats:
        """Dᵀu."""

    @abstractmethod
    def entries(self, rows: Ints, columns: Ints) -> Floats:
        """D[rows, columns], dense."""

    @abstractmethod
    def effects_for(self, values: Floats) -> Floats:
        """Some x with D x = values (n_rows,), to rounding; values must be 0 at x_∅."""

    @abstractmethod
    def normal_matrix(self, theta: Floats, diagonal: Floats, out: Floats | None = None) -> Floats:
        """D diag(θ) Dᵀ + diag(diagonal), upper triangle: (n_rows, n_rows); what lies below it is not defined.

        Written into `out` where given.
        """

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
