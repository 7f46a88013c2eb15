"""Decompositions match every masked state within ζ, and their certificates are really certificates."""

import threading
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from score_vectors import all_effects, matching_error, noise_bound, optimum_by_highs, scale_of, score_vector
from sftscope.decomposition import UncertifiedError, batch, decompose
from sftscope.decomposition.exact.cholesky import BreakdownError, factor
from sftscope.decomposition.exact.incumbent import Solution
from sftscope.decomposition.exact.lattice_program import TIE_WEIGHT, effect_weights, lattice_program, tie_breaks
from sftscope.decomposition.process_pool import in_order
from sftscope.decomposition.rivals.subgradient_descent import decompose_by_descent
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import (
    or_model,
    or_transpose,
    orders,
    zeta_transform,
    zeta_transpose,
)

KINDS = ("mixture", "gaussian")


@pytest.mark.parametrize(
    ("n", "vectors"), [(2, 30), (3, 30), (4, 30), (5, 30), (6, 30), (7, 30), (8, 14), (9, 4), (10, 2)]
)
def test_universal_matching_with_a_certified_gap(n, vectors):
    scores = np.stack([score_vector(n, seed, KINDS[seed % 2]) for seed in range(vectors)])
    zeta = noise_bound(scores)
    result = decompose(scores, zeta)
    for bound, error in zip(zeta, matching_error(scores, result), strict=True):
        assert error.max() <= bound * (1 + 1e-9)
    assert np.all(result.gap <= 1e-3)
    assert np.median(result.gap) <= 1e-8
    assert np.all(result.lower_bound <= result.objective)
    cost = np.sum(effect_weights(n) * np.abs(all_effects(result)), axis=(1, 2))
    np.testing.assert_allclose(result.objective, cost, rtol=1e-12)


@pytest.mark.parametrize(("n", "vectors"), [(1, 4), (2, 8), (3, 12), (4, 12), (5, 10), (6, 8), (7, 3), (8, 1)])
def test_the_objective_is_the_linear_programs_optimum(n, vectors):
    for seed in range(vectors):
        scores = score_vector(n, seed, KINDS[seed % 2])
        zeta = float(noise_bound(scores)[0])
        result = decompose(scores, zeta)
        optimum, _, _ = optimum_by_highs(scores, zeta)
        assert result.objective[0] == pytest.approx(optimum, rel=1e-3)
        assert result.lower_bound[0] <= optimum * (1 + 1e-6) + 1e-9


def test_the_bound_of_any_dual_point_is_a_certificate():
    scores = score_vector(5, seed=0)
    zeta = float(noise_bound(scores)[0])
    result = decompose(scores, zeta)
    _, u, _ = optimum_by_highs(scores, zeta)
    program, v = lattice_program(5), scores - scores[0]
    assert program.dual_bound(u, v, zeta) == pytest.approx(result.lower_bound[0], rel=1e-6)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1.0, 1e3):
        other = size * rng.normal(size=32)
        assert program.dual_bound(other, v, zeta) <= result.objective[0]
    assert program.dual_bound(np.full(32, np.nan), v, zeta) == 0.0


def test_the_normal_matrix_is_the_product_it_stands_for():
    program = lattice_program(4)
    rng = np.random.default_rng(0)
    theta, diagonal = rng.random(program.n_columns), rng.random(16)
    d = program.entries(np.arange(16), np.arange(program.n_columns))
    expected = np.triu(d @ np.diag(theta) @ d.T + np.diag(diagonal))
    np.testing.assert_allclose(np.triu(program.normal_matrix(theta, diagonal)), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 2))
def test_two_variables_have_the_optimum_of_a_fine_search(a, b, both, zeta):
    scores = np.array([0.0, a, b, both])
    assume(scale_of(scores) > 1e-3)
    result = decompose(scores, zeta)
    weights = effect_weights(2)
    # x_0 = a + q_0 and so on: all but one effect follow from the noise and one of AND, OR
    noise = np.linspace(-zeta, zeta, 13)
    q0, q1, q2, share = np.meshgrid(noise, noise, noise, np.linspace(-0.5, 1.5, 41), indexing="ij")
    whole = (both + q2) - (a + q0) - (b + q1)  # I_and(01) − I_or(01)
    x_or = -whole * share
    x_and = whole + x_or
    cost = (
        weights[0, 1] * np.abs(a + q0 - x_or)
        + weights[0, 2] * np.abs(b + q1 - x_or)
        + weights[0, 3] * np.abs(x_and)
        + weights[1, 3] * np.abs(x_or)
    )
    assert result.objective[0] <= cost.min() * (1 + 1e-8) + 1e-9  # the gap at which a solution counts as the optimum
    assert result.lower_bound[0] <= cost.min() + 1e-9


@pytest.mark.parametrize("zeta_share", [0.0, 1e-3])
@pytest.mark.parametrize("relation", ["and", "or"])
@pytest.mark.parametrize("subset", [0b1, 0b11, 0b1011, 0b11111])
def test_a_pure_game_comes_back_as_itself(relation, subset, zeta_share):
    game = np.zeros(32)
    game[subset] = -3.0
    scores = 7.0 + (zeta_transform(game) if relation == "and" else or_model(game))
    result = decompose(scores, zeta_share * 3.0)
    expected = np.zeros((2, 32))
    row = 0 if relation == "and" or subset == 0b1 else 1  # a singleton's OR is its AND
    expected[row, subset] = -3.0
    np.testing.assert_allclose(all_effects(result)[0], expected, atol=20 * zeta_share + 1e-9)
    if zeta_share == 0.0:
        assert np.count_nonzero(all_effects(result)) == 1
    assert result.bias[0] == 7.0


def test_a_sparse_game_of_both_relations_comes_back_as_itself():
    game = np.zeros((2, 256))
    game[0, [0b1, 0b10000, 0b110, 0b10110000]] = 2.0, -1.0, 1.5, 0.7
    game[1, [0b1001, 0b11100]] = 1.2, 0.9
    result = decompose(zeta_transform(game[0]) + or_model(game[1]), 0.0)
    np.testing.assert_allclose(all_effects(result)[0], game, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000), st.sampled_from([-64.0, 0.5, 1024.0]))
def test_a_constant_changes_only_the_bias(n, seed, constant):
    scores = score_vector(n, seed)
    zeta = float(noise_bound(scores)[0])
    plain, shifted = decompose(scores, zeta), decompose(scores + constant, zeta)
    assert shifted.bias[0] == scores[0] + constant
    np.testing.assert_allclose(all_effects(shifted), all_effects(plain), atol=1e-6 * scale_of(scores))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000), st.integers(-300, 300))
def test_effects_scale_with_scores_and_noise_bound(n, seed, exponent):
    scores = score_vector(n, seed)
    zeta = float(noise_bound(scores)[0])
    plain = decompose(scores, zeta)
    scaled = decompose(np.ldexp(scores, exponent), np.ldexp(zeta, exponent))
    np.testing.assert_array_equal(all_effects(scaled), np.ldexp(all_effects(plain), exponent))


@pytest.mark.parametrize("seed", range(4))
def test_relabelling_the_variables_permutes_the_effects(seed):
    n = 3
    scores = score_vector(n, seed)
    zeta = float(noise_bound(scores)[0])
    plain = decompose(scores, zeta)
    for order in permutations(range(n)):
        moved = relabel(n, order)
        relabelled = np.empty_like(scores)
        relabelled[moved] = scores
        result = decompose(relabelled, zeta)
        # the tie-breaking weights, at most 1e-5 of the cost, are not symmetric
        assert result.objective[0] == pytest.approx(plain.objective[0], rel=2e-5)
        cost = np.sum(effect_weights(n) * np.abs(all_effects(result)[0][:, moved]))
        assert cost == pytest.approx(plain.objective[0], rel=2e-5)


def test_relabelling_keeps_the_effects_themselves_where_the_optimum_is_plain():
    game = np.zeros((2, 16))
    game[0, [0b1, 0b10, 0b111]] = 2.0, 1.0, -1.5
    game[1, 0b1100] = 0.8
    scores = zeta_transform(game[0]) + or_model(game[1])
    backwards = np.array([int(f"{t:04b}"[::-1], 2) for t in range(16)])
    plain, turned = decompose(scores, 0.01), decompose(scores[backwards], 0.01)
    np.testing.assert_allclose(all_effects(turned)[0], all_effects(plain)[0][:, backwards], atol=0.05)


def relabel(n, order):
    """Where each subset goes when variable i becomes order[i]: (2^n,)."""
    return np.array([sum((t >> i & 1) << int(j) for i, j in enumerate(order)) for t in range(1 << n)])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6).flatmap(lambda n: st.permutations(range(n))), st.integers(0, 1000), st.sampled_from(KINDS))
def test_permuted_words_have_permuted_effects(order, seed, kind):
    """Exactly, ties included: the tie-break goes with the words."""
    n = len(order)
    scores = score_vector(n, seed, kind)
    zeta = float(noise_bound(scores)[0])
    words = [f"word{i * 7 % 10}" for i in range(n)]
    moved = relabel(n, order)
    permuted, permuted_words = np.empty_like(scores), [""] * n
    permuted[moved] = scores
    for i, place in enumerate(order):
        permuted_words[place] = words[i]
    plain = decompose(scores, zeta, names=[words])
    turned = decompose(permuted, zeta, names=[permuted_words])
    np.testing.assert_array_equal(all_effects(turned)[0][:, moved], all_effects(plain)[0])


def has_one_plain_optimum(scores, zeta):
    """Whether the weights without the tie-breaking term leave no choice, nor nearly so.

    They do not where primal and dual are strictly complementary and the active states determine the effects.
    """
    n = len(scores).bit_length() - 1
    weights = effect_weights(n) - TIE_WEIGHT * np.stack(
        [tie_breaks(relation, np.arange(1 << n, dtype=np.uint64)) for relation in (0, 1)]
    )
    _, u, effects = optimum_by_highs(scores, zeta, weights)
    kept = np.ones((2, 1 << n), dtype=bool)
    kept[:, 0] = kept[1, orders(n) == 1] = False
    prices = np.stack([zeta_transpose(u), or_transpose(u)])[kept] / weights[kept]
    merged = np.zeros((2, 1 << n))
    merged[:, 1:] = effects
    merged[0, orders(n) == 1] += merged[1, orders(n) == 1]
    support = np.abs(merged[kept]) > 1e-6
    active = np.abs(u[1:]) > 1e-3
    block = lattice_program(n).entries(np.flatnonzero(active) + 1, np.flatnonzero(support))
    determined = support.sum() == active.sum() == np.linalg.matrix_rank(block)
    return bool(determined and np.all(np.abs(prices[~support]) < 1 - 1e-4))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_relabelling_permutes_the_effects_wherever_the_optimum_is_unique(n):
    rng, unique = np.random.default_rng(n), 0
    for seed in range(20):
        scores = score_vector(n, seed, KINDS[seed % 2])
        zeta = float(noise_bound(scores)[0])
        if not has_one_plain_optimum(scores, zeta):
            continue  # exact ties: the fixed tie-break may choose another optimum under other labels
        unique += 1
        moved = relabel(n, rng.permutation(n))
        relabelled = np.empty_like(scores)
        relabelled[moved] = scores
        effects, turned = (all_effects(decompose(values, zeta))[0] for values in (scores, relabelled))
        np.testing.assert_allclose(turned[:, moved], effects, atol=1e-7 * scale_of(scores))
    assert unique >= 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(0, 1000), st.sampled_from(KINDS), st.floats(0.01, 100), st.floats(0, 0.5))
def test_no_certificate_is_above_the_optimum(n, seed, kind, size, zeta_share):
    scores = score_vector(n, seed, kind)
    zeta, v = zeta_share * float(scale_of(scores)), scores - scores[0]
    optimum, u, _ = optimum_by_highs(scores, zeta)
    rng = np.random.default_rng(seed)
    slack = 1e-7 * (optimum + scale_of(scores))  # HiGHS's own tolerance
    for point in (u, size * rng.normal(size=1 << n), u + 0.1 * rng.normal(size=1 << n)):
        assert lattice_program(n).dual_bound(point, v, zeta) <= optimum + slack
    assert decompose(scores, zeta).lower_bound[0] <= optimum + slack


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 11), st.integers(0, 1000))
def test_prices_are_the_transpose_of_the_model(n, seed):
    program, rng = lattice_program(n), np.random.default_rng(seed)
    x, u = rng.normal(size=program.n_columns), rng.normal(size=program.n_states)
    size = np.abs(x).sum() * np.abs(u).sum()
    assert program.model(x) @ u == pytest.approx(x @ program.prices(u), abs=1e-12 * size)


def test_without_a_safety_net_what_is_not_certified_is_refused(monkeypatch):
    monkeypatch.setattr("sftscope.decomposition.exact.incumbent.interior_points", lambda *_: iter(()))
    monkeypatch.setattr("sftscope.decomposition.exact.solver_chain.LARGEST_N_FOR_HIGHS", 2)
    with pytest.raises(UncertifiedError):
        decompose(score_vector(4, 0), 0.1)


def test_beyond_the_largest_face_the_interior_point_is_the_answer(monkeypatch):
    scores = score_vector(6, 0)
    zeta = float(noise_bound(scores)[0])
    monkeypatch.setattr("sftscope.decomposition.exact.incumbent.MOST_EFFECTS_ON_FACE", 0)
    monkeypatch.setattr("sftscope.decomposition.exact.solver_chain.LARGEST_N_FOR_HIGHS", 0)
    result = decompose(scores, zeta)
    assert result.solver == ("interior",)
    assert result.gap[0] <= 1e-5
    assert matching_error(scores, result).max() <= zeta * (1 + 1e-9)


def salient(result):
    effects = np.abs(all_effects(result))
    return np.sum(effects > 0.05 * effects.max(axis=(1, 2), keepdims=True), axis=(1, 2))


def test_plain_descent_is_feasible_far_from_optimal_and_finds_more_that_is_salient():
    scores = np.stack([score_vector(6, seed) for seed in range(4)])
    zeta = noise_bound(scores)
    ours = decompose(scores, zeta)
    theirs = decompose_by_descent(scores, zeta, iterations=4000, learning_rate=5e-6)
    assert np.all(theirs.objective >= ours.objective)
    assert np.all(theirs.lower_bound <= ours.objective)
    assert np.all(matching_error(scores, theirs).max(axis=1) <= zeta + 1e-9)
    assert np.all(theirs.gap > 0.2)
    assert np.all(salient(theirs) > salient(ours))


def test_a_descent_that_goes_on_long_enough_nears_the_optimum():
    scores = score_vector(4, 1)
    zeta = float(noise_bound(scores)[0])
    ours, theirs = decompose(scores, zeta), decompose_by_descent(scores, zeta, iterations=8000, learning_rate=1e-3)
    assert ours.objective[0] <= theirs.objective[0] <= 1.05 * ours.objective[0]


def test_near_equal_scores_have_near_equal_effects():
    scores = score_vector(7, seed=3)
    zeta = float(noise_bound(scores)[0])
    noise = 1e-7 * np.random.default_rng(0).normal(size=128)
    one, other = decompose(scores, zeta), decompose(scores + noise, zeta)
    np.testing.assert_allclose(all_effects(one), all_effects(other), atol=1e-4 * scale_of(scores))


def test_a_batch_is_its_vectors_one_by_one_bit_for_bit():
    scores = np.stack([score_vector(6, seed, KINDS[seed % 2]) for seed in range(6)])
    zeta = noise_bound(scores)
    batch = decompose(scores, zeta)
    for index in reversed(range(6)):
        alone = decompose(scores[index], zeta[index])
        np.testing.assert_array_equal(all_effects(alone)[0], all_effects(batch)[index])
        assert alone.objective[0] == batch.objective[index]
        assert alone.lower_bound[0] == batch.lower_bound[index]


def test_the_number_of_workers_changes_no_bit():
    scores = np.stack([score_vector(8, seed, KINDS[seed % 2]) for seed in range(4)])
    zeta = noise_bound(scores)
    one, three = (decompose(scores, zeta, workers=workers) for workers in (1, 3))
    np.testing.assert_array_equal(all_effects(one), all_effects(three))
    np.testing.assert_array_equal(one.lower_bound, three.lower_bound)
    assert one.solver == three.solver


def test_the_first_vector_that_is_not_finite_is_reported_before_any_is_solved():
    scores = np.stack([score_vector(5, seed) for seed in range(8)])
    scores[[3, 6]] = np.nan
    calls = []
    with pytest.raises(SftscopeError, match="score vector 3"):
        decompose(scores, 0.1, on_progress=lambda done, _: calls.append(done))
    assert calls == []


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_vector_that_fails_is_the_one_reported(workers, monkeypatch):
    scores = np.stack([score_vector(5, seed) for seed in range(8)])
    usual = batch.certified_solution

    def loose(program, v, *rest):
        solution = usual(program, v, *rest)
        failing = np.max(np.abs(scores[[3, 6]] - scores[[3, 6], :1]), axis=1)
        hit = any(np.isclose(float(np.frexp(size)[0]), np.max(np.abs(v)), rtol=1e-12) for size in failing)
        return Solution(solution.x, cost=1.0, bound=0.5, stage="interior") if hit else solution

    monkeypatch.setattr(batch, "certified_solution", loose)
    calls = []
    with pytest.raises(UncertifiedError, match="score vector 3"):
        decompose(scores, 0.1, workers=workers, on_progress=lambda done, _: calls.append(done))
    assert calls == [1, 2, 3]


def test_what_interrupts_the_caller_stops_the_workers():
    begun, stopped = [], threading.Event()

    def work(item, check):
        begun.append(item)
        while not stopped.is_set():
            check()
        return item

    def interrupted():
        for _ in in_order(lambda item, check: item if item == 0 else work(item, check), range(50), 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(begun) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decompose")]


def test_a_matrix_that_is_not_positive_definite_is_a_breakdown():
    with pytest.raises(BreakdownError):
        factor(np.diag([1.0, -1.0]))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda n: st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, 3.0]), min_size=1 << n, max_size=1 << n)
    ),
    st.sampled_from([0.0, 1e-14, 1e-6, 0.1, 1.0]),
)
def test_degenerate_scores_are_certified_as_well(values, zeta):
    scores = np.array(values)
    result = decompose(scores, zeta)
    assert matching_error(scores, result).max() <= zeta + 1e-9 * scale_of(scores)
    assert result.gap[0] <= 1e-3
    assert not result.and_effects[0, 0]
    assert not result.or_effects[0, orders(scores.size.bit_length() - 1) < 2].any()


@pytest.mark.parametrize("scores", [np.zeros(8), np.full(8, -3.5), 2.0 + 0.1 * score_vector(3, 0) / 9.0])
def test_within_the_noise_all_effects_vanish(scores):
    zeta = float(scale_of(scores))
    result = decompose(scores, zeta)
    assert not all_effects(result).any()
    assert (result.objective[0], result.lower_bound[0], result.gap[0]) == (0.0, 0.0, 0.0)
    assert result.bias[0] == scores[0]
    assert result.solver == ("zero",)


def test_progress_counts_the_vectors():
    calls = []
    decompose(np.zeros((3, 4)), 0.0, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused_by_name(value):
    scores = np.zeros((3, 8))
    scores[2, 5] = value
    with pytest.raises(SftscopeError, match="score vector 2"):
        decompose(scores, 0.1)


@pytest.mark.parametrize("zeta", [-0.1, np.nan, np.inf])
def test_noise_bounds_must_be_finite_and_not_negative(zeta):
    with pytest.raises(ValueError, match="ζ ≥ 0"):
        decompose(np.zeros(8), zeta)


@pytest.mark.parametrize("shape", [(3,), (2, 6), (2, 2, 4)])
def test_scores_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        decompose(np.zeros(shape), 0.0)


def test_what_cannot_be_certified_is_never_returned(monkeypatch):
    def loose(program, *_):
        return Solution(np.zeros(program.n_columns), cost=1.0, bound=0.5, stage="interior")

    monkeypatch.setattr(batch, "certified_solution", loose)
    with pytest.raises(UncertifiedError, match=r"score vector 0 .* 5.0e-01"):
        decompose(score_vector(3, 0), 0.0)


def test_the_safety_net_alone_reaches_the_same_optimum(monkeypatch):
    scores = score_vector(5, seed=1)
    zeta = float(noise_bound(scores)[0])
    usual = decompose(scores, zeta)
    monkeypatch.setattr("sftscope.decomposition.exact.incumbent.interior_points", lambda *_: iter(()))
    rescued = decompose(scores, zeta)
    assert rescued.solver == ("highs",)
    assert rescued.gap[0] <= 1e-8
    np.testing.assert_allclose(all_effects(rescued), all_effects(usual), atol=1e-7 * scale_of(scores))
