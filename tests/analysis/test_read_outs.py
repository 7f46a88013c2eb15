"""Möbius, Shapley and Banzhaf values of a score, against shapiq and by hand; shapiq reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapiq import ExactComputer, InteractionValues

from sftscope.analysis.shapley import banzhaf_values, moebius_values, shapley_values, to_shapiq

seeds = st.integers(0, 2**31)


def computer(scores: np.ndarray) -> ExactComputer:
    n = scores.size.bit_length() - 1
    weights = 1 << np.arange(n)
    return ExactComputer(lambda states: scores[np.atleast_2d(states).astype(int) @ weights], n_players=n)


def dense(values: InteractionValues, n: int) -> np.ndarray:
    out = np.zeros(1 << n)
    for players, value in values.dict_values.items():
        out[sum(1 << player for player in players)] = value
    out[0] = 0
    return out


@pytest.mark.parametrize("n", [1, 2, 3, 6, 10])
def test_shapiq_agrees(n: int) -> None:
    scores = np.random.default_rng(n).normal(size=1 << n)
    exact = computer(scores)
    words = [1 << i for i in range(n)]
    np.testing.assert_allclose(moebius_values(scores), dense(exact("Moebius", n), n), atol=1e-9)
    np.testing.assert_allclose(shapley_values(scores), dense(exact("SV", 1), n)[words], atol=1e-9)
    np.testing.assert_allclose(banzhaf_values(scores), dense(exact("BV", 1), n)[words], atol=1e-9)


def test_two_words_by_hand() -> None:
    """v = 1, 3, 2, 8: m = 2, 1 and 8 - 3 - 2 + 1 = 4; each word takes half of the 4."""
    scores = np.array([1.0, 3.0, 2.0, 8.0])
    assert moebius_values(scores).tolist() == [0, 2, 1, 4]
    assert shapley_values(scores).tolist() == [4, 3]
    assert banzhaf_values(scores).tolist() == [4, 3]


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 7))
def test_shapley_values_share_out_the_whole(seed: int, n: int) -> None:
    scores = np.random.default_rng(seed).normal(size=1 << n)
    whole = scores[-1] - scores[0]
    assert shapley_values(scores).sum() == pytest.approx(whole)


def test_shapiq_reads_what_is_written(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=16)
    values = moebius_values(scores)
    file = tmp_path / "values.json"
    file.write_text(json.dumps(to_shapiq(values, index="Moebius", max_order=4, bias=float(scores[0]))))
    read = InteractionValues.from_json_file(file)
    assert (read.n_players, read.index, read.max_order) == (4, "Moebius", 4)
    np.testing.assert_allclose(dense(read, 4), values)
