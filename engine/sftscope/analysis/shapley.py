"""Other read-outs of the same v: Möbius, Shapley and Banzhaf values and Shapley interactions, by butterflies.

They see AND only: v is taken apart into one Möbius value m(S) a subset, and every index is a weighted sum
of those. Exchange with the Python package shapiq is by its `InteractionValues` JSON.
"""

import json
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
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


def shapley_interactions(scores: Floats) -> Floats:
    """The Shapley interaction index Σ_{T ⊇ S} m(T) / (|T| - |S| + 1) of every S ≠ ∅: (2^n,)."""
    above = _superset_sums(moebius_values(scores))
    order = orders(n_variables_of(scores.shape[-1]))
    apart = np.arange(above.shape[0])[:, None] - order
    index: Floats = np.where(apart >= 0, above / np.maximum(apart + 1, 1), 0.0).sum(axis=0)
    index[0] = 0.0
    return index


def k_shapley_interactions(scores: Floats, k: int) -> Floats:
    """k-SII: Σ_{T ⊇ S, |T| ≤ k} B_{|T|-|S|} SII(T) with Bernoulli numbers B, for 1 ≤ |S| ≤ k, else 0: (2^n,).

    They sum to v(x_N) - v(x_∅).
    """
    n = n_variables_of(scores.shape[-1])
    if not 1 <= k <= n:
        raise ValueError(f"expected 1 ≤ k ≤ {n}, got {k}")
    order = orders(n)
    above = _superset_sums(np.where(order <= k, shapley_interactions(scores), 0.0))
    apart = np.arange(n + 1)[:, None] - order
    bernoulli = np.array([float(value) for value in _bernoulli(n)])
    weights = np.where((apart >= 0) & (apart <= k), bernoulli[np.clip(apart, 0, n)], 0.0)
    index: Floats = np.where((order >= 1) & (order <= k), (weights * above).sum(axis=0), 0.0)
    return index


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


def from_shapiq(text: str, *, source: str) -> tuple[str, Floats]:
    """The index's name and values (2^n,) of such a JSON text; SftscopeError, naming `source`, for anything else."""
    try:
        content = json.loads(text)
        n, index = content["metadata"]["n_players"], content["metadata"]["index"]
        if type(n) is not int or not 1 <= n <= 20 or not isinstance(index, str):
            raise ValueError("expected n_players of 1…20 and the name of an index")
        return safe_text(index, max_length=40), _values_of(content["data"], n)
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        reason = safe_text(str(error), max_length=120)
        raise SftscopeError(f"{source}: not InteractionValues JSON of shapiq: {reason}") from None


def _values_of(data: Mapping[str, Any], n: int) -> Floats:
    values = np.zeros(1 << n)
    for key, value in data.items():
        players = [int(part) for part in key.split(",") if part != "Empty"]
        if any(not 0 <= player < n for player in players) or not math.isfinite(value):
            raise ValueError(f"{key}: expected players below {n} and a finite value")
        values[sum(1 << player for player in set(players))] = value
    return values


def _of_words(values: Floats) -> Floats:
    """Σ_{S ∋ i} values(S) of every word i: (n,)."""
    n = n_variables_of(values.shape[-1])
    return zeta_transpose(values)[..., [1 << i for i in range(n)]]


def _superset_sums(values: Floats) -> Floats:
    """Σ_{T ⊇ S, |T| = o} values(T) for every order o and subset S: (n + 1, 2^n)."""
    n = n_variables_of(values.shape[-1])
    return zeta_transpose(np.where(orders(n) == np.arange(n + 1)[:, None], values, 0.0))


def _bernoulli(n: int) -> list[Fraction]:
    """B_0 … B_n with B_1 = -1/2."""
    numbers = [Fraction(1)]
    for m in range(1, n + 1):
        numbers.append(-sum(math.comb(m + 1, j) * numbers[j] for j in range(m)) / Fraction(m + 1))
    return numbers
