"""The program over some masked states, which grow until all the others hold as well.

At the optimum most masked states have room to their noise bound ζ. The program over those that have none has the
same optimum, and a normal matrix of hundreds or thousands of rows instead of 2^n: 16 variables of an LLM need
some 4,000 of their 65,536. A dual point of the part, 0 elsewhere, is one of the whole, so its bound holds for both.
"""

from collections.abc import Callable

import numpy as np

from sftscope.decomposition.exact.incumbent import Search, roughly, settled
from sftscope.decomposition.exact.lattice_program import LatticeProgram
from sftscope.decomposition.exact.program import Ints
from sftscope.decomposition.exact.vertex import repaired
from sftscope.lattice.transforms import Floats

MOST_ROWS = 11_585  # a normal matrix of 1 GiB
MOST_ROWS_FOR_A_VERTEX = 6000  # with more of them minutes go into the last digits of a gap that is small enough
MOST_ROUNDS = 40
AIMS = (5e-2, 1e-3, 1e-5, 0.0)  # gap of a round: its states must be right before its effects need be; 0: a vertex
NEAR = 1e-5  # an aim from which on points are worth repairing
FEW = 0.03  # new states, as a share of those there are, from which on the next aim is taken
GROWTH, LEAST_GROWTH = 0.5, 1 / 64  # most new states at a time, as shares of those there are and of all
# shares of ζ
ROOM = 0.8  # an error below leaves a state out of the next round, until the last aim
CLOSE_BY = 0.1  # at the last aim states come in that are as near to the bound as the worst is beyond it, up to this


def solve_by_growing(search: Search[LatticeProgram], rows: Ints, enough: float, check: Callable[[], None]) -> bool:
    """Offer `search` (of the whole program, ζ > 0) the optimum; False where too many states bind for that.

    rows: the masked states to begin with, without x_∅. They save time and leave the optimum as it is. enough: the gap
    that will do where no vertex is found, or finding one would take too long.
    """
    program, level = search.program, 0
    kept, left = np.zeros((2, program.n_states), dtype=bool)
    for _ in range(MOST_ROUNDS):
        if len(rows) > MOST_ROWS:
            return False
        part, aim = Search(program.on(rows), search.v[rows], search.zeta), AIMS[level]
        point = roughly(part, aim, check) if aim else settled(part, check)
        search.bound = max(search.bound, part.bound)
        if point is None:
            return False
        if not aim:
            search.offer(point, part.stage if np.isfinite(part.cost) else "interior")
            if np.isfinite(search.cost):
                return True
        error = np.abs(program.model(point) - search.v)
        roomy = rows[(error[rows] <= ROOM * search.zeta) & ~kept[rows]] if aim else rows[:0]
        there = np.setdiff1d(rows, roomy, assume_unique=True)
        new = _worst(error, there, search.zeta, far=aim > 0.0)
        too_costly = aim <= NEAR and len(rows) > MOST_ROWS_FOR_A_VERTEX
        if too_costly or not (aim or len(new)):  # or a face of ties that rounding leaves open
            search.offer(repaired(program, search.v, search.zeta, point), "interior")
            if search.gap <= enough or (not aim and not len(new)):
                return search.gap <= enough
        left[roomy] = True
        kept[new] |= left[new]  # a state that comes back stays, so that no round is repeated
        if len(new) < FEW * len(rows):
            level = min(level + 1, AIMS.index(NEAR if len(rows) > MOST_ROWS_FOR_A_VERTEX else 0.0))
        rows = np.union1d(there, new)
    return False


def _worst(error: Floats, there: Ints, zeta: float, *, far: bool) -> Ints:
    """The states beyond ζ that are not there yet, the worst of them if they are many; near the end the nearby too."""
    nearby = 0.0 if far else min(max(float(error.max()) - zeta, 0.0), CLOSE_BY * zeta)
    new = np.setdiff1d(np.flatnonzero(error > zeta - nearby), there, assume_unique=True)
    most = int(max(GROWTH * len(there), LEAST_GROWTH * len(error)))
    return new if len(new) <= most else new[np.argpartition(-error[new], most)[:most]]
