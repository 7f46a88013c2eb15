"""From a nearly optimal point to the exact vertex next to it.

At a vertex of the AND-OR program some effects are not zero (the support) and some masked states are matched
with error exactly ±ζ (the active states). Once both are known, D x = v ± ζ on the active states gives the
effects to rounding, and Dᵀu = ±w on the support gives the dual. Nothing here decides whether the answer is
good enough: the caller prices all columns and checks all states.

Effects near a vertex are moved inside: changed as little as possible until every masked state is within ζ.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sftscope.decomposition.exact.cholesky import conjugate_gradients, lapack
from sftscope.decomposition.exact.interior_point import Iterate
from sftscope.decomposition.exact.lattice_program import LatticeProgram, lattice_program
from sftscope.decomposition.exact.program import Program
from sftscope.decomposition.exact.schur_weyl_inverse import normal_inverse
from sftscope.lattice.transforms import Bools, Floats

DUST = 1e-10  # effects below this share of the score's scale are rounding
LEAST_CHANGES = 2
LEAST_RIDGE = 1e-9  # D Dᵀ is singular, at x_∅ only
# States beyond ζ end within it by the sum of these three
LEAST_ROOM = 1e-10  # of ζ
ROUNDING = 1e-14  # of Σ w |x|: D x is rounded
MORE_ROOM = 1e-3  # of the worst error beyond ζ: rough solutions of the linear systems will do
MOVE_ACCURACY, MOST_MOVE_STEPS = 0.1, 500  # of the 2-norm, in a round: the next one takes back what is left
MOST_MOVES = 20  # rounds; each takes in the states that the one before has pushed out


@dataclass(frozen=True, eq=False)
class Face:
    """The guess: `signs` of the effects (n_columns,) and `bounds` of the rows (n_rows,): +1, −1, or 0.

    bounds: +1 where D x − v = ζ, −1 where it is −ζ. With ζ = 0 both are one, and any non-zero value will do.
    """

    signs: NDArray[np.int8]
    bounds: NDArray[np.int8]

    @property
    def n_effects(self) -> int:
        return int(np.count_nonzero(self.signs))

    @property
    def n_active(self) -> int:
        return int(np.count_nonzero(self.bounds))

    def same(self, other: "Face | None") -> bool:
        return (
            other is not None and np.array_equal(self.signs, other.signs) and np.array_equal(self.bounds, other.bounds)
        )


def face_of(program: Program, point: Iterate) -> Face:
    """Which of each pair of an interior point will stay: the one that is larger than its partner."""
    stays = point.primal > point.dual
    m = program.n_columns
    signs = stays[:m].astype(np.int8) - stays[m : 2 * m].astype(np.int8)
    bounds = np.ones(program.n_rows, dtype=np.int8)
    if len(stays) > 2 * m:
        upper, lower = stays[2 * m :].reshape(2, -1)
        bounds = lower.astype(np.int8) - upper.astype(np.int8)
    if program.has_empty_row:
        bounds[0] = 0
    return Face(signs, bounds)


def solve_face(program: Program, v: Floats, zeta: float, face: Face) -> tuple[Floats, Floats] | None:
    """(x, u) of the face, or None where the active states do not determine the effects.

    With more active states than effects the pivoting of the LU factorisation picks the states that
    determine them; whether the others agree is for the caller to see.
    """
    columns, states = np.flatnonzero(face.signs), np.flatnonzero(face.bounds)
    n = len(columns)
    if n == 0 or n > len(states):
        return None
    block = program.entries(states, columns)
    factors, pivots, info = lapack().dgetrf(block)
    if info != 0 or np.min(np.abs(np.diagonal(factors))) < 1e-9:
        return None
    for row, pivot in enumerate(pivots[:n]):
        states[[row, pivot]] = states[[pivot, row]]
    states = states[:n]
    square, order = np.asfortranarray(factors[:n]), np.arange(n, dtype=np.int32)
    right = v[states] + zeta * face.bounds[states]

    x, u = np.zeros(program.n_columns), np.zeros(program.n_rows)
    x[columns] = lapack().dgetrs(square, order, right)[0]
    x[columns] += lapack().dgetrs(square, order, right - program.model(x)[states])[0]
    price = program.weights[columns] * face.signs[columns]
    u[states] = lapack().dgetrs(square, order, price, trans=1)[0]
    u[states] += lapack().dgetrs(square, order, price - program.prices(u)[columns], trans=1)[0]
    if not (np.isfinite(x).all() and np.isfinite(u).all()):
        return None
    return x, u


def settle_on_face(program: Program, v: Floats, zeta: float, face: Face, x: Floats) -> Floats:
    """The effects nearest to x that are 0 off the support and exact on the active states (least squares).

    For a face that is no vertex: ties that rounding leaves open, or states that depend on each other.
    """
    from scipy.linalg import lstsq

    columns, states = np.flatnonzero(face.signs), np.flatnonzero(face.bounds)
    settled = np.zeros_like(x)
    settled[columns] = x[columns]
    left = (v + zeta * face.bounds - program.model(settled))[states]
    # gelsy: a pivoted QR, many times faster than the default's singular values
    change = lstsq(program.entries(states, columns), left, cond=1e-10, lapack_driver="gelsy")[0]
    settled[columns] += change
    return settled


def without_tiny(program: Program, v: Floats, zeta: float, x: Floats, excess: float) -> Floats:
    """x without as many of its smallest effects as leave every state within ζ + excess.

    For points that are near the optimum but no vertex: there, most effects are not zero but next to nothing.
    """
    smallest_first = np.argsort(np.abs(x), kind="stable")

    def without(count: int) -> Floats:
        kept = x.copy()
        kept[smallest_first[:count]] = 0.0
        return kept

    fits, too_many = 0, len(x) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if program.excess(without(middle), v, zeta) <= excess:
            fits = middle
        else:
            too_many = middle
    return without(fits)


def moved_inside(
    program: Program, v: Floats, zeta: float, x: Floats, slack: float, *, patience: int = MOST_MOVES
) -> Floats | None:
    """x moved to where every state is within ζ + slack, with no effect that x has not; None where that fails.

    By the least change in the 2-norm that puts the states beyond ±ζ a little inside; states that this pushes out
    join them in the next round, until there are none. patience: rounds that may leave their linear system unsolved,
    as happens where there are hardly more effects than states at their bound.
    """
    kept, room = x != 0.0, _room(program, zeta, x, program.excess(x, v, zeta))
    side = np.zeros(program.n_rows)
    for _ in range(MOST_MOVES):
        error = program.model(x) - v
        if np.max(np.abs(error)) <= zeta + slack:
            return x
        if not np.isfinite(error).all():
            return None
        side = np.where(np.abs(error) > zeta, np.sign(error), side)
        change, is_solved = _least_change(program, kept, side != 0.0, (zeta - room) * side - error)
        patience -= not is_solved
        if patience < 0:
            return None
        x = x + change
    return None


def _room(program: Program, zeta: float, x: Floats, excess: float) -> float:
    """How far within ζ states end that were beyond it, the worst of them by `excess`."""
    return min(zeta / 2, LEAST_ROOM * zeta + ROUNDING * program.cost(x) + MORE_ROOM * excess)


def _least_change(program: Program, columns: Bools, rows: Bools, values: Floats) -> tuple[Floats, bool]:
    """The least change in the 2-norm of the effects `columns` that changes D x by `values` at `rows`, roughly.

    And whether it does: not where the effects are too few.
    """

    def product(u: Floats) -> Floats:
        image: Floats = np.where(rows, program.model(np.where(columns, program.prices(u), 0.0)), 0.0)
        return image

    right = np.where(rows, values, 0.0)
    u = conjugate_gradients(product, right, MOVE_ACCURACY, MOST_MOVE_STEPS)
    left = float(np.linalg.norm(right - product(u)))
    return np.where(columns, program.prices(u), 0.0), left <= 2 * MOVE_ACCURACY * float(np.linalg.norm(right))


def put_inside(program: Program, v: Floats, zeta: float, x: Floats) -> Floats:
    """x with its error beyond ±ζ taken back exactly, by new effects where needed."""
    return x - program.effects_for(beyond(program, v, zeta, x))


def beyond(program: Program, v: Floats, zeta: float, x: Floats) -> Floats:
    """What to subtract from D x at the states beyond ±ζ so that they end a little within it, 0 at the others."""
    error = program.model(x) - v
    inner = zeta - _room(program, zeta, x, 0.0)
    return np.where(np.abs(error) > zeta, error - inner * np.sign(error), 0.0)


def repaired(program: LatticeProgram, v: Floats, zeta: float, x: Floats) -> Floats:
    """x with its error beyond ±ζ taken back, so that it is feasible.

    By the least change in the 2-norm first, which is cheap in cost; what rounding leaves by AND effects, exactly.
    """
    whole, inverse = lattice_program(program.n), normal_inverse(program.n)
    inner = zeta - _room(program, zeta, x, 0.0)
    for _ in range(LEAST_CHANGES):
        error = program.model(x) - v
        left = program.everywhere(error - np.clip(error, -inner, inner))
        x = x - whole.prices(inverse.solve(left, LEAST_RIDGE))
    return put_inside(program, v, zeta, x)
