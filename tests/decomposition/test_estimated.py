"""More words than can be enumerated: planted games are found, the bound holds for all columns, and doubt is told."""

import json
import sys

import numpy as np
import pytest
from scipy.optimize import linprog

from command_line import fails_with_one_line, sftscope
from planted_games import planted_game, scores_of
from sftscope.decomposition import decompose
from sftscope.decomposition.exact.lattice_program import effect_weights
from sftscope.decomposition.rivals.spex import estimate_by_proxyspex, estimate_by_spex, spex_states
from sftscope.decomposition.sampled.column_generation import ColumnProgram, SampledProgram, masks_of, subsets_of
from sftscope.decomposition.sampled.estimate import estimate, resampled
from sftscope.decomposition.score_file import decompose_file, render
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice import masked_states
from sftscope.lattice.masked_states import HELD_OUT, States, every_state, held_out_r2, sample_states, triggers
from sftscope.lattice.transforms import orders, orders_of


@pytest.mark.parametrize(
    ("n", "terms", "count"), [(12, 6, 200), (17, 6, 220), (20, 12, 400), (40, 8, 400), (64, 6, 400)]
)
def test_planted_games_are_found_and_predict_what_was_held_out(n, terms, count):
    game, states = planted_game(n, terms, seed=n), sample_states(n, count)
    scores = scores_of(game, states.subset)
    made = estimate(states, scores, zeta=1e-3 * np.ptp(scores))
    strong = np.abs(made.effect) > 0.05 * np.abs(made.effect).max()
    found = set(zip(made.relation[strong].tolist(), made.subset[strong].tolist(), strict=True))
    assert found == set(zip(game[0].tolist(), game[1].tolist(), strict=True))
    assert held_out_r2(states, scores, made.model(states.subset)) >= 0.99
    assert made.gap <= 1e-3
    assert made.mismatch <= made.zeta * (1 + 1e-9)
    fresh = sample_states(n, 400, seed=99).subset
    assert np.corrcoef(made.model(fresh), scores_of(game, fresh))[0, 1] > 0.995


def test_beside_a_vertex_that_rounding_hides_only_the_effects_that_matter_are_kept(monkeypatch):
    states = sample_states(9, 200, held_out=0.0)
    scores = np.random.default_rng(0).normal(size=200)
    exact = estimate(states, scores, 0.5)
    monkeypatch.setattr("sftscope.decomposition.exact.incumbent.solve_face", lambda *_: None)
    monkeypatch.setattr("sftscope.decomposition.exact.incumbent.settle_on_face", lambda *given: given[-1] + 1.0)
    near = estimate(states, scores, 0.5)
    assert near.objective == pytest.approx(exact.objective, rel=1e-6)
    assert near.gap <= 1e-6
    assert near.mismatch <= 0.5 * (1 + 1e-9)
    assert near.effect.size <= exact.effect.size + 5


@pytest.mark.parametrize(("n", "terms", "count"), [(6, 12, 60), (6, 3, 9), (masked_states.MOST_ON_LATTICE + 1, 12, 60)])
def test_the_model_is_the_sum_of_what_a_masked_state_triggers(n, terms, count, monkeypatch):
    monkeypatch.setattr(masked_states, "BLOCK_VALUES", 100)
    game, states = planted_game(n, terms, seed=1), sample_states(n, count).subset
    direct = [
        sum(e for r, s, e in zip(*game, strict=True) if (int(t) & int(s) == int(s) if r == 0 else int(t) & int(s)))
        for t in states
    ]
    np.testing.assert_allclose(masked_states.model_at(n, states, *game), direct, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("every_order", [False, True])
def test_the_certificate_is_the_optimum_of_all_columns_at_once(seed, every_order, monkeypatch):
    """n = 7: each column written down and given to HiGHS in one piece; of few words and of the states, or all."""
    monkeypatch.setattr(masked_states, "MOST_ON_LATTICE", 7 if every_order else 0)
    n, whole = 7, 127
    states = sample_states(n, 40, seed, held_out=0.0)
    v = np.concatenate([[0.0], np.random.default_rng(seed).normal(size=39)])
    made, zeta = estimate(states, v, 0.05, tolerance=1e-6), 0.05
    relation, subset = np.divmod(np.arange(256), 128)
    of_states = np.isin(np.where(relation == 0, subset, whole & ~subset), states.subset[1:])
    kept = (orders(n)[subset] >= 1 + relation) & ((orders(n)[subset] <= 4) | of_states | every_order)
    relation, subset = relation[kept], subset[kept].astype(np.uint64)
    assert 2 * 98 - 7 < len(subset) <= 2 * 127 - 7
    assert (len(subset) == 2 * 127 - 7) == every_order
    block = triggers(states.subset[1:], relation, subset).astype(float)
    weights = effect_weights(n)[relation, subset.astype(int)]
    optimum = linprog(
        np.concatenate([weights, weights]),
        A_ub=np.block([[block, -block], [-block, block]]),
        b_ub=np.concatenate([v[1:] + zeta, zeta - v[1:]]),
    )
    assert made.mismatch <= zeta * (1 + 1e-9)
    assert made.objective * (1 - made.gap) <= optimum.fun * (1 + 1e-9)
    assert made.objective == pytest.approx(optimum.fun, rel=2e-5)
    assert made.gap <= 1e-3


def test_the_prices_of_all_columns_are_those_of_the_columns_written_down():
    masks = masks_of(sample_states(9, 60).subset, 9)
    program, u = SampledProgram(masks), np.random.default_rng(0).normal(size=60)
    relation, subset = program.relation, program.subset
    of_few = 2 * sum((9, 36, 84, 126))
    assert program.n_columns == len(subset) == of_few + 2 * 60
    np.testing.assert_allclose(program.prices(u), triggers(subsets_of(masks), relation, subset).T @ u, atol=1e-12)
    once = np.unique([relation, subset], axis=1, return_index=True)[1]  # a state of few words has theirs
    once = once[subset[once] != 0]  # which is no effect
    assert np.array_equal(program.columns_of(relation[once], subset[once]), once)
    missing = np.setdiff1d(np.arange(1 << 9, dtype=np.uint64), subset)[:2]
    assert missing.size == 2
    assert not program.columns_of(np.array([0, 1]), missing).size


def test_some_columns_and_a_price_for_what_is_missed_are_a_program_like_any_other():
    """Products, normal matrix and entries against D written down."""
    random = np.random.default_rng(0)
    block = (random.random((6, 4)) < 0.5).astype(float)
    program, whole = ColumnProgram(block, np.ones(4), 9.0), np.hstack([block, np.eye(6)])
    x, u, theta, diagonal = random.normal(size=10), random.normal(size=6), random.random(10), random.random(6)
    np.testing.assert_allclose(program.model(x), whole @ x)
    np.testing.assert_allclose(program.prices(u), whole.T @ u)
    expected = whole @ np.diag(theta) @ whole.T + np.diag(diagonal)
    np.testing.assert_allclose(program.normal_matrix(theta, diagonal), expected)
    rows, columns = np.array([4, 1]), np.array([2, 5, 0, 8])
    np.testing.assert_array_equal(program.entries(rows, columns), whole[np.ix_(rows, columns)])
    assert program.cost(x) == pytest.approx(np.abs(x[:4]).sum() + 9.0 * np.abs(x[4:]).sum())


def test_with_every_state_it_is_the_exact_decomposition():
    scores = np.random.default_rng(3).normal(size=16)
    exact = decompose(scores[None], 0.1)
    made = estimate(every_state(4), scores, 0.1, tolerance=1e-9)
    effects = np.zeros((2, 16))
    effects[made.relation, made.subset.astype(int)] = made.effect
    np.testing.assert_allclose(effects, np.stack([exact.and_effects[0], exact.or_effects[0]]), atol=1e-6)
    assert np.isnan(held_out_r2(made.states, scores, made.model(made.states.subset)))


def test_scores_without_structure_are_seen_by_the_held_out_states():
    states = sample_states(20, 200)
    scores = np.random.default_rng(1).normal(size=200)
    made = estimate(states, scores, zeta=0.05)
    assert made.mismatch <= 0.05 * (1 + 1e-9)
    assert held_out_r2(states, scores, made.model(states.subset)) < 0.3


def test_the_same_states_at_every_step():
    states = sample_states(40, 300, seed=7)
    again = sample_states(40, 300, seed=7)
    assert np.array_equal(states.subset, again.subset)
    assert np.array_equal(states.held_out, again.held_out)
    assert np.unique(states.subset).size == 300
    assert states.held_out.sum() == round(HELD_OUT * 298)
    assert not states.held_out[[0, -1]].any()
    assert (int(states.subset[0]), int(states.subset[-1])) == (0, 2**40 - 1)
    assert {4, 20, 36} <= set(orders_of(states.subset).tolist())


def test_proxyspex_finds_strong_and_effects_and_says_that_nothing_certifies_it(tmp_path):
    pytest.importorskip("lightgbm", reason="the extra `spex` is not installed")
    states = sample_states(10, 400)
    subset = np.array([0b1, 0b110, 0b111000], dtype=np.uint64)
    scores = scores_of((np.zeros(3, dtype=int), subset, np.array([2.0, -1.5, 1.0])), states.subset)
    np.savez(tmp_path / "s.npz", masks=masks_of(states.subset, 10), scores=scores)
    (record,) = decompose_file(tmp_path / "s.npz", 0.0, "proxyspex")
    assert [item.subset for item in record.interactions[:2]] == [0b1, 0b110]
    assert {item.relation for item in record.interactions} == {"AND"}
    assert record.held_out_r2 > 0.9
    assert "not optimal: relative gap unknown (proxyspex)" in render([record])


def test_proxyspex_leaves_the_threads_of_others_as_they_were():
    """LightGBM sets that of libgomp, which PyTorch may share: scores would change in their last digits."""
    pytest.importorskip("lightgbm", reason="the extra `spex` is not installed")
    torch = pytest.importorskip("torch", reason="the extra `engine` is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    states = sample_states(8, 100)
    estimate_by_proxyspex(states, np.random.default_rng(0).normal(size=100))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_proxyspex_without_its_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(SftscopeError, match=r"pip install 'sftscope\[spex\]'"):
        estimate_by_proxyspex(sample_states(5, 20), np.arange(20.0))


@pytest.mark.long
def test_spex_finds_and_effects_from_the_states_that_it_asks_for(tmp_path):
    pytest.importorskip("shapiq", reason="the extra `spex` is not installed")
    states = spex_states(12, 700)
    assert 500 < (~states.held_out).sum() <= 700
    subset = np.array([0b1, 0b110, 0b111000], dtype=np.uint64)
    game = np.zeros(3, dtype=int), subset, np.array([2.0, -1.5, 1.0])
    scores = scores_of(game, states.subset)
    before = np.random.get_state()[1].copy()
    np.savez(tmp_path / "s.npz", masks=masks_of(states.subset, 12), scores=scores)
    (record,) = decompose_file(tmp_path / "s.npz", 0.0, "spex")
    assert np.array_equal(np.random.get_state()[1], before)  # its draws disturb nobody's
    assert [item.subset for item in record.interactions[:3]] == subset.tolist()
    assert record.held_out_states == states.held_out.sum()
    assert record.held_out_r2 > 0.999
    assert "AND effects, found of up to" in render([record])
    assert spex_states(12, 700, seed=1).subset.tolist() != states.subset.tolist()


@pytest.mark.long
def test_spex_on_other_states_is_one_line():
    pytest.importorskip("shapiq", reason="the extra `spex` is not installed")
    with pytest.raises(SftscopeError, match="not the masked states that SPEX asks for"):
        estimate_by_spex(sample_states(10, 300), np.zeros(300))
    with pytest.raises(SftscopeError, match="SPEX needs more than 100 masked states for 20 words"):
        spex_states(20, 100)


@pytest.mark.parametrize("n", [10, 40])
def test_a_sparse_moebius_transform_finds_and_effects_alone(n, tmp_path):
    states = sample_states(n, 300)
    relation, subset = np.zeros(3, dtype=int), np.array([0b1, 0b110, 0b111000], dtype=np.uint64)
    scores = scores_of((relation, subset, np.array([2.0, -1.5, 1.0])), states.subset)
    np.savez(tmp_path / "s.npz", masks=masks_of(states.subset, n), scores=scores)
    (record,) = decompose_file(tmp_path / "s.npz", 1e-3, "mobius")
    assert {(item.relation, item.subset) for item in record.interactions} == {("AND", int(s)) for s in subset}
    assert record.gap <= 1e-3
    assert record.held_out_r2 > 0.999
    assert "AND effects of up to 4 words and of complete masked states; R²" in render([record])
    by_or = scores_of((np.ones(1, dtype=int), np.array([0b11], dtype=np.uint64), np.ones(1)), states.subset)
    made = estimate(states, by_or, 1e-3, only_and=True)
    assert set(zip(made.relation.tolist(), made.subset.tolist(), strict=True)) == {(0, 1), (0, 2), (0, 3)}


@pytest.mark.parametrize("n", [10, 18])
def test_replicates_are_the_estimates_of_the_same_states_resampled(n):
    game, states = planted_game(n, 5, seed=3), sample_states(n, 160)
    scores = scores_of(game, states.subset) + np.random.default_rng(0).normal(scale=0.05, size=160)
    made, again = (estimate(states, scores, 0.1, replicates=3) for _ in range(2))
    assert len(made.replicates) == 3
    for one, two in zip(made.replicates, again.replicates, strict=True):
        assert np.array_equal(one.subset, two.subset)
        assert np.array_equal(one.effect, two.effect)
    assert len({part.effect.tobytes() for part in made.replicates}) == 3
    # each matches the states that it was made from, and of another score of the same states it has the same states
    matched = np.flatnonzero(~states.held_out)[1:]
    for number, part in enumerate(made.replicates):
        own = states.subset[matched[resampled(len(matched), number)]]
        h = made.bias + triggers(own, part.relation, part.subset) @ part.effect
        assert np.abs(h - scores[matched[resampled(len(matched), number)]]).max() <= 0.1 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("states", "scores", "words"),
    [
        (every_state(3), np.zeros(3), "one score per masked state"),
        (States(3, np.arange(1, 8, dtype=np.uint64), np.zeros(7, dtype=bool)), np.zeros(7), "with no word"),
        (every_state(2), np.array([0.0, np.nan, 1.0, 0.0]), "score 1 is not a finite number"),
        (sample_states(14, 10_001), np.zeros(10_001), "a sample of 10001 masked states: expected at most 10000"),
    ],
)
def test_what_cannot_be_estimated_is_one_line(states, scores, words):
    with pytest.raises(SftscopeError, match=words):
        estimate(states, scores, 0.1)


def test_decompose_labels_an_estimate(tmp_path):
    game, subsets = planted_game(18, 4, seed=2), sample_states(18, 160).subset[::-1]
    np.savez(tmp_path / "sampled.npz", masks=masks_of(subsets, 18), scores=scores_of(game, subsets))
    (record,) = json.loads(sftscope("decompose", tmp_path / "sampled.npz", "--zeta", "0.01", "--json").stdout)
    assert record["estimated"] is True
    assert record["masked_states"] == 160
    assert record["held_out_r2"] > 0.99
    assert {item["subset"] for item in record["interactions"][:4]} == set(game[1].tolist())
    text = sftscope("decompose", tmp_path / "sampled.npz", "--zeta", "0.01").stdout
    assert "ESTIMATED from 160 of 2^18 masked states" in text


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"masks": np.ones((2, 3))}, "expected an archive of masks"),
        ({"masks": np.full((2, 3), 2), "scores": np.zeros(2)}, "masks: expected 0 and 1"),
        ({"masks": np.eye(3, dtype=bool), "scores": np.array(["a", "b", "c"])}, "scores: expected numbers"),
        ({"masks": np.eye(3, dtype=bool), "scores": np.zeros(3)}, "with no word and with all words"),
        ({"masks": np.array([[0, 0], [1, 1], [1, 1]]), "scores": np.zeros(3)}, "1 masked states are given twice"),
        ({"masks": np.ones((3, 65), dtype=bool), "scores": np.zeros(3)}, "65 words"),
    ],
)
def test_decompose_refuses_archives_of_something_else(tmp_path, arrays, words):
    np.savez(tmp_path / "sampled.npz", **arrays)
    assert words in fails_with_one_line("decompose", tmp_path / "sampled.npz")


def test_decompose_refuses_what_is_no_archive(tmp_path):
    (tmp_path / "sampled.npz").write_bytes(b"PK\x03\x04 nonsense")
    assert "sampled.npz" in fails_with_one_line("decompose", tmp_path / "sampled.npz")
