"""Whether a mean over few probes lies on one side of 0: a test that keeps its level whatever their number.

Where nothing is there, each probe's value could as well have had the other sign. The p-value is the share of all sign
patterns whose sum is at least as far from 0 as the one seen (Fisher's test of paired differences). It is exact for
values that are symmetric around 0, normal or not, of one size or not (simulated: .03 of 6 probes, .05 of 8, 16 and
24); of strongly skewed ones, log-normal with σ = 1, it says "clear" in up to .15. A bootstrap over three probes says so
in one of four cases where nothing is there. Six probes are the fewest of which any outcome is clear at 5 % (2 of 64
patterns).
"""

from functools import lru_cache

import numpy as np

from sftscope.lattice.transforms import Floats

LEVEL = 0.05  # of both sides together
MIN_PROBES = 6
_MOST_EXACT = 16  # probes of which all sign patterns are tried, 65,536
_DRAWN = 4095  # sign patterns of more
_ROUNDING = 1e-9  # sums that differ by less are equal


def clear_sign(values: Floats) -> int:
    """The sign of the mean of values (P,), one a probe, where it is clear at `LEVEL`; 0 elsewhere."""
    return int(np.sign(values.sum())) if p_value(values) <= LEVEL else 0


def p_value(values: Floats) -> float:
    """How likely the mean of values (P,) would be as far from 0 if signs were random; 1 for too few probes."""
    if values.size < MIN_PROBES:
        return 1.0
    sums = np.abs(_patterns(values.size) @ values)
    return float(np.mean(sums >= abs(values.sum()) - _ROUNDING * np.abs(values).sum()))


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
