"""What numerical noise alone can make of an effect: the floor below which an interaction is not counted.

σ is the root mean square change of v(x_T) when masked states are scored again in another batch
layout. With independent errors of size σ in every v(x_T), a Möbius value is a signed sum of 2^|S| of
them, so

    I(S) = Σ_{T ⊆ S} (-1)^{|S|-|T|} v(x_T)   has   Var I(S) = 2^|S| σ²:

noise is sign-symmetric and grows with the order. σ is measured as the difference of two layouts, √2
times the error of one, so it is also the error of a difference between two steps.

The sparse program is not a Möbius transform. It shares v between AND and OR, and forgives errors up
to ζ: an error at a masked state whose bound is not active changes nothing. Perturbing the scores of
the sample run (n = 8, ζ ≈ 0.02) by normal noise moved its non-zero effects so:

    σ = 10⁻⁵ (32-bit forwards)     5 σ in the median, 20-45 σ at 99 %, whatever the order
    σ = 10⁻² and 3·10⁻² (16-bit)   1 σ in the median, 2-8 σ at 99 %, whatever the order

So with 16-bit forwards, where the floor exceeds τ, it is on the safe side from order 2 on. With
32-bit forwards it is too low at low orders, where both are far below any τ. What it cannot catch is an
interaction that noise carries over τ because it lies close to it: that is what the placebo counts.
"""

import numpy as np
from numpy.typing import NDArray

from sftscope.lattice.transforms import Floats

FLOOR = 3.0  # k: a Möbius value of normal noise exceeds k σ 2^(|S|/2) in 0.27 % of all cases


def largest_noise(noise: Floats) -> float:
    """The σ that a probe's floor is made of: its largest over the measured steps, 0 where none was measured.

    noise: (T,), NaN where it was not measured. One σ for all steps, for the reason that τ is fixed: a
    floor that moves would remove interactions that did not change.
    """
    measured = noise[np.isfinite(noise)]
    return float(measured.max()) if measured.size else 0.0


def noise_floor(noise: Floats, order: NDArray[np.int64]) -> Floats:
    """k σ 2^(|S|/2) of subsets of these orders |S|, in log-odds; 0 where no noise was measured."""
    floor: Floats = FLOOR * largest_noise(noise) * 2.0 ** (order / 2)
    return floor
