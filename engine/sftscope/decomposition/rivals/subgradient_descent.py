"""The descent that earlier work used, kept to show what it leaves behind: far from the optimum, many "salient" effects.

Plain subgradient descent on γ and q (App. F of the paper) with a small fixed rate, from v_and = v_or = v/2:

    v_and = (v + q)/2 + γ,   v_or = (v + q)/2 − γ,   |q_T| ≤ ζ,   minimise Σ_S |I_and(S)| + |I_or(S)|.

The result is feasible and is priced and bounded like any other; it is hardly ever optimal. Nothing else uses it.
"""

import numpy as np

from sftscope.decomposition.batch import Decomposition, checked_problem
from sftscope.decomposition.exact.lattice_program import LatticeProgram, lattice_program
from sftscope.lattice.transforms import Floats, and_effects_of, moebius_transpose, or_effects_of, orders

ITERATIONS = 20_000
LEARNING_RATE = 1e-6


def decompose_by_descent(
    scores: Floats,
    zeta: Floats | float,
    *,
    iterations: int = ITERATIONS,
    learning_rate: float = LEARNING_RATE,
) -> Decomposition:
    """The effects after `iterations` steps, with an honest gap, which may be anything up to 1.

    scores: (B, 2^n) or (2^n,); zeta: one bound or (B,). Objective and bound use the weights of `decompose`, so that
    both can be compared; the descent itself has none. The dual point of the bound comes from the signs of the
    effects it ends with. A singleton's OR is its AND, and is counted there, as `decompose` does.
    """
    if iterations < 0 or not learning_rate > 0.0:
        raise ValueError(f"expected iterations ≥ 0 and a learning rate > 0, got {iterations} and {learning_rate}")
    batch, bounds, n = checked_problem(scores, zeta)
    program = lattice_program(n)
    v = batch - batch[:, :1]
    gamma, noise = np.zeros_like(v), np.zeros_like(v)
    for _ in range(iterations):
        by_and, by_or = _subgradients(*_effects(v, gamma, noise))
        gamma -= learning_rate * (by_and - by_or)
        noise -= learning_rate * 0.5 * (by_and + by_or)
        np.clip(noise, -bounds[:, None], bounds[:, None], out=noise)
        noise[:, 0] = gamma[:, 0] = 0.0  # x_∅ is the bias
    and_effects, or_effects = _effects(v, gamma, noise)
    by_and, by_or = _subgradients(and_effects, or_effects)
    single = orders(n) == 1
    and_effects[:, single] += or_effects[:, single]
    or_effects[:, single] = 0.0
    return _priced(program, batch, bounds, and_effects, or_effects, 0.5 * (by_and + by_or))


def _effects(v: Floats, gamma: Floats, noise: Floats) -> tuple[Floats, Floats]:
    shared = 0.5 * (v + noise)
    return and_effects_of(shared + gamma), or_effects_of(shared - gamma)


def _subgradients(and_effects: Floats, or_effects: Floats) -> tuple[Floats, Floats]:
    """Of Σ|I_and| by v_and and of Σ|I_or| by v_or: the transposed transforms of the signs, (B, 2^n) each."""
    return moebius_transpose(np.sign(and_effects)), -moebius_transpose(np.sign(or_effects))[:, ::-1]


def _priced(
    program: LatticeProgram, batch: Floats, bounds: Floats, and_effects: Floats, or_effects: Floats, dual: Floats
) -> Decomposition:
    kept = np.stack([and_effects, or_effects], axis=1).reshape(len(batch), -1)[:, program.columns]
    objective = np.array([program.cost(x) for x in kept])
    points = zip(dual, batch - batch[:, :1], bounds.tolist(), strict=True)
    lower_bound = np.minimum([program.dual_bound(u, v, zeta) for u, v, zeta in points], objective)
    gap = np.divide(objective - lower_bound, objective, out=np.zeros(len(batch)), where=objective > 0.0)
    return Decomposition(
        bias=batch[:, 0].copy(),
        and_effects=and_effects,
        or_effects=or_effects,
        zeta=bounds,
        objective=objective,
        lower_bound=lower_bound,
        gap=gap,
        solver=("reference",) * len(batch),
    )
