"""One centred, scaled score vector to feasible effects and a bound that certifies them: the chain of methods.

The interior-point method narrows the optimum down, a linear solve on the face it points at makes it exact; with
many variables over the masked states that bind only. Where that fails HiGHS takes over, or, with too many variables
for its matrices, the first-order method that found which states bind.
"""

from collections.abc import Callable

import numpy as np

from sftscope.decomposition.exact.admm import Splitting
from sftscope.decomposition.exact.highs import face_of_solution, solve_growing, solve_whole
from sftscope.decomposition.exact.incumbent import CLOSE, EXACT, Search, Solution, settled_point
from sftscope.decomposition.exact.interior_point import Iterate
from sftscope.decomposition.exact.lattice_program import LatticeProgram
from sftscope.decomposition.exact.vertex import face_of, repaired
from sftscope.decomposition.exact.working_set import MOST_ROWS, solve_by_growing
from sftscope.lattice.transforms import Floats

FEWEST_TO_GROW = 11  # variables from which on only the binding masked states enter the matrix
SCOUT_STEPS = 400  # first-order steps that tell which states these are
SCOUTED_SHARE = 0.99  # of what the bounds push back; states that are missed come in as they are violated
MOST_SCOUTED = 0.75  # of MOST_ROWS: with more of them the first-order method continues
MOST_FOR_WHOLE = 13  # variables up to which all masked states enter one matrix, 0.5 GiB
SHARE_OF_TOLERANCE = 0.25  # the gap that will do where no vertex is found
LARGEST_N_FOR_HIGHS = 11  # its matrices are dense: 0.1 GiB at 11, 2 GiB at 13
MOST_EFFECTS_FOR_HIGHS = 400  # a part with more takes HiGHS seconds: asked only if the gap is not yet CLOSE


def certified_solution(
    program: LatticeProgram,
    v: Floats,
    zeta: float,
    tolerance: float,
    check: Callable[[], None],
    start: Iterate | None = None,
) -> Solution:
    """The best effects found for a centred v with max|v| in [0.5, 1). Whether the gap will do is the caller's.

    `check` is called at each step and may raise, to stop early. start: a nearly optimal point found elsewhere; where
    a vertex lies next to it that is all.
    """
    search = Search(program, v, zeta)
    with np.errstate(all="ignore"):  # what is not finite is caught where it is offered
        if start is not None:
            search.offer_dual(start.u)
            search.offer_face(face_of(program, start), "vertex")
            if search.gap <= EXACT:
                return search.solution(tolerance)
        splitting = None
        if search.zeta > 0.0 and program.n >= FEWEST_TO_GROW:
            splitting = Splitting(search)
            splitting.advance(SCOUT_STEPS)
            rows = splitting.binding_states(SCOUTED_SHARE)
            enough = SHARE_OF_TOLERANCE * tolerance
            if 0 < len(rows) <= MOST_SCOUTED * MOST_ROWS and solve_by_growing(search, rows, enough, check):
                return search.solution(tolerance)
        if program.n <= MOST_FOR_WHOLE:
            _solve_whole(search, tolerance, check)
        if search.gap > tolerance and splitting is not None:
            splitting.solve(SHARE_OF_TOLERANCE * tolerance, check)
        return search.solution(tolerance)


def _solve_whole(search: Search[LatticeProgram], tolerance: float, check: Callable[[], None]) -> None:
    """The interior-point method over all masked states, and HiGHS where it is not exact."""
    program = search.program
    closest = settled_point(search, check)
    if search.gap > EXACT and closest is not None:
        if search.gap > CLOSE:
            search.offer(repaired(program, search.v, search.zeta, closest.x), "interior")
        wanted = face_of(program, closest).n_effects <= MOST_EFFECTS_FOR_HIGHS or search.gap > CLOSE
        if wanted and program.n <= LARGEST_N_FOR_HIGHS:
            _offer_found(search, _part_at(search, closest))
    if search.gap > tolerance and program.n <= LARGEST_N_FOR_HIGHS:
        _offer_found(search, solve_whole(program, search.v, search.zeta))


def _offer_found(search: Search[LatticeProgram], found: tuple[Floats, Floats] | None) -> None:
    """HiGHS' answer: made exact on its face, and repaired in case that fails."""
    if found is None:
        return
    search.offer_dual(found[1])
    search.offer_face(face_of_solution(search.program, search.zeta, *found), "highs")
    if search.gap > EXACT:
        search.offer(repaired(search.program, search.v, search.zeta, found[0]), "highs")


def _part_at(search: Search[LatticeProgram], point: Iterate) -> tuple[Floats, Floats] | None:
    """HiGHS from the columns and states that an interior point has not yet ruled out."""
    m, ratio = search.program.n_columns, point.primal / point.dual
    columns = np.maximum(ratio[:m], ratio[m : 2 * m]) > 0.1
    states = np.ones(search.program.n_states, dtype=bool)
    if search.zeta > 0.0:
        states = np.min(ratio[2 * m :].reshape(2, -1), axis=0) < 10.0
    states[0] = False
    return solve_growing(search.program, search.v, search.zeta, columns, states)
