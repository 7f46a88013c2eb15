"""The best effects and the best bound met so far for one score vector, and the interior points that lead to them.

Whatever a stage offers is priced and checked here, by the butterflies, so no stage is trusted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from sftscope.decomposition.interior_point import Iterate, interior_points
from sftscope.decomposition.program import Program
from sftscope.decomposition.vertex import Face, face_of, settle_on_face, solve_face, without_dust, without_tiny
from sftscope.interactions import Floats

EXACT = 1e-8  # the gap at which a vertex is taken as the optimum
SAME = 1e-10  # costs this close differ by rounding: the earlier, cleaner stage is kept
FEASIBLE = 2e-10  # matching error beyond ζ, as a share of the score's scale
NEGLIGIBLE_ZETA = 1e-10  # share of the score's scale below which ζ is taken as 0
FIRST_FACE = 1e-5  # interior gap from which on faces are tried
CLOSE = 1e-6  # interior gap that only needs tidying
PATIENCE = 9  # interior steps that may pass close to the optimum without an exact vertex
MOST_EFFECTS_ON_FACE = 8192  # a dense system of the binding states × that many; beyond it the interior point will do


@dataclass(frozen=True, eq=False)
class Solution:
    x: Floats  # (n_columns,), feasible; to ζ (1 + TINY_SHARE) where tiny effects were left out
    cost: float  # Σ w |x|, of those left out too
    bound: float  # no feasible x costs less
    stage: str

    @property
    def gap(self) -> float:
        """Relative; 1 where nothing feasible was found."""
        if not np.isfinite(self.cost):
            return 1.0
        return (self.cost - self.bound) / self.cost if self.cost > 0.0 else 0.0


P = TypeVar("P", bound=Program)


class Search(Generic[P]):
    """What is known of one centred, scaled vector v (n_rows,)."""

    def __init__(self, program: P, v: Floats, zeta: float) -> None:
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

    def solution(self) -> Solution:
        """What was found; of more effects than a vertex can have without the tiny ones, at the cost of all of them."""
        x = self.x
        if np.count_nonzero(x) > self.program.n_rows:
            x = without_tiny(self.program, self.v, self.allowed, x)
        # a bound above the cost is rounding: both are the optimum
        return Solution(x, self.cost, min(self.bound, self.cost), self.stage)


def roughly(search: Search[Any], aim: float, check: Callable[[], None]) -> Floats | None:
    """Effects of the first interior point whose gap is below `aim`, or of the closest one; its dual is offered."""
    closest, least = None, np.inf
    for point, gap in _priced(search, check):
        if gap < least:
            closest, least = point, gap
        if gap < aim:
            break
    return None if closest is None else closest.x


def settled(search: Search[Any], check: Callable[[], None]) -> Floats | None:
    """The best effects that interior points and their faces lead to, exact where a vertex is."""
    closest = settled_point(search, check)
    if np.isfinite(search.cost):
        return search.x
    return None if closest is None else closest.x


def settled_point(search: Search[Any], check: Callable[[], None]) -> Iterate | None:
    """The closest interior point; a vertex beside it is offered, or effects that its face allows."""
    closest = exactly(search, check)
    if search.gap > EXACT and closest is not None:
        face = face_of(search.program, closest)
        if 0 < face.n_effects <= MOST_EFFECTS_ON_FACE and face.n_active > 0:
            search.offer(settle_on_face(search.program, search.v, search.zeta, face, closest.x), "interior")
    return closest


def exactly(search: Search[Any], check: Callable[[], None]) -> Iterate | None:
    """Interior points until a face gives an exact vertex, or they no longer help; the closest of them."""
    tried: Face | None = None
    closest, least, steps_close = None, np.inf, 0
    for point, gap in _priced(search, check):
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


def _priced(search: Search[Any], check: Callable[[], None]) -> Iterator[tuple[Iterate, float]]:
    """Interior points, each with its gap to the best bound so far; `check` may raise, to stop early."""
    for point in interior_points(search.program, search.v, search.zeta):
        check()
        search.offer_dual(point.u)
        cost = search.program.cost(point.x)
        yield point, abs(cost - search.bound) / cost + point.residual
