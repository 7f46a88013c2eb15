"""Counts of encoded interactions with a known turning point, for the test and the benchmark of the boundary.

Sizes and noise are those of the sample run and of the trial in the method's notes: some 30 interactions
a probe that fall to half and then grow past the start; probes differ in size and in how much they
follow; each count has 12 % noise of its own besides Poisson's, and every checkpoint 4 % in common.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Kind(StrEnum):
    """What the counts do; only `TWO` has a turning point."""

    TWO = "two stages"
    FALL = "fall, then stay"
    RISE = "stay, then rise"
    FLAT = "stay"


def simulate(
    rng: np.random.Generator, kind: Kind, *, probes: int = 16, steps: int = 14, curved: bool = False
) -> tuple[NDArray[np.int64], int]:
    """Counts (P, T) and the index of the turning point, anywhere from the 4th to the 5th but last checkpoint.

    curved: the fall is exponential, so that the curve is flat before it turns, instead of straight.
    """
    turn = int(rng.integers(3, steps - 4))
    place = np.arange(steps)
    done = np.clip(place / turn, 0, 1)
    fall = (np.exp(-2 * done) - 1) / (1 - np.exp(-2)) if curved else -done
    rise = np.clip((place - turn) / (steps - 1 - turn), 0, 1)
    level = 1 + 0.5 * fall * (kind in (Kind.TWO, Kind.FALL)) + 0.6 * rise * (kind in (Kind.TWO, Kind.RISE))
    size = rng.lognormal(np.log(30), 0.4, probes)[:, None]
    follow = np.clip(rng.normal(1, 0.25, probes), 0.2, None)[:, None]
    own, common = 1 + 0.12 * rng.normal(size=(probes, steps)), 1 + 0.04 * rng.normal(size=steps)
    expected = size * np.clip(1 + (level - 1) * follow, 0.05, None) * own * common
    return rng.poisson(np.clip(expected, 0, None)), turn
