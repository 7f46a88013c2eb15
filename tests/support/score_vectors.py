"""Scores like those of an LLM, and independent oracles for their decomposition."""

import numpy as np
from scipy.optimize import linprog

from sftscope.decomposition.exact.lattice_program import effect_weights
from sftscope.lattice.transforms import logical_model, or_model, orders, zeta_transform


def mixture(n, rng, noise=0.1):
    """Like an LLM's scores: strong single words, some AND and OR effects, and noise at every order."""
    and_effects, or_effects = np.zeros((2, 1 << n))
    and_effects[1 << np.arange(n)] = 1.5 * rng.normal(size=n)
    higher = np.flatnonzero(orders(n) > 1)
    for _ in range(3 * n if len(higher) else 0):
        effects = and_effects if rng.random() < 0.6 else or_effects
        effects[rng.choice(higher)] += rng.normal() * rng.choice([0.2, 0.5, 1.0])
    return 1.0 + zeta_transform(and_effects) + or_model(or_effects) + noise * rng.normal(size=1 << n)


def score_vector(n, seed, kind="mixture"):
    rng = np.random.default_rng([n, seed])
    return mixture(n, rng) if kind == "mixture" else rng.normal(size=1 << n)


def noise_bound(scores):
    """A ζ as runs have it: 2 % of |v(x_N) - v(x_∅)|, not less than a tenth of the range: (B,)."""
    scores = np.atleast_2d(scores)
    return 0.02 * np.maximum(np.abs(scores[:, -1] - scores[:, 0]), 0.1 * np.ptp(scores, axis=1))


def scale_of(scores):
    return np.max(np.abs(scores - scores[..., :1]))


def all_effects(result):
    return np.stack([result.and_effects, result.or_effects], axis=1)


def matching_error(scores, result):
    return np.abs(logical_model(result.bias, result.and_effects, result.or_effects) - scores)


def optimum_by_highs(scores, zeta, weights=None):
    """The program of the method with dense matrices: (least cost, dual point, effects (2, 2^n - 1))."""
    n = len(scores).bit_length() - 1
    subsets = np.arange(1 << n)
    shared = subsets[:, None] & subsets
    d = np.hstack([(shared == subsets)[:, 1:], (shared != 0)[:, 1:]]).astype(float)
    weights = (effect_weights(n) if weights is None else weights)[:, 1:].ravel()
    v = scores - scores[0]
    result = linprog(
        np.concatenate([weights, weights]),
        A_ub=np.block([[d, -d], [-d, d]]),
        b_ub=np.concatenate([v + zeta, zeta - v]),
        method="highs",
    )
    upper, lower = result.ineqlin.marginals.reshape(2, -1)
    return result.fun, upper - lower, (result.x[: len(weights)] - result.x[len(weights) :]).reshape(2, -1)
