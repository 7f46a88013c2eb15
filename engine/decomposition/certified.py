"""One centred, scaled score vector to feasible effects and a bound that certifies them.

The interior-point method narrows the optimum down, a linear solve on the face it points at makes it exact,
HiGHS takes over where that fails. Whatever a stage offers is priced and checked here, by the butterflies, so
no stage is trusted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.decomposition.highs import face_of_solution, solve_growing, solve_whole
from engine.decomposition.interior_point import Iterate, interior_points
from engine.decomposition.lattice_program import LatticeProgram
from engine.decomposition.vertex import Face, face_of, repaired, settle_on_face, solve_face, without_dust
from engine.interactions import Floats

EXACT = 1e-8  # the gap at which a vertex is taken as the optimum
SAME = 1e-10  # costs this close differ by rounding: the earlier, cleaner stage is kept
FEASIBLE = 2e-10  # matching error beyond ζ, as a share of the score's scale
NEGLIGIBLE_ZETA = 1e-10  # share of the score's scale below which ζ is taken as 0
FIRST_FACE = 1e-5  # interior gap from which on faces are tried
CLOSE = 1e-6  # interior gap that only needs tidying
PATIENCE = 9  # interior steps that may pass close to the optimum without an exact vertex
MOST_EFFECTS_ON_FACE = 4096  # a dense system of 2^n × that many: beyond it the interior point itself is the answer
LARGEST_N_FOR_HIGHS = 11  # its matrices are dense: 0.1 GiB at 11, 2 GiB at 13
MOST_EFFECTS_FOR_HIGHS = 400  # a part with more takes HiGHS seconds: asked only if the gap is not yet CLOSE


@dataclass(frozen=True, eq=False)
class Solution:
    x: Floats  # (n_columns,), feasible
    cost: float  # Σ w |x|
    bound: float  # no feasible x costs less
    stage: str

    @property
    def gap(self) -> float:
        """Relative; 1 where nothing feasible was found."""
        if not np.isfinite(self.cost):
            return 1.0
        return (self.cost - self.bound) / self.cost if self.cost > 0.0 else 0.0


def certified_solution(
    program: LatticeProgram, v: Floats, zeta: float, tolerance: float, check: Callable[[], None]
) -> Solution:
    """The best effects found for a centred v with max|v| in [0.5, 1). Whether the gap will do is the caller's.

    `check` is called at each step and may raise, to stop early.
    """
    search = _Search(program, v, zeta)
    with np.errstate(all="ignore"):  # what is not finite is caught where it is offered
        closest = _follow_interior(search, check)
        if search.gap > EXACT and closest is not None:
            face = face_of(program, closest)
            if 0 < face.n_effects <= MOST_EFFECTS_ON_FACE and face.n_active > 0:
                search.offer(settle_on_face(program, v, search.zeta, face, closest.x), "interior")
            if search.gap > CLOSE:
                search.offer(repaired(program, v, zeta, closest.x), "interior")
            wanted = face.n_effects <= MOST_EFFECTS_FOR_HIGHS or search.gap > CLOSE
            if wanted and program.n <= LARGEST_N_FOR_HIGHS:
                search.offer_found(_part_at(search, closest))
        if search.gap > tolerance and program.n <= LARGEST_N_FOR_HIGHS:
            search.offer_found(solve_whole(program, v, search.zeta))
    return search.solution()


class _Search:
    """The best feasible effects and the best bound met so far for one vector."""

    def __init__(self, program: LatticeProgram, v: Floats, zeta: float) -> None:
        self.program, self.v = program, v
        self.allowed = zeta
        self.zeta = 0.0 if zeta <= NEGLIGIBLE_ZETA else zeta  # the stages solve for this one
        self.x, self.cost, self.stage = np.zeros(program.n_columns), np.inf, "none"
        self.bound = 0.0

    @property
    def gap(self) -> float:
        return (self.cost - self.bound) / self.cost if np.isfinite(self.cost) else 1.0

    def offer(self, x: Floats, stage: str) -> None:
        x = without_dust(self.program, self.v, self.allowed, x, FEASIBLE)
        cost = self.program.cost(x)
        if cost < (1.0 - SAME) * self.cost and self.program.excess(x, self.v, self.allowed) <= FEASIBLE:
            self.x, self.cost, self.stage = x, cost, stage

    def offer_dual(self, u: Floats) -> None:
        self.bound = max(self.bound, self.program.dual_bound(u, self.v, self.allowed))

    def offer_face(self, face: Face, stage: str) -> None:
        found = solve_face(self.program, self.v, self.zeta, face)
        if found is not None:
            self.offer(found[0], stage)
            self.offer_dual(found[1])

    def offer_found(self, found: tuple[Floats, Floats] | None) -> None:
        """HiGHS' answer: made exact on its face, and repaired in case that fails."""
        if found is not None:
            self.offer_dual(found[1])
            self.offer_face(face_of_solution(self.program, self.zeta, *found), "highs")
            if self.gap > EXACT:
                self.offer(repaired(self.program, self.v, self.allowed, found[0]), "highs")

    def solution(self) -> Solution:
        # a bound above the cost is rounding: both are the optimum
        return Solution(self.x, self.cost, min(self.bound, self.cost), self.stage)


def _follow_interior(search: _Search, check: Callable[[], None]) -> Iterate | None:
    """Interior points until a face gives an exact vertex, or they no longer help; the closest of them."""
    tried: Face | None = None
    closest, least, steps_close = None, np.inf, 0
    for point in interior_points(search.program, search.v, search.zeta):
        check()
        search.offer_dual(point.u)
        cost = search.program.cost(point.x)
        gap = abs(cost - search.bound) / cost + point.residual
        if gap < least:
            closest, least = point, gap
        if gap < FIRST_FACE:
            face = face_of(search.program, point)
            if face.n_effects > MOST_EFFECTS_ON_FACE:
                search.offer(point.x, "interior")
                if search.gap <= CLOSE:
                    break
            elif face.n_effects <= face.n_active and not face.same(tried):
                tried = face
                search.offer_face(face, "vertex")
        if search.gap <= EXACT:
            break
        steps_close += gap < CLOSE or least < CLOSE
        if steps_close > PATIENCE:
            break
    return closest


def _part_at(search: _Search, point: Iterate) -> tuple[Floats, Floats] | None:
    """HiGHS from the columns and states that an interior point has not yet ruled out."""
    m, ratio = search.program.n_columns, point.primal / point.dual
    columns = np.maximum(ratio[:m], ratio[m : 2 * m]) > 0.1
    states = np.ones(search.program.n_states, dtype=bool)
    if search.zeta > 0.0:
        states = np.min(ratio[2 * m :].reshape(2, -1), axis=0) < 10.0
    states[0] = False
    return solve_growing(search.program, search.v, search.zeta, columns, states)
