"""Numbered decomposition problems of every kind, and how far a result is from what it must match."""

import numpy as np
from threadpoolctl import threadpool_info

from score_vectors import mixture, noise_bound, scale_of
from sftscope.decomposition import decompose
from sftscope.lattice.transforms import logical_model

NOISES = (0.0, 0.02, 0.1, None)  # of a mixture; None: nothing but noise
ZETA_SHARES = (None, 1e-3, 0.02, 0.5)  # of the scores' scale; None: ζ as runs have it
PROMISE = 1e-9  # of ζ


def problem(n, number):
    """Scores (2^n,) and ζ of the vector `number`; 16 in a row are all kinds there are."""
    rng = np.random.default_rng([n, number, 500])
    noise, share = NOISES[number % 4], ZETA_SHARES[number // 4 % 4]
    scores = rng.normal(size=1 << n) if noise is None else mixture(n, rng, noise)
    return scores, float(noise_bound(scores)[0]) if share is None else share * float(scale_of(scores))


def beyond(scores, zeta, result):
    """The largest |h − v| / ζ − 1 of all masked states, of centred scores."""
    model = logical_model(np.zeros(1), result.and_effects, result.or_effects)[0]
    return float(np.abs(model - (scores - scores[0])).max()) / zeta - 1.0


def worst_of(problems):
    """Decomposes each of (scores, ζ): what there is to promise, as plain values."""
    results = [decompose(*each) for each in problems]
    return {
        "beyond": max(beyond(*each, result) for each, result in zip(problems, results, strict=True)),
        "gap": max(float(result.gap[0]) for result in results),
        "solver": [result.solver[0] for result in results],
    }


def kernels():
    """What the BLAS of numpy and that of scipy are built for, once each."""
    return sorted({each["architecture"] for each in threadpool_info() if each["internal_api"] == "openblas"})
