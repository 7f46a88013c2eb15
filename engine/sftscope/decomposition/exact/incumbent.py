"""The best effects and the best bound met so far for one score vector, and the interior points that lead to them.

Whatever a stage offers is priced and checked here, by the butterflies, so no stage is trusted. Universal matching is
established in one place, `Search.offer`: it keeps only effects that match every masked state to ζ, and moves those
inside that miss it by rounding. `Search.solution` returns nothing else, at the cost of exactly what it returns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from sftscope.decomposition.exact.interior_point import Iterate, interior_points
from sftscope.decomposition.exact.program import Program
from sftscope.decomposition.exact.vertex import (
    DUST,
    Face,
    face_of,
    moved_inside,
    put_inside,
    settle_on_face,
    solve_face,
    without_tiny,
)
from sftscope.lattice.transforms import Floats

EXACT = 1e-8  # the gap at which a vertex is taken as the optimum
SAME = 1e-10  # costs this close differ by rounding: the earlier, cleaner stage is kept
NEARLY = 2e-10  # matching error beyond ζ, as a share of the score's scale, up to which effects are moved inside
SLACK = 5e-10  # of ζ: error beyond ζ that is accepted; the promise is 1e-9, half is left to sums in another order
NEGLIGIBLE_ZETA = 1e-10  # share of the score's scale below which ζ is taken as 0, and errors of NEARLY are accepted
ROUNDED = 1e-13  # of the score's scale: how far beyond ζ rounding leaves the active states of a usual vertex
TINY_SHARES = (1e-3, 1e-4, 1e-5)  # of ζ, tried in turn: what the tiny effects may add up to at a masked state
WORSE = 1.1  # how much the gap may grow by leaving out tiny effects, or up to CLOSE
FIRST_FACE = 1e-5  # interior gap from which on faces are tried
CLOSE = 1e-6  # interior gap that only needs tidying
PATIENCE = 9  # interior steps that may pass close to the optimum without an exact vertex
MOST_EFFECTS_ON_FACE = 8192  # a dense system of the binding states × that many; beyond it the interior point will do


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


def without_dust(x: Floats) -> Floats:
    """x with what may be rounding set to 0."""
    return np.where(np.abs(x) <= DUST, 0.0, x)


def slack_of(zeta: float) -> float:
    """The error beyond ζ that is accepted, for scores of scale 1."""
    return NEARLY if zeta <= NEGLIGIBLE_ZETA else SLACK * zeta


P = TypeVar("P", bound=Program)


class Search(Generic[P]):
    """What is known of one centred, scaled vector v (n_rows,)."""

    def __init__(self, program: P, v: Floats, zeta: float) -> None:
        self.program, self.v = program, v
        self.allowed, self.slack = zeta, slack_of(zeta)
        self.zeta = zeta  # the stages solve for this one
        if zeta <= NEGLIGIBLE_ZETA:
            self.zeta = 0.0
        elif self.slack < ROUNDED:  # active states of a vertex for ζ itself would be beyond it
            self.zeta = zeta - ROUNDED
        self.x, self.cost, self.stage = np.zeros(program.n_columns), np.inf, "none"
        self.bound = 0.0

    @property
    def gap(self) -> float:
        return (self.cost - self.bound) / self.cost if np.isfinite(self.cost) else 1.0

    def offer(self, x: Floats, stage: str) -> None:
        """Keep x if it is the cheapest so far and matches every state; one that nearly does is moved inside first."""
        if not self._is_cheaper(without_dust(x)):
            return
        found = self._matching(x)
        if found is not None and self._is_cheaper(found):
            self.x, self.cost, self.stage = found, self.program.cost(found), stage

    def _is_cheaper(self, x: Floats) -> bool:
        return self.program.cost(x) < (1.0 - SAME) * self.cost

    def _matches(self, x: Floats) -> bool:
        return self.program.excess(x, self.v, self.allowed) <= self.slack

    def _matching(self, x: Floats) -> Floats | None:
        """x within ζ + slack, preferably without dust, moved if need be; None if it misses ζ by more than NEARLY."""
        problem, clean = (self.program, self.v, self.allowed), without_dust(x)
        excess = self.program.excess(clean, self.v, self.allowed)
        if excess <= self.slack:
            return clean
        if excess <= NEARLY and np.count_nonzero(clean) <= self.program.n_rows:
            moved = moved_inside(*problem, clean, self.slack)
            if moved is not None:
                return moved
        if self.program.excess(x, self.v, self.allowed) > NEARLY:
            return None
        for candidate in (x, put_inside(*problem, x)):
            if self._matches(candidate):
                return candidate
        return None

    def offer_dual(self, u: Floats) -> None:
        self.bound = max(self.bound, self.program.dual_bound(u, self.v, self.allowed))

    def offer_face(self, face: Face, stage: str) -> None:
        found = solve_face(self.program, self.v, self.zeta, face)
        if found is not None:
            self.offer(found[0], stage)
            self.offer_dual(found[1])

    def solution(self, tolerance: float) -> Solution:
        """The best effects offered. If there are more than a vertex can have, they go without the tiny ones.

        tolerance: the largest gap that leaving them out may lead to.
        """
        x = self.x
        if np.count_nonzero(x) > self.program.n_rows:
            x = self._without_tiny(tolerance)
        cost = self.program.cost(x) if np.isfinite(self.cost) else self.cost
        # a bound above the cost is rounding: both are the optimum
        return Solution(x, cost, min(self.bound, cost), self.stage)

    def _without_tiny(self, tolerance: float) -> Floats:
        """The best effects without the tiny ones, the others moved so that every state is still within ζ."""
        problem = self.program, self.v, self.allowed
        most = min(tolerance, max(WORSE * self.gap, CLOSE))
        for share in TINY_SHARES:
            x = without_tiny(*problem, self.x, share * self.allowed + self.slack)
            moved = moved_inside(*problem, x, self.slack, patience=0)
            if moved is not None and self.program.cost(moved) * (1.0 - most) <= self.bound:
                return moved
        return self.x


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
    """The closest interior point; a vertex next to it is offered, or effects that its face allows."""
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
