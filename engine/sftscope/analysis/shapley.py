"""Other read-outs of the same v: Möbius, Shapley and Banzhaf values, by butterflies.

They see AND only: v is taken apart into one Möbius value m(S) a subset, and the others are weighted sums
of those. The Python package shapiq reads them from its `InteractionValues` JSON.
"""

from typing import Any

import numpy as np

from sftscope.lattice.transforms import Floats, moebius_transform, n_variables_of, orders, zeta_transpose


def moebius_values(scores: Floats) -> Floats:
    """m(S) of scores (2^n,) for S ≠ ∅; 0 at the empty set, whose value is the bias."""
    values = moebius_transform(scores)
    values[..., 0] = 0.0
    return values


def shapley_values(scores: Floats) -> Floats:
    """Σ_{S ∋ i} m(S) / |S| of every word i: (n,); they sum to v(x_N) - v(x_∅)."""
    n = n_variables_of(scores.shape[-1])
    return _of_words(moebius_values(scores) / np.maximum(orders(n), 1))


def banzhaf_values(scores: Floats) -> Floats:
    """Σ_{S ∋ i} m(S) / 2^(|S|-1) of every word i: (n,), its mean effect over all states of the others."""
    n = n_variables_of(scores.shape[-1])
    return _of_words(moebius_values(scores) / 2.0 ** (orders(n) - 1))


def to_shapiq(values: Floats, *, index: str, max_order: int, bias: float) -> dict[str, Any]:
    """Values (2^n,) as the JSON object that `shapiq.InteractionValues.from_json_file` reads."""
    n = n_variables_of(values.shape[-1])
    found = [subset for subset in range(1, 1 << n) if subset.bit_count() <= max_order and values[subset]]
    members = {subset: ",".join(str(i) for i in range(n) if subset >> i & 1) for subset in found}
    return {
        "object_name": "InteractionValues",
        "data_type": "interaction_values",
        "metadata": {
            "n_players": n,
            "index": index,
            "max_order": max_order,
            "min_order": 1,
            "estimated": False,
            "estimation_budget": None,
            "baseline_value": bias,
        },
        "data": {members[subset]: float(values[subset]) for subset in found},
    }


def _of_words(values: Floats) -> Floats:
    """Σ_{S ∋ i} values(S) of every word i: (n,)."""
    n = n_variables_of(values.shape[-1])
    return zeta_transpose(values)[..., [1 << i for i in range(n)]]
