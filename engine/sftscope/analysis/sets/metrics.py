"""The quantities of Eq. (8) and (14) for one set of interactions of one probe, and the loss of a score.

`members` is a boolean (2, K) over K subsets, `effects` the effects that stand for it. A ratio over an empty set
is NaN: undefined is not 0 and not 1.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.sets.evolution import Sets
from sftscope.lattice.transforms import Floats

NAN = float("nan")


def order_distribution(members: Sets, effects: Floats, orders: NDArray[np.int64], n: int) -> Floats:
    """Eq. (8): Σ max(I, 0), Σ min(I, 0) and the number of members of each order up to n: (3, n + 1).

    orders: (K,), of the subsets.
    """
    order = np.broadcast_to(orders, members.shape)[members]
    inside = effects[members]
    return np.stack(
        [
            np.bincount(order, weights=np.maximum(inside, 0), minlength=n + 1),
            np.bincount(order, weights=np.minimum(inside, 0), minlength=n + 1),
            np.bincount(order, minlength=n + 1).astype(np.float64),
        ]
    )


def cross_entropy(score: float) -> float:
    """-log sigmoid(score), in nats, without overflow."""
    return float(np.logaddexp(0.0, -score))


def relative(error: Floats, scale: Floats) -> Floats:
    """error / scale; NaN where there is no scale."""
    ratio: Floats = np.divide(error, scale, out=np.full(np.shape(scale), NAN), where=scale > 0)
    return ratio


def matching_errors(scores: Floats, model: Floats, *, scale: Literal["gap", "range"] = "gap") -> Floats:
    """Eq. (14): |v - h| / scale at every masked state: (..., m).

    scores: v, (..., m), the state without words first and that with all last; model: h, the same. scale: `gap` is
    |v(x_N) - v(x_∅)|, `range` is max v - min v; NaN where it is 0.
    """
    size = np.abs(scores[..., -1] - scores[..., 0]) if scale == "gap" else np.ptp(scores, axis=-1)
    error = np.abs(scores - model)
    return relative(error, np.broadcast_to(np.asarray(size)[..., None], error.shape))


def matching_error(scores: Floats, model: Floats) -> Floats:
    """The mean of `matching_errors` over the masked states: (...)."""
    mean: Floats = matching_errors(scores, model).mean(axis=-1)
    return mean


def sparsity_curve(effects: Sequence[Floats], points: int = 200) -> Floats:
    """Strengths of all probes in descending order, relative to the strongest of them all, as in the paper: (points,).

    effects: (2, K) a probe, the empty subset first. Point i is the strength at the share i / (points - 1) of all
    2 (K - 1) interactions that the probes could have, or of those that any step has where they are estimated.
    """
    ordered = np.sort(np.concatenate([np.abs(part[:, 1:]).ravel() for part in effects]))[::-1]
    picked = ordered[np.linspace(0, ordered.size - 1, points).round().astype(int)]
    curve: Floats = picked / max(ordered[0], np.finfo(float).tiny)
    return curve
