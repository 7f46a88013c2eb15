"""The butterflies are the matrices of the method, and their inverses are inverses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapiq import ExactComputer

from sftscope.lattice.transforms import (
    and_effects_of,
    logical_model,
    moebius_transform,
    moebius_transpose,
    n_variables_of,
    or_effects_of,
    or_model,
    or_transpose,
    orders,
    zeta_transform,
    zeta_transpose,
)

shapes = st.tuples(st.integers(1, 7), st.integers(0, 2**31))


def random_scores(n, seed, batch=()):
    return np.random.default_rng(seed).normal(size=(*batch, 1 << n))


def below(n):
    """Z[T, S] = [S ⊆ T]."""
    subsets = range(1 << n)
    return np.array([[float(s & t == s) for s in subsets] for t in subsets])


def touching(n):
    """O[T, S] = [S ∩ T ≠ ∅]."""
    subsets = range(1 << n)
    return np.array([[float(s & t != 0) for s in subsets] for t in subsets])


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_the_butterflies_are_the_dense_matrices(shape):
    n, seed = shape
    x = random_scores(n, seed, batch=(3,))
    z, o = below(n), touching(n)
    np.testing.assert_allclose(zeta_transform(x), x @ z.T, atol=1e-12)
    np.testing.assert_allclose(zeta_transpose(x), x @ z, atol=1e-12)
    np.testing.assert_allclose(moebius_transform(x), x @ np.linalg.inv(z).T, atol=1e-10)
    np.testing.assert_allclose(or_model(x), x @ o.T, atol=1e-12)
    np.testing.assert_allclose(or_transpose(x), x @ o, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_moebius_and_zeta_undo_each_other(shape):
    scores = random_scores(*shape)
    np.testing.assert_allclose(zeta_transform(moebius_transform(scores)), scores, atol=1e-10)
    np.testing.assert_allclose(moebius_transform(zeta_transform(scores)), scores, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_every_centred_score_is_a_pure_and_model_and_a_pure_or_model(shape):
    scores = random_scores(*shape)
    scores[0] = 0.0
    np.testing.assert_allclose(zeta_transform(and_effects_of(scores)), scores, atol=1e-10)
    np.testing.assert_allclose(or_model(or_effects_of(scores)), scores, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_the_transposes_satisfy_the_inner_product_law(shape):
    n, seed = shape
    x, u = random_scores(n, seed, batch=(2,))
    assert moebius_transform(x) @ u == pytest.approx(x @ moebius_transpose(u), abs=1e-9)
    assert zeta_transform(x) @ u == pytest.approx(x @ zeta_transpose(u), abs=1e-9)
    assert or_model(x) @ u == pytest.approx(x @ or_transpose(u), abs=1e-9)


@pytest.mark.parametrize("n", [1, 3, 5])
def test_the_logical_model_is_the_sum_over_triggered_interactions(n):
    rng = np.random.default_rng(n)
    and_effects, or_effects = rng.normal(size=(2, 1 << n))
    and_effects[0] = or_effects[0] = 0.0
    h = logical_model(0.5, and_effects, or_effects)
    for t in range(1 << n):
        ands = sum(and_effects[s] for s in range(1, 1 << n) if s & t == s)
        ors = sum(or_effects[s] for s in range(1, 1 << n) if s & t)
        assert h[t] == pytest.approx(0.5 + ands + ors, abs=1e-10)


@pytest.mark.parametrize("n", [2, 4, 6])
def test_effects_agree_with_shapiqs_exact_computer(n):
    scores = random_scores(n, seed=n)
    scores[0] = 0.0

    def game(coalitions):
        return scores[np.atleast_2d(coalitions) @ (1 << np.arange(n))]

    computer = ExactComputer(game=game, n_players=n)
    moebius, co_moebius = computer("Moebius", order=n), computer("Co-Moebius", order=n)
    and_effects, or_effects = and_effects_of(scores), or_effects_of(scores)
    for subset in range(1, 1 << n):
        members = tuple(i for i in range(n) if subset >> i & 1)
        assert and_effects[subset] == pytest.approx(moebius[members], abs=1e-9)
        assert or_effects[subset] == pytest.approx((-1) ** (len(members) + 1) * co_moebius[members], abs=1e-9)


def test_orders_count_the_variables_of_each_subset():
    assert orders(3).tolist() == [0, 1, 1, 2, 1, 2, 2, 3]


@pytest.mark.parametrize("length", [0, 1, 3, 12])
def test_lengths_that_are_no_power_of_two_are_refused(length):
    with pytest.raises(ValueError, match="2\\^n"):
        n_variables_of(length)
