"""The quantities of Eq. (8), (10), (11), (14) for one set of interactions of one probe.

`members` is a boolean (2, 2^n), `effects` the effects that stand for it. A ratio over an empty set
is NaN: undefined is not 0 and not 1.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from engine.analysis.evolution import Sets
from engine.interactions import Floats, Relation, logical_model, orders

NAN = float("nan")


def order_distribution(members: Sets, effects: Floats) -> Floats:
    """Eq. (8): Σ max(I, 0), Σ min(I, 0) and the number of members of each order: (3, n + 1)."""
    n = members.shape[-1].bit_length() - 1
    order = np.broadcast_to(orders(n), members.shape)[members]
    inside = effects[members]
    return np.stack(
        [
            np.bincount(order, weights=np.maximum(inside, 0), minlength=n + 1),
            np.bincount(order, weights=np.minimum(inside, 0), minlength=n + 1),
            np.bincount(order, minlength=n + 1).astype(np.float64),
        ]
    )


def mean_order(members: Sets) -> float:
    """Mean |S| of the members."""
    if not members.any():
        return NAN
    n = members.shape[-1].bit_length() - 1
    return float(np.broadcast_to(orders(n), members.shape)[members].mean())


def strength(members: Sets, effects: Floats) -> float:
    """Σ |I|."""
    return float(np.abs(effects[members]).sum())


def uncancelled_ratio(members: Sets, effects: Floats) -> float:
    """Eq. (10): |Σ I| / Σ |I|, in [0, 1]."""
    total = strength(members, effects)
    return abs(float(effects[members].sum())) / total if total > 0 else NAN


def average_contribution(members: Sets, effects: Floats) -> float:
    """Σ I / count, signed."""
    return float(effects[members].mean()) if members.any() else NAN


def cross_entropy(score: float) -> float:
    """-log sigmoid(score), in nats, without overflow."""
    return float(np.logaddexp(0.0, -score))


def backbone_cross_entropy(members: Sets, effects: Floats, bias: float) -> float:
    """Eq. (11): the loss of predicting the target with these interactions alone, -log sigmoid(Σ I + bias)."""
    return cross_entropy(float(effects[members].sum()) + bias)


def relative(error: Floats, scale: Floats) -> Floats:
    """error / scale; NaN where there is no scale."""
    ratio: Floats = np.divide(error, scale, out=np.full(np.shape(scale), NAN), where=scale > 0)
    return ratio


def mismatch(scores: Floats, effects: Floats, members: Sets | None = None) -> Floats:
    """v(x_T) - h(x_T) at every masked state, h of the members only where given: (..., 2^n).

    scores: (..., 2^n); effects and members: (..., 2, 2^n), the axis of length 2 by Relation.
    """
    kept = effects if members is None else np.where(members, effects, 0.0)
    difference: Floats = scores - logical_model(scores[..., 0], kept[..., Relation.AND, :], kept[..., Relation.OR, :])
    return difference


def matching_errors(
    scores: Floats, effects: Floats, members: Sets | None = None, *, scale: Literal["gap", "range"] = "gap"
) -> Floats:
    """Eq. (14): |v - h| / scale at every masked state: (..., 2^n).

    Shapes as for `mismatch`. scale: `gap` is |v(x_N) - v(x_∅)|, `range` is max v - min v; NaN where it is 0.
    """
    size = np.abs(scores[..., -1] - scores[..., 0]) if scale == "gap" else np.ptp(scores, axis=-1)
    error = np.abs(mismatch(scores, effects, members))
    return relative(error, np.broadcast_to(np.asarray(size)[..., None], error.shape))


def matching_error(scores: Floats, effects: Floats, members: Sets | None = None) -> Floats:
    """The mean of `matching_errors` over all masked states: (...)."""
    mean: Floats = matching_errors(scores, effects, members).mean(axis=-1)
    return mean


def sparsity_curve(effects: Sequence[Floats], points: int = 200) -> Floats:
    """Strengths in descending order, each probe's relative to its strongest, pooled over probes: (points,).

    effects: (2, 2^n) a probe. Point i is the strength at the share i / (points - 1) of all 2^(n+1) - 2
    interactions that the probes could have.
    """
    pooled = []
    for part in effects:
        strengths = np.abs(part[:, 1:]).ravel()
        pooled.append(strengths / max(strengths.max(initial=0.0), np.finfo(float).tiny))
    ordered = np.sort(np.concatenate(pooled))[::-1]
    curve: Floats = ordered[np.linspace(0, ordered.size - 1, points).round().astype(int)]
    return curve
