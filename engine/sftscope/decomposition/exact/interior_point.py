"""A primal-dual interior-point method for one score vector of the AND-OR program.

Mehrotra's predictor-corrector with one of Gondzio's centrality corrections. Written with x = x⁺ − x⁻ and
D x − v = r, |r| ≤ ζ, the pairs that tend to zero product are (x⁺, w − Dᵀu), (x⁻, w + Dᵀu), (ζ − r, y⁺),
(ζ + r, y⁻), where u = y⁻ − y⁺. One Newton step is one Cholesky factorisation of D diag(θ) Dᵀ + diag(1/H),
a matrix that the subset lattice gives by look-up. ζ = 0 has no second pair of pairs: r = 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sftscope.decomposition.exact.cholesky import BreakdownError, conjugate_gradients, factor, solve
from sftscope.decomposition.exact.program import Program
from sftscope.lattice.transforms import Floats

MOST_STEPS = 80
BACK_OFF = 0.995  # share of the way to the boundary
RIDGE = 0.1  # of the least-squares start
START_ACCURACY, MOST_START_STEPS = 1e-6, 200
ACCURATE = 1e-9  # relative error of a linear solve that needs no refinement
MOST_REFINEMENTS = 6
SHIFTS = (0.0, 1e-13, 1e-11)  # of the diagonal, relative to it, tried until rounding leaves the matrix definite
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Iterate:
    """One interior point. Products primal·dual → 0; columns first, then (where ζ > 0) rows.

    `primal` and `dual` are the pairs x⁺, x⁻ (n_columns each) and ζ − r, ζ + r (n_rows each) in one vector.
    """

    primal: Floats
    dual: Floats
    u: Floats  # (n_rows,)
    x: Floats  # (n_columns,), x⁺ − x⁻
    residual: float  # |v + r − D x|_∞
    step: int


def _least_squares_start(program: Program, v: Floats) -> Floats:
    """x = Dᵀ (D Dᵀ + RIDGE)⁻¹ v. Permuting variables leaves that matrix alone: it has few distinct eigenvalues."""

    def product(u: Floats) -> Floats:
        return program.model(program.prices(u)) + RIDGE * u

    u = conjugate_gradients(product, v, START_ACCURACY, MOST_START_STEPS)
    return program.prices(u)


def _longest_step(values: Floats, change: Floats) -> float:
    """The largest α ≤ 1 that keeps values + α·change ≥ 0."""
    return 1.0 / max(1.0, float(np.max(-change / values)))


class _Newton:
    """Directions at one point for several right-hand sides, with one factorisation."""

    def __init__(self, program: Program, primal: Floats, dual: Floats, residual: Floats, matrix: Floats) -> None:
        self.program, self.primal, self.dual, self.residual = program, primal, dual, residual
        m = 2 * program.n_columns
        self.bounded = len(primal) > m
        ratio = primal / dual
        self.theta = ratio[:m].reshape(2, -1).sum(axis=0)
        if self.bounded:
            self.slack = 1.0 / (1.0 / ratio[m:]).reshape(2, -1).sum(axis=0)  # 1/H
        else:
            self.slack = np.zeros(program.n_rows)
            if program.has_empty_row:  # its row of D is zero
                self.slack[0] = 1.0
        self.cholesky = self._factored(matrix)

    def _factored(self, matrix: Floats) -> Floats:
        """The Cholesky factor, in place of `matrix`; what a shift changes, the refinement of solutions takes back."""
        for shift in SHIFTS:
            normal = self.program.normal_matrix(self.theta, self.slack, matrix)
            normal.reshape(-1)[:: len(normal) + 1] *= 1.0 + shift
            try:
                return factor(normal)
            except BreakdownError:
                continue
        raise BreakdownError

    def _product(self, u: Floats) -> Floats:
        return self.program.model(self.theta * self.program.prices(u)) + self.slack * u

    def _solve(self, right: Floats) -> Floats:
        du = solve(self.cholesky, right)
        # near the optimum θ spans sixteen orders of magnitude: refined while that helps
        aim, before = ACCURATE * float(np.max(np.abs(right))), np.inf
        for _ in range(MOST_REFINEMENTS):
            left = right - self._product(du)
            size = float(np.max(np.abs(left)))
            if not aim < size < 0.5 * before:
                break
            du, before = du + solve(self.cholesky, left), size
        return du

    def direction(self, target: Floats) -> tuple[Floats, Floats, Floats]:
        """Changes of (primal, dual, u) for which primal·dual moves by `target` to first order."""
        m, primal, dual = 2 * self.program.n_columns, self.primal, self.dual
        plus, minus = (target[:m] / dual[:m]).reshape(2, -1)
        right = self.residual - self.program.model(plus - minus)
        if self.bounded:
            upper, lower = (target[m:] / primal[m:]).reshape(2, -1)
            right = right + self.slack * (lower - upper)
        du = self._solve(right)
        price = self.program.prices(du)
        d_primal, d_dual = np.empty_like(primal), np.empty_like(dual)
        d_dual[:m] = np.concatenate([-price, price])
        d_primal[:m] = (target[:m] - primal[:m] * d_dual[:m]) / dual[:m]
        if self.bounded:
            dr = self.slack * (lower - upper - du)
            d_primal[m:] = np.concatenate([-dr, dr])
            d_dual[m:] = (target[m:] - dual[m:] * d_primal[m:]) / primal[m:]
        return d_primal, d_dual, du


def interior_points(program: Program, v: Floats, zeta: float) -> Iterator[Iterate]:
    """Ever better points for a centred score v (n_rows,), until MOST_STEPS or the arithmetic gives out."""
    m, bounded = program.n_columns, zeta > 0.0
    least = _least_squares_start(program, v)
    centre = max(float(np.mean(np.abs(least))), TINY)
    primal = np.concatenate([np.maximum(least, 0.0), np.maximum(-least, 0.0)]) + centre
    dual = np.concatenate([program.weights, program.weights])
    r = np.zeros(program.n_rows)
    if bounded:
        r = np.clip(program.model(least) - v, -0.9 * zeta, 0.9 * zeta)
        if program.has_empty_row:
            r[0] = 0.0
        primal = np.concatenate([primal, zeta - r, zeta + r])
        dual = np.concatenate([dual, np.full(2 * program.n_rows, centre / zeta)])
    u = np.zeros(program.n_rows)
    # one matrix for all steps: fresh memory costs as much as filling it
    matrix = np.empty((program.n_rows, program.n_rows))

    for step in range(MOST_STEPS):
        x = primal[:m] - primal[m : 2 * m]
        if bounded:
            r = 0.5 * (primal[2 * m + program.n_rows :] - primal[2 * m : 2 * m + program.n_rows])
        residual = v + r - program.model(x)
        yield Iterate(primal, dual, u, x, float(np.max(np.abs(residual))), step)
        try:
            newton = _Newton(program, primal, dual, residual, matrix)
        except BreakdownError:
            return
        change, along_primal, along_dual = _corrected_direction(newton)
        d_primal, d_dual, du = change
        if not (np.isfinite(du).all() and np.isfinite(d_primal).all()):
            return
        along_primal = 1.0 if along_primal >= 1.0 else BACK_OFF * along_primal
        along_dual = 1.0 if along_dual >= 1.0 else BACK_OFF * along_dual
        primal = np.maximum(primal + along_primal * d_primal, TINY)
        dual = np.maximum(dual + along_dual * d_dual, TINY)
        u = u + along_dual * du


def _corrected_direction(newton: _Newton) -> tuple[tuple[Floats, Floats, Floats], float, float]:
    primal, dual = newton.primal, newton.dual
    products = primal * dual
    mu = float(np.mean(products))

    change = newton.direction(-products)
    along = _longest_step(primal, change[0]), _longest_step(dual, change[1])
    reached = float(np.mean((primal + along[0] * change[0]) * (dual + along[1] * change[1])))
    aim = mu * min(1.0, (reached / mu) ** 3)

    target = aim - products - change[0] * change[1]
    change = newton.direction(target)
    along = _longest_step(primal, change[0]), _longest_step(dual, change[1])

    # Gondzio: look a little further and pull the products that stray back into [0.1, 10] × aim
    further = [min(1.0, 1.08 * step + 0.08) for step in along]
    expected = (primal + further[0] * change[0]) * (dual + further[1] * change[1])
    pull = np.maximum(np.clip(expected, 0.1 * aim, 10.0 * aim) - expected, -10.0 * aim)
    other = newton.direction(target + pull)
    other_along = _longest_step(primal, other[0]), _longest_step(dual, other[1])
    if sum(other_along) > sum(along) + 0.02:
        change, along = other, other_along
    return change, along[0], along[1]
