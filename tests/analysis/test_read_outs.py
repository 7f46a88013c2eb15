"""Shapley, Banzhaf and Shapley interactions of a score, against shapiq and by hand; exchange with shapiq."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapiq import ExactComputer, InteractionValues

from sftscope.analysis.shapley import (
    banzhaf_values,
    from_shapiq,
    k_shapley_interactions,
    moebius_values,
    shapley_interactions,
    shapley_values,
    to_shapiq,
)
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import orders

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
    for k in {1, min(2, n), min(3, n)}:
        expected = dense(exact("k-SII", k), n)
        np.testing.assert_allclose(k_shapley_interactions(scores, k), expected, atol=1e-9)
        sii = np.where((orders(n) <= k) & (orders(n) > 0), shapley_interactions(scores), 0)
        np.testing.assert_allclose(sii, dense(exact("SII", k), n), atol=1e-9)


def test_two_words_by_hand() -> None:
    """v = 1, 3, 2, 8: m = 2, 1 and 8 - 3 - 2 + 1 = 4; each word takes half of the 4."""
    scores = np.array([1.0, 3.0, 2.0, 8.0])
    assert moebius_values(scores).tolist() == [0, 2, 1, 4]
    assert shapley_values(scores).tolist() == [4, 3]
    assert banzhaf_values(scores).tolist() == [4, 3]
    assert k_shapley_interactions(scores, 2).tolist() == [0, 2, 1, 4]


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 7))
def test_shapley_values_and_k_sii_share_out_the_whole(seed: int, n: int) -> None:
    scores = np.random.default_rng(seed).normal(size=1 << n)
    whole = scores[-1] - scores[0]
    assert shapley_values(scores).sum() == pytest.approx(whole)
    for k in range(1, n + 1):
        assert k_shapley_interactions(scores, k).sum() == pytest.approx(whole)
    np.testing.assert_allclose(k_shapley_interactions(scores, n), moebius_values(scores), atol=1e-9)


def test_shapiq_reads_what_is_written_and_the_other_way_round(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=16)
    values = k_shapley_interactions(scores, 2)
    file = tmp_path / "values.json"
    file.write_text(json.dumps(to_shapiq(values, index="k-SII", max_order=2, bias=float(scores[0]))))
    read = InteractionValues.from_json_file(file)
    assert (read.n_players, read.index, read.max_order) == (4, "k-SII", 2)
    np.testing.assert_allclose(dense(read, 4), values)
    theirs = computer(scores)("k-SII", 2)
    theirs.to_json_file(file)
    name, back = from_shapiq(file.read_text(), source="values.json")
    assert name == "k-SII"
    back[0] = 0
    np.testing.assert_allclose(back, values, atol=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"metadata": {"n_players": 99, "index": "SV"}, "data": {}}',
        '{"metadata": {"n_players": 2, "index": "SV"}, "data": {"5": 1.0}}',
        '{"metadata": {"n_players": 2, "index": "SV"}, "data": {"1": NaN}}',
        '{"metadata": {"n_players": 2, "index": "SV"}, "data": {"\\u001b": 1.0}}',
    ],
)
def test_what_is_no_such_file_is_one_safe_line(text: str) -> None:
    with pytest.raises(SftscopeError, match=r"values\.json: not InteractionValues") as error:
        from_shapiq(text, source="values.json")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("k", [0, 3])
def test_k_is_between_one_and_n(k: int) -> None:
    with pytest.raises(ValueError, match="expected 1 ≤ k ≤ 2"):
        k_shapley_interactions(np.zeros(4), k)
