"""A first-order method for score vectors so noisy that most masked states bind: any n, no large matrix.

ADMM on (x, r) with D x = r: x is shrunk by its weights, r is kept within v ± ζ, and both are projected onto D x = r,
which `schur_weyl` makes cheap. Its points are near the optimum, not at a vertex of it, so the gap is the tolerance's.
"""

from collections.abc import Callable

import numpy as np

from sftscope.decomposition.exact.incumbent import Search
from sftscope.decomposition.exact.lattice_program import LatticeProgram
from sftscope.decomposition.exact.program import Ints
from sftscope.decomposition.exact.schur_weyl_inverse import normal_inverse
from sftscope.decomposition.exact.vertex import repaired
from sftscope.lattice.transforms import Floats

PENALTY = 20.0  # of leaving D x = r, for scores of scale 1
RELAXATION = 1.6
RIDGE = 0.5  # 1 / weight of r against x in the projection
FIRST_LOOK, LOOKS_APART = 100, 1.3  # steps before points are priced, and their growth from look to look
MOST_STEPS = 20_000


class Splitting:
    """The method on one `search` (of the whole program, ζ > 0)."""

    def __init__(self, search: Search[LatticeProgram]) -> None:
        self.search, self.inverse = search, normal_inverse(search.program.n)
        program, v, zeta = search.program, search.v, search.zeta
        self.x, self.x_dual = np.zeros((2, program.n_columns))
        self.r, self.r_dual = np.clip(0.0, v - zeta, v + zeta), np.zeros(program.n_states)
        self.on_graph = self.x  # D x = r holds, the bounds of r do not
        self.penalty = PENALTY / float(np.max(np.abs(v)))
        self.steps = 0

    def advance(self, steps: int) -> Floats:
        """Take `steps` more; the mean of their dual points, the sharper bound for swinging less."""
        program, v, zeta = self.search.program, self.search.v, self.search.zeta
        total = np.zeros(program.n_states)
        for _ in range(steps):
            a, c = self.x - self.x_dual, self.r - self.r_dual
            u = self.inverse.solve(program.model(a) - c, RIDGE)
            self.on_graph = a - program.prices(u)
            aim = RELAXATION * self.on_graph + (1 - RELAXATION) * self.x + self.x_dual
            self.x = np.sign(aim) * np.maximum(np.abs(aim) - program.weights / self.penalty, 0.0)
            self.x_dual = aim - self.x
            aim = RELAXATION * (c + RIDGE * u) + (1 - RELAXATION) * self.r + self.r_dual
            self.r = np.clip(aim, v - zeta, v + zeta)
            self.r_dual = aim - self.r
            total += self.r_dual
        self.steps += steps
        return -self.penalty / RIDGE / steps * total

    def binding_states(self, share: float) -> Ints:
        """The fewest masked states, without x_∅, that carry `share` of what the bounds push back at present."""
        push = np.abs(self.r_dual)
        push[0] = 0.0
        by_push = np.argsort(-push, kind="stable")
        carried = np.cumsum(push[by_push])
        return np.sort(by_push[: int(np.searchsorted(carried, share * carried[-1])) + 1])

    def solve(self, tolerance: float, check: Callable[[], None]) -> None:
        """Offer ever better points until the gap is below `tolerance`, or MOST_STEPS are taken."""
        while self.search.gap > tolerance and self.steps < MOST_STEPS:
            check()
            mean = self.advance(max(FIRST_LOOK, int((LOOKS_APART - 1) * self.steps)))
            self.search.offer_dual(mean)
            self.search.offer_dual(-self.penalty / RIDGE * self.r_dual)
            self.search.offer(
                repaired(self.search.program, self.search.v, self.search.zeta, self.on_graph), "splitting"
            )
