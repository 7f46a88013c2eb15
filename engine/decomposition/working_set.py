"""The program over some masked states, which grow until all the others hold as well.

At the optimum most masked states have room to their noise bound ζ. The program over those that have none has the
same optimum, and a normal matrix of hundreds or thousands of rows instead of 2^n: 16 variables of an LLM need
some 4,000 of their 65,536. A dual point of the part, 0 elsewhere, is one of the whole, so its bound holds for both.
"""

from collections.abc import Callable

import numpy as np

from engine.decomposition.lattice_program import Ints
from engine.decomposition.search import CLOSE, FEASIBLE, Search, roughly, settled
from engine.decomposition.vertex import repaired

MOST_ROWS = 11_585  # a normal matrix of 1 GiB
MOST_ROUNDS = 40
AIMS = (5e-2, 1e-3, 1e-5, 0.0)  # gap of a round: its states must be right before its effects need be; 0: a vertex
FEW = 0.03  # new states, as a share of those there are, from which on the next aim is taken
GROWTH, LEAST_GROWTH = 0.5, 1 / 64  # most new states at a time, as shares of those there are and of all
# shares of ζ
ROOM = 0.8  # an error below leaves a state out of the next round, until the last aim
CLOSE_BY = 0.1  # at the last aim states come in that are as near to the bound as the worst is beyond it, up to this


def solve_by_growing(search: Search, rows: Ints, check: Callable[[], None]) -> bool:
    """Offer `search` (of the whole program, ζ > 0) the optimum; False where too many states bind for that.

    rows: the masked states to begin with, without x_∅. They save time and leave the optimum as it is.
    """
    program, zeta = search.program, search.zeta
    kept, left = np.zeros((2, program.n_states), dtype=bool)
    level = 0
    for _ in range(MOST_ROUNDS):
        if len(rows) > MOST_ROWS:
            return False
        part = Search(program.on(rows), search.v[rows], zeta)
        point = roughly(part, AIMS[level], check) if AIMS[level] else settled(part, check)
        search.bound = max(search.bound, part.bound)
        if point is None:
            return False
        error = np.abs(program.model(point) - search.v)
        worst = float(error.max()) - zeta
        if worst <= FEASIBLE and not AIMS[level]:
            search.offer(point, part.stage if np.isfinite(part.cost) else "interior")
            return True
        if AIMS[level]:
            new = np.flatnonzero(error > zeta)
            there = rows[kept[rows] | (error[rows] > ROOM * zeta)]
            left[np.setdiff1d(rows, there, assume_unique=True)] = True
        else:
            there, new = rows, np.flatnonzero(error > zeta - min(worst, CLOSE_BY * zeta))
        new = np.setdiff1d(new, there, assume_unique=True)
        most = int(max(GROWTH * len(rows), LEAST_GROWTH * program.n_states))
        if len(new) > most:
            new = new[np.argpartition(-error[new], most)[:most]]
        if not len(new) and not AIMS[level]:
            # the part cannot be solved any better: its face is one of ties that rounding leaves open
            search.offer(repaired(program, search.v, search.allowed, point), "interior")
            return search.gap <= CLOSE
        if len(new) < FEW * len(rows):
            level = min(level + 1, len(AIMS) - 1)
        kept[new] |= left[new]  # a state that comes back stays, so that no round is repeated
        rows = np.union1d(there, new)
    return False
