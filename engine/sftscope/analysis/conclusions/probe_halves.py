"""A statement about two stages, tested on probes that did not choose where one ends and the other begins.

That many interactions emerge after the step with the fewest is true by construction where the same probes say which
step that is. So the probes are split in halves, some times: the mean of log N_eff over one half finds the sparsest
step, the other half tests. Draws share probes, so the number of draws in which a statement holds is no p-value.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.conclusions.sign_flips import MIN_PROBES, clear_sign
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.soft.effective import effective_numbers
from sftscope.lattice.transforms import Floats

DRAWS = 20
MOST = 0.9  # of the draws, which a statement has to hold in
PerProbe = Callable[[int], Floats]  # at a step index, a number for each probe (P,) that should be positive


@dataclass(frozen=True)
class Halves:
    """In how many of the draws the statement clearly holds, and in how many it is clearly the other way round."""

    draws: int
    holds: int
    reversed: int

    @property
    def sign(self) -> int:
        """1 where it holds in most draws, -1 where it is the other way round in most, else 0."""
        return int(self.holds >= MOST * self.draws > 0) - int(self.reversed >= MOST * self.draws > 0)


def sparsest_step(numbers: Floats, base: int = 0) -> int:
    """The step index, from `base` on, at which the mean over probes of log N_eff (P, T) is smallest."""
    # a step without any effect has fewer than one with a single effect
    logs = np.log(np.where(np.isnan(numbers), 0.5, numbers))
    return base + int(logs[:, base:].mean(axis=0).argmin())


def halves_that_hold(evolution: Evolution, base: int, statement: PerProbe) -> Halves | None:
    """Find the sparsest step by one half of the probes and test by the other; None for too few probes."""
    numbers = effective_numbers(evolution.history)
    probes = len(numbers)
    if probes < 2 * MIN_PROBES:
        return None
    tested: dict[int, Floats] = {}
    signs = []
    for finds, tests in _splits(probes):
        step = sparsest_step(numbers[finds], base)
        if step not in tested:
            tested[step] = statement(step)
        values = tested[step][tests]
        signs.append(clear_sign(values[np.isfinite(values)]))
    return Halves(DRAWS, signs.count(1), signs.count(-1))


def _splits(probes: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Seeded draws of two halves of the probes; of an odd number the one that finds has one less."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(probes) for _ in range(DRAWS)]
    return [(order[: probes // 2], order[probes // 2 :]) for order in orders]
