"""The shared words of the method, and the butterflies over the subset lattice (numpy, float64).

An array of length 2^n is indexed by `subset`, an int bitmask: bit i set = variable i present, bit 0
the first variable of the text. All transforms act on the last axis and broadcast over the others;
each is n passes over the array, O(n 2^n). Nothing here knows of models, files or thresholds.
"""

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Subsets = NDArray[np.uint64]  # bitmasks of up to 64 words

TINY_SHARE = 1e-3  # of ζ: by how much |h − v| may exceed ζ in step files of earlier versions; none written now does


class Relation(IntEnum):
    """What triggers an interaction: all of its words present (AND), or any of them (OR)."""

    AND = 0
    OR = 1


def n_variables_of(length: int) -> int:
    """n of an array of length 2^n. ValueError for any other length."""
    if length < 2 or length & (length - 1):
        raise ValueError(f"expected 2^n values with n ≥ 1, got {length}")
    return length.bit_length() - 1


@lru_cache(maxsize=32)
def orders(n: int) -> NDArray[np.int64]:
    """Order |S| of every subset: (2^n,)."""
    result = orders_of(all_subsets(n))
    result.setflags(write=False)
    return result


@lru_cache(maxsize=32)
def all_subsets(n: int) -> Subsets:
    """Every subset of n words, as its own index: (2^n,)."""
    result = np.arange(1 << n, dtype=np.uint64)
    result.setflags(write=False)
    return result


def orders_of(subsets: Subsets) -> NDArray[np.int64]:
    """Order |S| of the given subsets."""
    counts: NDArray[np.int64] = np.bitwise_count(subsets).astype(np.int64)
    return counts


def relabelled(order: Sequence[int]) -> NDArray[np.int64]:
    """The subset that each subset stands for when variable k is what was variable order[k]: (2^n,)."""
    subsets = np.arange(1 << len(order), dtype=np.int64)
    stands_for = np.zeros_like(subsets)
    for new, old in enumerate(order):
        stands_for |= (subsets >> new & 1) << old
    return stands_for


def _halves(values: Floats, variable: int) -> tuple[Floats, Floats]:
    """Views of `values` (contiguous, (..., 2^n)) on the subsets without and with `variable`."""
    paired = values.reshape(*values.shape[:-1], -1, 2, 1 << variable)
    return paired[..., 0, :], paired[..., 1, :]


def _fresh(values: Floats) -> Floats:
    return np.array(values, dtype=np.float64, order="C", copy=True)


def zeta_transform(effects: Floats) -> Floats:
    """f(T) = Σ_{S ⊆ T} effects(S)."""
    out = _fresh(effects)
    for variable in range(n_variables_of(out.shape[-1])):
        without, with_ = _halves(out, variable)
        with_ += without
    return out


def zeta_columns(effects: Floats) -> Floats:
    """`zeta_transform` along the first axis, (2^n, ...), in place: fast where there are many columns."""
    for variable in range(n_variables_of(effects.shape[0])):
        paired = effects.reshape(-1, 2, 1 << variable, *effects.shape[1:])
        paired[:, 1] += paired[:, 0]
    return effects


def moebius_transform(scores: Floats) -> Floats:
    """I(S) = Σ_{T ⊆ S} (-1)^{|S|-|T|} scores(T), the inverse of `zeta_transform`."""
    out = _fresh(scores)
    for variable in range(n_variables_of(out.shape[-1])):
        without, with_ = _halves(out, variable)
        with_ -= without
    return out


def zeta_transpose(weights: Floats) -> Floats:
    """g(S) = Σ_{T ⊇ S} weights(T), the transpose of `zeta_transform`."""
    out = _fresh(weights)
    for variable in range(n_variables_of(out.shape[-1])):
        without, with_ = _halves(out, variable)
        without += with_
    return out


def moebius_transpose(weights: Floats) -> Floats:
    """g(T) = Σ_{S ⊇ T} (-1)^{|S|-|T|} weights(S), the transpose of `moebius_transform`."""
    out = _fresh(weights)
    for variable in range(n_variables_of(out.shape[-1])):
        without, with_ = _halves(out, variable)
        without -= with_
    return out


def or_model(or_effects: Floats) -> Floats:
    """Σ_S or_effects(S) [S ∩ T ≠ ∅] for every T; the empty set is ignored.

    S ∩ T = ∅ means S ⊆ N∖T, and complementing a subset reverses the index: the total less the
    zeta transform read backwards.
    """
    effects = _fresh(or_effects)
    effects[..., 0] = 0.0
    below = zeta_transform(effects)
    model: Floats = below[..., -1:] - below[..., ::-1]
    return model


def or_transpose(weights: Floats) -> Floats:
    """g(S) = Σ_T weights(T) [S ∩ T ≠ ∅], the transpose of `or_model` (0 at the empty set)."""
    total = weights.sum(axis=-1, keepdims=True)
    out: Floats = total - zeta_transpose(np.ascontiguousarray(weights[..., ::-1]))
    out[..., 0] = 0.0  # the difference of two equal sums, which rounding may leave apart
    return out


def and_effects_of(and_scores: Floats) -> Floats:
    """I_and(S) of the AND part of a centred score; 0 at the empty set."""
    out = moebius_transform(and_scores)
    out[..., 0] = 0.0
    return out


def or_effects_of(or_scores: Floats) -> Floats:
    """I_or(S) = -Σ_{T ⊆ S} (-1)^{|S|-|T|} or_scores(N∖T) for S ≠ ∅; 0 at the empty set.

    The formula at S = ∅ would give -or_scores(N), so the empty set is set apart.
    """
    out = -moebius_transform(np.ascontiguousarray(or_scores[..., ::-1]))
    out[..., 0] = 0.0
    return out


def logical_model(bias: Floats | float, and_effects: Floats, or_effects: Floats) -> Floats:
    """h(x_T) of Eq. (2) at every masked state T: (..., 2^n). The effects at the empty set must be 0."""
    model: Floats = np.asarray(bias)[..., None] + zeta_transform(and_effects) + or_model(or_effects)
    return model
