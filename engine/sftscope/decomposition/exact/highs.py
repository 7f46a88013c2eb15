"""The safety net: the AND-OR program, or a part of it that grows as needed, given to HiGHS."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sftscope.decomposition.exact.lattice_program import LatticeProgram
from sftscope.decomposition.exact.vertex import Face
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import Floats

Bools = NDArray[np.bool_]

MOST_ROUNDS = 12
TOLERANCE = 1e-9  # of reduced costs and of matching errors that bring in a column or a state
MOST_NEW = 64  # columns or states brought in at a time


def solve_part(
    program: LatticeProgram, v: Floats, zeta: float, columns: Bools, states: Bools
) -> tuple[Floats, Floats] | None:
    """Optimal (x, u) with the other columns at 0 and the other states unconstrained; None if there is none."""
    try:
        from scipy.optimize import linprog
    except ImportError as error:
        raise SftscopeError("the decomposition needs scipy: pip install 'sftscope[solver]'") from error
    j, t = np.flatnonzero(columns), np.flatnonzero(states)
    block = program.entries(t, j)
    parts, cost = [block, -block], [program.weights[j]] * 2
    bounds: list[tuple[float, float | None]] = [(0.0, None)] * (2 * len(j))
    if zeta > 0.0:  # D x − r = v with |r| ≤ ζ
        parts.append(-np.eye(len(t)))
        cost.append(np.zeros(len(t)))
        bounds += [(-zeta, zeta)] * len(t)
    result: Any = linprog(
        np.concatenate(cost),
        A_eq=np.hstack(parts),
        b_eq=v[t],
        bounds=bounds,
        method="highs",
        options={"primal_feasibility_tolerance": TOLERANCE, "dual_feasibility_tolerance": TOLERANCE},
    )
    if result.status != 0:
        return None
    x, u = np.zeros(program.n_columns), np.zeros(program.n_states)
    x[j] = result.x[: len(j)] - result.x[len(j) : 2 * len(j)]
    u[t] = result.eqlin.marginals
    return x, u


def solve_growing(
    program: LatticeProgram, v: Floats, zeta: float, columns: Bools, states: Bools
) -> tuple[Floats, Floats] | None:
    """Row and column generation: solve the part, bring in what it violates most, until nothing is."""
    columns, states = columns.copy(), states.copy()
    for _ in range(MOST_ROUNDS):
        found = solve_part(program, v, zeta, columns, states)
        if found is None:
            return None
        x, u = found
        costly = np.where(columns, 0.0, np.abs(program.prices(u)) / program.weights - 1.0)
        missed = np.where(states, 0.0, np.abs(program.model(x) - v) - zeta)
        missed[0] = 0.0
        if max(costly.max(), missed.max()) <= TOLERANCE:
            return found
        for violation, chosen in ((costly, columns), (missed, states)):
            worst = np.argsort(violation, kind="stable")[-MOST_NEW:]
            chosen[worst[violation[worst] > TOLERANCE]] = True
    return None


def solve_whole(program: LatticeProgram, v: Floats, zeta: float) -> tuple[Floats, Floats] | None:
    """All columns, all states: seconds at n = 10."""
    states = np.ones(program.n_states, dtype=bool)
    states[0] = False
    return solve_part(program, v, zeta, np.ones(program.n_columns, dtype=bool), states)


def face_of_solution(program: LatticeProgram, zeta: float, x: Floats, u: Floats) -> Face:
    """The support of x and the states that u prices."""
    signs = np.where(np.abs(x) > TOLERANCE, np.sign(x), 0.0).astype(np.int8)
    bounds = np.where(np.abs(u) > TOLERANCE, -np.sign(u), 0.0).astype(np.int8)
    if zeta == 0.0:
        bounds[:] = 1
    bounds[0] = 0
    return Face(signs, bounds)
