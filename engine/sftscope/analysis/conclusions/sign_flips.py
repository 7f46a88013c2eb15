"""Whether a mean over few probes lies on one side of 0: a test that keeps its level whatever their number.

Two tests have to agree, and the larger p-value counts. (1) Where nothing is there, each probe's value could as well
have had the other sign: the share of all sign patterns whose sum is at least as far from 0 as the one seen (Fisher's
test of paired differences). It is exact for values that are symmetric around 0, normal or not, of one size or not; of
skewed ones it says "clear" too often, and dividing by a standard error changes nothing, as that has the same order over
the patterns. (2) The mean over its standard error, compared with that of resampled probes from which the mean was taken
(bootstrap-t), knows of skewness, and of few heavy-tailed values says "clear" too often. A plain bootstrap of the mean
over three probes says so in one of four cases where nothing is there. Six probes are the fewest of which any outcome is
clear at 5 % (2 of 64 patterns).

Where nothing is there, "clear" is said in .02 to .06 of normal values, of Student's t with 3 degrees of freedom and of
log-normal ones with σ ½, for 6 to 400 probes; of log-normal ones with σ 1, in .09 for 6 to 16 probes, .08 for 20, .05
from 100 on. Sign flips alone said it there in .11 to .15 (`tests/benchmarks/bench_signs.py`).
"""

from functools import lru_cache

import numpy as np

from sftscope.lattice.transforms import Floats

LEVEL = 0.05  # of both sides together
MIN_PROBES = 6
_MOST_EXACT = 16  # probes of which all sign patterns are tried, 65,536
_DRAWN = 4095  # sign patterns of more
_RESAMPLED = 1999  # choices of probes with replacement
_ROUNDING = 1e-9  # sums that differ by less are equal


def clear_sign(values: Floats) -> int:
    """The sign of the mean of values (P,), one a probe, where it is clear at `LEVEL`; 0 elsewhere."""
    return int(np.sign(values.sum())) if p_value(values) <= LEVEL else 0


def p_value(values: Floats) -> float:
    """How likely the mean of values (P,) would be as far from 0 if nothing were there; 1 for too few probes."""
    if values.size < MIN_PROBES:
        return 1.0
    return max(sign_flip_p_value(values), resampled_p_value(values))


def sign_flip_p_value(values: Floats) -> float:
    """How likely it would be if signs were random."""
    sums = np.abs(_patterns(values.size) @ values)
    return float(np.mean(sums >= abs(values.sum()) - _ROUNDING * np.abs(values).sum()))


def resampled_p_value(values: Floats) -> float:
    """How likely it would be for probes drawn from these values less their mean; twice the smaller side."""
    count, mean = values.size, values.mean()
    centred = values - mean
    if np.abs(centred).max() <= _ROUNDING * np.abs(values).max():  # all are equal: 0, or on one side
        return 1.0 / (1 + _RESAMPLED) if mean else 1.0
    times = _choices(count)
    drawn = _over_its_error(times @ centred, times @ centred**2, count)
    seen = float(_over_its_error(values.sum(), (values**2).sum(), count))
    above, below = (drawn >= seen - _ROUNDING).sum(), (drawn <= seen + _ROUNDING).sum()
    return min(1.0, 2.0 * float(1 + min(above, below)) / (1 + _RESAMPLED))


def _over_its_error(total: Floats, squares: Floats, count: int) -> Floats:
    """Mean over standard error; large where the values hardly differ, as of one probe drawn again and again."""
    spread = np.maximum(squares - total**2 / count, _ROUNDING * squares)
    ratio: Floats = total / np.sqrt(np.maximum(spread, np.finfo(float).tiny) * count / (count - 1))
    return ratio


@lru_cache(maxsize=2)
def _patterns(probes: int) -> Floats:
    """Signs of the probes, the one without a flip first: (patterns, P)."""
    if probes <= _MOST_EXACT:
        flipped = (np.arange(1 << probes)[:, None] >> np.arange(probes)) & 1
    else:
        flipped = np.random.default_rng(0).integers(0, 2, (1 + _DRAWN, probes))
        flipped[0] = 0
    signs: Floats = 1.0 - 2.0 * flipped.astype(np.float64)
    return signs


@lru_cache(maxsize=2)
def _choices(probes: int) -> Floats:
    """How often each probe is in a resample: (resamples, P)."""
    equal = np.full(probes, 1 / probes)
    return np.random.default_rng(0).multinomial(probes, equal, size=_RESAMPLED).astype(np.float64)
