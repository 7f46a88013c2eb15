"""Scores of masked states to AND and OR effects, with a certificate of optimality for every vector.

`decompose` solves, for each score vector v of the batch,

    minimise Σ_S w_and(S) |I_and(S)| + w_or(S) |I_or(S)|   subject to   |h(x_T) − v(x_T)| ≤ ζ for every T,

h the logical model of `sftscope.lattice.transforms`, w the weights of `lattice_program.effect_weights`. An
interior-point method finds which effects are not zero, a linear solve makes them exact, HiGHS stands by.
Vectors are solved one by one, so the rest of a batch never changes a result. Nothing here knows where scores
come from or which effects are salient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sftscope.decomposition.exact.cholesky import lapack
from sftscope.decomposition.exact.incumbent import Solution
from sftscope.decomposition.exact.interior_point import Iterate
from sftscope.decomposition.exact.lattice_program import ORDER_WEIGHT, Ints, LatticeProgram, lattice_program
from sftscope.decomposition.exact.solver_chain import certified_solution
from sftscope.decomposition.exact.working_set import MOST_ROWS
from sftscope.decomposition.process_pool import MOST_WORKERS, in_order, one_blas_thread
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.threads import usable_cores
from sftscope.lattice.transforms import Floats, n_variables_of, relabelled

MOST_VARIABLES: Final = 16
FEWEST_VARIABLES_FOR_THREADS: Final = 8
MOST_MATRIX_BYTES: Final = 2**31  # of all workers together


# Points of many problems at once: (v (B, 2^n), ζ (B,)), both scaled → a start for each, or None
Points = Callable[[Floats, Floats], Sequence[Iterate | None]]


class UncertifiedError(SftscopeError):
    """A vector could not be certified to the tolerance asked for."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Optimal effects of B score vectors over n variables, in the unit of the scores."""

    bias: Floats  # (B,), v(x_∅)
    and_effects: Floats  # (B, 2^n), 0 at the empty set
    or_effects: Floats  # (B, 2^n), 0 at the empty set and at singletons, whose AND is the same function
    zeta: Floats  # (B,), the bound of the matching error
    objective: Floats  # (B,), Σ w |I|
    lower_bound: Floats  # (B,), no feasible effects cost less
    gap: Floats  # (B,), (objective − lower_bound) / objective, 0 where both are 0
    solver: tuple[str, ...]  # (B,), what finished each vector: "zero", "vertex", "interior", "highs", "splitting"


def decompose(
    scores: Floats,
    zeta: Floats | float,
    *,
    tolerance: float = 1e-3,
    names: Sequence[Sequence[str]] | None = None,
    workers: int | None = None,
    points: Points | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    order_weight: float = ORDER_WEIGHT,
) -> Decomposition:
    """The optimal AND-OR effects of each vector, certified to a relative gap of `tolerance`.

    scores: (B, 2^n) or (2^n,), by subset; zeta: one bound or (B,), in the unit of the scores. The result is
    batched in either case. |h − v| ≤ ζ (1 + 1e-9) at every masked state, whichever method finished it and on any
    processor; where ζ is below 1e-10 of max|v − v(x_∅)|, |h − v| ≤ ζ + 1e-9 of that maximum. Raises UncertifiedError
    where a gap stays above `tolerance`, SftscopeError for scores that are not finite.

    names: the n variables of each vector. The choice among equal optima then follows the names, not the places:
    variables in another order have the same effects (equal names keep their order). `workers` vectors are solved
    at a time (default: as many as there are cores and memory). `points` supplies nearly optimal points of the whole
    batch, from a GPU, say, so that only their vertices are left to solve. `workers` never changes a result, bit for
    bit. `on_progress(done, total)` is called after each vector. order_weight: δ, by which ties are broken: to see what
    depends on it.
    """
    batch, bounds, n = checked_problem(scores, zeta)
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"expected a tolerance between 0 and 1, got {tolerance}")

    if n > MOST_VARIABLES:
        raise SftscopeError(f"{n} variables are too many for an exact decomposition: take at most {MOST_VARIABLES}")

    program = lattice_program(n, order_weight)
    effects = np.zeros((len(batch), 2, program.n_states))
    objective, lower_bound = np.zeros(len(batch)), np.zeros(len(batch))
    solver: list[str] = []

    places = [np.arange(program.n_states)] * len(batch) if names is None else [_by_name(n, given) for given in names]
    problems = [
        _scaled(vector[place], float(bound), index)
        for index, (vector, place, bound) in enumerate(zip(batch, places, bounds, strict=True))
    ]
    starts: Sequence[Iterate | None] = [None] * len(batch)
    if points is not None:
        starts = points(np.stack([p.v for p in problems]), np.array([p.zeta for p in problems]))

    def solved(index: int, check: Callable[[], None]) -> Solution:
        return problems[index].solved(program, tolerance, check, starts[index])

    lapack()  # loaded before its threads are limited: a library that is not there yet would not be
    with one_blas_thread():
        for index, solution in enumerate(in_order(solved, range(len(batch)), _workers_for(n, workers))):
            if not solution.gap <= tolerance:
                raise UncertifiedError(
                    f"score vector {index} could only be decomposed to a gap of {solution.gap:.1e}, "
                    f"expected ≤ {tolerance:.0e}: check its scores, or allow a larger ζ or tolerance"
                )
            effects[index][:, places[index]] = program.spread(solution.x)
            objective[index], lower_bound[index] = solution.cost, solution.bound
            solver.append(solution.stage)
            if on_progress is not None:
                on_progress(index + 1, len(batch))
    gap = np.divide(objective - lower_bound, objective, out=np.zeros(len(batch)), where=objective > 0.0)
    return Decomposition(
        bias=batch[:, 0].copy(),
        and_effects=np.ascontiguousarray(effects[:, 0]),
        or_effects=np.ascontiguousarray(effects[:, 1]),
        zeta=bounds,
        objective=objective,
        lower_bound=lower_bound,
        gap=gap,
        solver=tuple(solver),
    )


def checked_problem(scores: Floats, zeta: Floats | float) -> tuple[Floats, Floats, int]:
    """Scores as (B, 2^n), a noise bound for each of them, (B,), and n. ValueError for what is no such thing."""
    batch = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if batch.ndim != 2:
        raise ValueError(f"expected scores of shape (B, 2^n) or (2^n,), got {batch.shape}")
    n = n_variables_of(batch.shape[1])
    bounds = np.broadcast_to(np.asarray(zeta, dtype=np.float64), batch.shape[:1]).copy()
    if not (np.isfinite(bounds) & (bounds >= 0.0)).all():
        raise ValueError("expected finite noise bounds ζ ≥ 0")
    return batch, bounds, n


def _workers_for(n: int, wanted: int | None) -> int:
    """How many vectors to solve at a time: small ones spend their time under Python's lock, large ones fill memory."""
    if wanted is not None:
        return wanted
    if n < FEWEST_VARIABLES_FOR_THREADS:
        return 1
    return max(1, min(usable_cores(), MOST_WORKERS, MOST_MATRIX_BYTES // (8 * min(2**n, MOST_ROWS) ** 2)))


def _by_name(n: int, names: Sequence[str]) -> Ints:
    """Where each subset of the variables in the order of their names lies in the order given: (2^n,)."""
    if len(names) != n:
        raise ValueError(f"expected {n} names, got {len(names)}")
    return relabelled(sorted(range(n), key=lambda variable: (names[variable], variable)))


@dataclass(frozen=True, eq=False)
class _Problem:
    """One vector, centred, and scaled by a power of two so that nothing is rounded: max|v| in [0.5, 1), or within ζ."""

    v: Floats
    zeta: float
    exponent: int

    def solved(
        self, program: LatticeProgram, tolerance: float, check: Callable[[], None], start: Iterate | None
    ) -> Solution:
        """In the unit of the scores."""
        if float(np.max(np.abs(self.v))) <= self.zeta:
            return Solution(np.zeros(program.n_columns), 0.0, 0.0, "zero")
        best = certified_solution(program, self.v, self.zeta, tolerance, check, start)
        cost, bound = float(np.ldexp(best.cost, self.exponent)), float(np.ldexp(best.bound, self.exponent))
        return Solution(np.ldexp(best.x, self.exponent), cost, bound, best.stage)


def _scaled(scores: Floats, zeta: float, index: int) -> _Problem:
    if not np.isfinite(scores).all():
        raise SftscopeError(
            f"score vector {index}: {np.count_nonzero(~np.isfinite(scores))} of {len(scores)} values are not finite; "
            "score its masked states again"
        )
    with np.errstate(over="ignore"):
        centred = scores - scores[0]
    largest = float(np.max(np.abs(centred)))
    if not np.isfinite(largest) or 0.0 < largest < 1e-290:
        raise SftscopeError(f"score vector {index} has a range of {largest:.1e}: rescale it")
    exponent = int(np.frexp(largest)[1])
    return _Problem(np.ldexp(centred, -exponent), float(np.ldexp(zeta, -exponent)), exponent)
