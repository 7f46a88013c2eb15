"""Paired tests of held-out rows: known answers, other people's tables, and the level and power they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sftscope.analysis.conclusions.paired import accuracy_change, best_accuracy, best_loss, loss_change

ROWS, LATER, RUNS, DRAWS = 400, 8, 200, 400
LIMIT = 0.05 + 2 * np.sqrt(0.05 * 0.95 / RUNS)  # what a level of .05 stays below in 98 % of such simulations


def test_with_answers_of_one_length_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    for rows in (2, 3, 10, 41):
        first, second = rng.normal(5, 1, rows), rng.normal(4.8, 1, rows)
        found, expected = loss_change(first, second, np.ones(rows)), stats.ttest_rel(second, first, alternative="less")
        interval = stats.ttest_rel(second, first).confidence_interval()
        assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
        assert found.mean == pytest.approx((second - first).mean())


def test_by_hand():
    """d = -2, -1 with 3 and 1 tokens: θ = -3/4, e = 1/4, -1/4, standard error √(2/1 · 1/8)/4 = 1/8, t = -6."""
    found = loss_change([5.0, 4.0], [3.0, 3.0], [3, 1])
    assert found.mean == -0.75
    assert found.p_value == pytest.approx(stats.t.cdf(-6, 1))
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 1) / 8)
    assert found.p_value + found.p_worse == 1.0


def test_rows_that_all_changed_alike_or_not_at_all():
    assert loss_change([1.0, 2.0], [0.0, 1.0], [1, 1]).p_value == 0.0
    assert loss_change([1.0, 2.0], [2.0, 3.0], [1, 1]).p_value == 1.0
    assert loss_change([1.0, 2.0], [1.0, 2.0], [1, 1]).p_value == 0.5
    for rows in ([], [1.0]):
        alone = loss_change(rows, rows, rows)
        assert (alone.low, alone.high, alone.p_value, alone.p_worse) == (-np.inf, np.inf, 1.0, 1.0)
    assert best_loss([1.0], [[0.5], [0.1]]).tolist() == [1.0, 1.0]


def test_accuracy_is_mcnemars_exact_test():
    """5 gained, 1 lost: P(X ≥ 5) = 7/64; P(X ≥ 1) = 63/64."""
    before = np.array([False] * 5 + [True] * 3 + [False] * 2)
    after = np.array([True] * 5 + [False] + [True] * 2 + [False] * 2)
    found = accuracy_change(before, after)
    assert (found.mean, found.rows) == (0.4, 10)
    assert found.p_value == pytest.approx(7 / 64)
    assert found.p_worse == pytest.approx(63 / 64)
    assert found.low < 0.4 < found.high
    assert accuracy_change(before, before).p_value == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_accuracy_both_ways(pairs):
    before, after = np.array(pairs).T
    there, back = accuracy_change(before, after), accuracy_change(after, before)
    gained, changed = int((after & ~before).sum()), int((after != before).sum())
    expected = stats.binomtest(gained, changed, alternative="greater").pvalue if changed else 1.0
    assert there.p_value == pytest.approx(expected)
    assert (back.mean, back.p_value, back.low) == pytest.approx((-there.mean, there.p_worse, -there.high))


def test_one_later_checkpoint_is_the_single_test_but_for_the_draws():
    rng = np.random.default_rng(1)
    first = rng.normal(5, 1, 100)
    second = first + rng.normal(-0.15, 1, 100)
    p_value = loss_change(first, second, np.ones(100)).p_value
    assert best_loss(first, second, draws=20_000)[0] == pytest.approx(p_value, abs=0.01)
    before, after = rng.random(60) < 0.4, rng.random(60) < 0.55
    assert best_accuracy(before, after, draws=20_000)[0] == pytest.approx(
        accuracy_change(before, after).p_value, abs=0.01
    )


def test_accuracy_that_does_not_change_is_called_better_in_at_most_one_run_of_twenty():
    """400 rows, accuracy .5, 8 later checkpoints that share much with each other."""
    rng, said = np.random.default_rng(2), 0
    for run in range(RUNS):
        right = (rng.random(ROWS) < 0.5) ^ (rng.random((1 + LATER, ROWS)) < 0.1)
        said += best_accuracy(right[0], right[1:], draws=DRAWS, seed=run).min() <= 0.05
    assert said / RUNS <= LIMIT


def runs_of(rng, gain):
    """First and later losses of 400 answers of 1 to 19 tokens; a row's change has a spread of 10 % of the mean loss."""
    tokens = rng.integers(1, 20, ROWS)
    first = rng.gamma(2, 1.25, ROWS) * tokens
    mean = first.sum() / tokens.sum()
    shared, own = rng.normal(size=(1, ROWS)), rng.normal(size=(LATER, ROWS))
    change = -gain + 0.1 * (np.sqrt(0.5) * shared + np.sqrt(0.5) * own)
    return first, first + change * mean * tokens


def test_loss_that_does_not_change_is_called_better_in_at_most_one_run_of_twenty():
    rng = np.random.default_rng(3)
    said = [best_loss(*runs_of(rng, 0.0), draws=DRAWS, seed=run).min() <= 0.05 for run in range(RUNS)]
    assert np.mean(said) <= LIMIT


def test_gains_that_are_skewed_hold_the_level_too():
    """Few rows become much worse and the others a little better, with a mean of zero, as where overfitting begins."""
    rng, said = np.random.default_rng(4), 0
    for run in range(RUNS):
        tokens = rng.integers(1, 20, ROWS)
        worse = rng.gamma(0.5, 1, (1, ROWS)) + rng.gamma(0.5, 1, (LATER, ROWS)) - 1.0
        said += best_loss(np.zeros(ROWS), worse * tokens, draws=DRAWS, seed=run).min() <= 0.05
    assert said / RUNS <= LIMIT


def test_an_improvement_of_two_percent_is_found():
    """1.9 % of the loss on 400 rows: in at least 80 % of runs, after the correction for 8 later checkpoints."""
    rng = np.random.default_rng(5)
    said = [best_loss(*runs_of(rng, 0.019), draws=DRAWS, seed=run).min() <= 0.05 for run in range(RUNS)]
    assert np.mean(said) >= 0.8
