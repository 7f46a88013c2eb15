"""More words than can be enumerated: planted games are found, the bound holds for all columns, and doubt is told."""

import json

import numpy as np
import pytest
from scipy.optimize import linprog
from test_cli import fails_with_one_line, sftscope

from engine.decomposition import decompose
from engine.decomposition.estimated import estimate, sample_masks
from engine.decomposition.lattice_program import effect_weights
from engine.decomposition.sampled_program import SampledProgram, entries, subsets_of
from engine.errors import SftscopeError


def planted_game(n, terms, seed):
    """relation, subset, effect (terms,): AND and OR of 1 to 4 words, no two the same, none weak."""
    random, game = np.random.default_rng(seed), {}
    while len(game) < terms:
        order = int(random.integers(1, 5))
        subset = sum(1 << int(i) for i in random.choice(n, order, replace=False))
        relation = int(random.integers(0, 2)) if order > 1 else 0
        game[relation, subset] = float(random.choice([-1, 1]) * random.uniform(0.5, 2.0))
    relation, subset = zip(*game, strict=True)
    return np.array(relation), np.array(subset, dtype=np.uint64), np.array(list(game.values()))


def scores_of(game, masks):
    relation, subset, effect = game
    return -3.0 + entries(subsets_of(masks), relation, subset) @ effect


@pytest.mark.parametrize(("n", "terms", "count"), [(17, 6, 220), (20, 8, 260), (64, 4, 240)])
def test_planted_games_are_found_and_predict_what_was_held_out(n, terms, count):
    game, masks = planted_game(n, terms, seed=n), sample_masks(n, count)
    scores = scores_of(game, masks)
    made = estimate(masks, scores, zeta=1e-3 * np.ptp(scores))
    strong = np.abs(made.effect) > 0.05 * np.abs(made.effect).max()
    found = set(zip(made.relation[strong].tolist(), made.subset[strong].tolist(), strict=True))
    assert found == set(zip(game[0].tolist(), game[1].tolist(), strict=True))
    assert made.held_out_r2 >= 0.99
    assert made.gap <= 1e-3
    assert made.mismatch <= made.zeta * 1.001
    fresh = sample_masks(n, 400, seed=99)
    assert np.corrcoef(made.model(fresh), scores_of(game, fresh))[0, 1] > 0.995


@pytest.mark.parametrize("seed", range(4))
def test_the_certificate_is_the_optimum_of_all_columns_at_once(seed):
    """n = 5: each of the 2·(2^5 − 1 − 1) − 5 columns written down and given to HiGHS in one piece."""
    random = np.random.default_rng(seed)
    masks = sample_masks(5, 20, seed)
    masks = masks[masks.any(axis=1)]
    v = random.normal(size=len(masks))
    program, zeta = SampledProgram(masks), 0.05
    solved = program.solve(v, zeta, tolerance=1e-9)
    columns = np.flatnonzero(np.isfinite(program._least.ravel()))
    relation, subset = program.split(columns)
    assert len(columns) == 2 * 30 - 5
    weights, block = effect_weights(5)[relation, subset], entries(subsets_of(masks), relation, subset)
    whole = linprog(
        np.concatenate([weights, weights]),
        A_ub=np.block([[block, -block], [-block, block]]),
        b_ub=np.concatenate([v + zeta, zeta - v]),
    )
    assert solved.missed <= 1e-9
    assert solved.lower_bound <= whole.fun * (1 + 1e-9)
    assert solved.objective == pytest.approx(whole.fun, rel=2e-5)


def test_the_prices_of_all_columns_are_those_of_the_columns_written_down():
    masks = sample_masks(9, 60)
    program, u = SampledProgram(masks), np.random.default_rng(0).normal(size=60)
    relation, subset = program.split(np.arange(program.n_columns))
    assert len(subset) == 2 * sum((9, 36, 84, 126))
    np.testing.assert_allclose(
        program.prices(u).ravel(), entries(subsets_of(masks), relation, subset).T @ u, atol=1e-12
    )


def test_with_every_state_it_is_the_exact_decomposition():
    masks = np.array([[subset >> i & 1 for i in range(4)] for subset in range(16)], dtype=bool)
    scores = np.random.default_rng(3).normal(size=16)
    exact = decompose(scores[None], 0.1)
    made = estimate(masks, scores, 0.1, held_out=0.0, tolerance=1e-9)
    effects = np.zeros((2, 16))
    effects[made.relation, made.subset.astype(int)] = made.effect
    np.testing.assert_allclose(effects, np.stack([exact.and_effects[0], exact.or_effects[0]]), atol=1e-6)
    assert np.isnan(made.held_out_r2)


def test_scores_without_structure_are_seen_by_the_held_out_states():
    masks = sample_masks(20, 200)
    made = estimate(masks, np.random.default_rng(1).normal(size=200), zeta=0.05)
    assert made.mismatch <= 0.0501
    assert made.held_out_r2 < 0.3


def test_the_same_masks_at_every_step():
    masks = sample_masks(40, 300, seed=7)
    assert np.array_equal(masks, sample_masks(40, 300, seed=7))
    assert len({row.tobytes() for row in masks}) == 300
    assert masks[0].sum() == 0
    assert masks[1].all()
    assert {4, 20, 36} <= set(masks.sum(axis=1).tolist())


@pytest.mark.parametrize(
    ("masks", "scores", "words"),
    [
        (np.ones((3, 65), dtype=bool), np.zeros(3), "65 words"),
        (np.ones((3, 5), dtype=bool), np.zeros(3), "with no word"),
        (np.eye(3, dtype=bool), np.zeros(2), "expected masks"),
        (np.eye(3, dtype=bool), np.array([0.0, np.nan, 1.0]), "score 1 is not a finite number"),
    ],
)
def test_what_cannot_be_estimated_is_one_line(masks, scores, words):
    with pytest.raises(SftscopeError, match=words):
        estimate(masks, scores, 0.1)


def test_decompose_labels_an_estimate(tmp_path):
    game, masks = planted_game(18, 4, seed=2), sample_masks(18, 160)
    np.savez(tmp_path / "sampled.npz", masks=masks, scores=scores_of(game, masks))
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
    ],
)
def test_decompose_refuses_archives_of_something_else(tmp_path, arrays, words):
    np.savez(tmp_path / "sampled.npz", **arrays)
    assert words in fails_with_one_line("decompose", tmp_path / "sampled.npz")


def test_decompose_refuses_what_is_no_archive(tmp_path):
    (tmp_path / "sampled.npz").write_bytes(b"PK\x03\x04 nonsense")
    assert "sampled.npz" in fails_with_one_line("decompose", tmp_path / "sampled.npz")
