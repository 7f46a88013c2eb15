"""The quantities of Eq. (8), (10), (11), (14) for one set of interactions of one probe.

`members` is a boolean (2, 2^n), `effects` the effects that stand for it. A ratio over an empty set
is NaN: undefined is not 0 and not 1.
"""

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


def mismatch(scores: Floats, effects: Floats, members: Sets | None = None) -> Floats:
    """v(x_T) - h(x_T) at every masked state, h of the members only where given: (..., 2^n).

    scores: (..., 2^n); effects and members: (..., 2, 2^n), the axis of length 2 by Relation.
    """
    kept = effects if members is None else np.where(members, effects, 0.0)
    difference: Floats = scores - logical_model(scores[..., 0], kept[..., Relation.AND, :], kept[..., Relation.OR, :])
    return difference


def matching_errors(scores: Floats, effects: Floats, members: Sets | None = None) -> Floats:
    """Eq. (14): mean over all masked states of |v - h| / |v(x_N) - v(x_∅)|: (...).

    Shapes as for `mismatch`. NaN where the whole prompt scores as the empty one: there is no scale.
    """
    scale = np.abs(scores[..., -1] - scores[..., 0])
    error = np.abs(mismatch(scores, effects, members)).mean(axis=-1)
    ratio: Floats = np.divide(error, scale, out=np.full(np.shape(scale), NAN), where=scale > 0)
    return ratio


def matching_error(scores: Floats, effects: Floats, members: Sets | None = None) -> float:
    """`matching_errors` of one probe at one step: scores (2^n,), effects and members (2, 2^n)."""
    return float(matching_errors(scores, effects, members))
