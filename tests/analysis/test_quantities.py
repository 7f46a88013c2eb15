"""Every quantity of a class over the steps: by hand, against the plain definition, and its laws."""

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import counted_history, history_of, random_history, seeds
from sample_history import write_sample_run
from sftscope.analysis.comparison.baseline_llm import match_probes, reference_signs
from sftscope.analysis.run.effect_table import EffectTable, measure_mismatch
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.class_sums import class_sums, emerged_sums, jaccard_of_neighbours
from sftscope.analysis.sets.evolution import EARLY, LATE, Change, Evolution
from sftscope.analysis.sets.thresholds import RULES, ThresholdRule
from sftscope.analysis.sets.views import Selection, backbone, changes, orders_view, trends
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.masked_states import every_state, sample_states, triggers
from sftscope.lattice.transforms import logical_model
from sftscope.store import Pairs


def by_hand() -> RunHistory:
    """One probe of 2 words, 3 steps; AND on {0}, {1}, {0,1}, OR on {0,1}. τ will be 0.1.

    step 0: AND{0} = 2, AND{1} = -1, AND{01} = 0.5.  step 1: AND{0} = 3, OR{01} = -1.
    step 2: AND{0} = 4, AND{1} = -3, OR{01} = -1, AND{01} = 0.05 (below τ).
    """
    effects = np.zeros((3, 2, 4))
    effects[0, 0, 1:] = 2, -1, 0.5
    effects[1, 0, 1], effects[1, 1, 3] = 3, -1
    effects[2, 0, 1:], effects[2, 1, 3] = (4, -3, 0.05), -1
    return history_of([effects])


TAU = ThresholdRule("absolute", 0.1)


def test_sums_and_ratios_by_hand() -> None:
    """Step 2 against 0: removed {AND{01}: 0.5}; preserved AND{0} = 4, AND{1} = -3; emerged OR{01} = -1."""
    parts = class_sums(Evolution(by_hand(), TAU), 0)
    removed, preserved, emerged = (parts[change] for change in Change)
    assert removed.count.tolist() == [0, 2, 1]  # step 1: AND{1} = -1 and AND{01} = 0.5, of step 0
    assert removed.effect.tolist() == [0, -0.5, 0.5]
    assert removed.strength.tolist() == [0, 1.5, 0.5]
    assert preserved.count.tolist() == [3, 1, 2]
    assert preserved.effect.tolist() == [1.5, 3, 1]
    assert emerged.effect.tolist() == [0, -1, -1]
    assert preserved.uncancelled[2] == pytest.approx(1 / 7)  # |4 - 3| / (4 + 3)
    assert removed.uncancelled[1] == pytest.approx(0.5 / 1.5)
    assert preserved.contribution[2] == pytest.approx(0.5)
    assert emerged.contribution[1] == -1
    assert emerged.contribution_absolute[1] == 1
    assert preserved.contribution_strength[2] == pytest.approx(3.5)
    assert preserved.mean_order.tolist() == [pytest.approx(4 / 3), 1, 1]
    assert np.isnan(emerged.uncancelled[0])
    assert np.isnan(removed.contribution[0])


def test_the_trajectory_option_by_hand() -> None:
    """AND{1} left at step 1 and came back: at step 2 it is removed and emerged, not preserved."""
    parts = class_sums(Evolution(by_hand(), TAU), 0, trajectory=True)
    removed, preserved, emerged = (parts[change] for change in Change)
    assert preserved.effect.tolist() == [1.5, 3, 4]
    assert removed.effect[2] == -0.5  # AND{1} = -1 and AND{01} = 0.5 of step 0
    assert emerged.effect[2] == -4  # AND{1} = -3 and OR{01} = -1


def test_jaccard_of_neighbours_by_hand() -> None:
    """Ω: {a, b, c}, {a, d}, {a, b, d}: 1/4, then 2/3."""
    assert jaccard_of_neighbours(Evolution(by_hand(), TAU), 0)[1:].tolist() == pytest.approx([1 / 4, 2 / 3])


def test_backbone_cross_entropy_by_hand() -> None:
    """-log sigmoid of preserved 1, removed 0.5 and emerged -1 at step 2, without and with b."""
    history = by_hand()
    rows = {row.name: row for row in backbone(Evolution(history, TAU), Selection(2)).rows}
    for name, total in (("preserved", 1.0), ("removed", 0.5), ("emerged", -1.0)):
        assert rows[name].cross_entropy_without_bias[2] == pytest.approx(np.log(1 + np.exp(-total)))
        bias = history.probes[0].bias[2]
        assert rows[name].cross_entropy[2] == pytest.approx(np.log(1 + np.exp(-total - bias)))
    assert rows["bias alone"].cross_entropy == pytest.approx(np.log(1 + np.exp(-history.probes[0].bias)))
    assert rows["bias alone"].cross_entropy_without_bias == pytest.approx([np.log(2)] * 3)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (48, {"removed": 4.32, "preserved": 4.00, "bias alone": 4.54}),
        (120, {"removed": 9.83, "preserved": 8.71, "bias alone": 9.84}),
    ],
)
def test_the_backbone_of_a_real_run_compares_interactions_not_biases(step: int, expected: dict[str, float]) -> None:
    """Under max-run; the bias of SmolLM2 moves so much that each class had better share it."""
    history = load_history(Path(__file__).parents[2] / "sample_runs" / "smollm2")
    view = backbone(Evolution(history, ThresholdRule.parse("max-run"), hysteresis=1), Selection(history.index_of(step)))
    rows = {row.name: row for row in view.rows}
    for name, value in expected.items():
        assert rows[name].cross_entropy[view.steps.index(step)] == pytest.approx(value, abs=0.01)


def test_matching_errors_by_hand() -> None:
    """v = 1, 2, 3, 6 and the model 1 + 1·[0] + 2·[1]: errors 0, 0, 0, 2; scales |6 - 1| and 6 - 1."""
    scores = np.array([1.0, 2.0, 3.0, 6.0])
    table = EffectTable.of_dense(np.array([[[0, 1.0, 2.0, 0], [0, 0, 0, 0.0]]]))
    model = scores[0] + table.model(0, every_state(2))
    assert metrics.matching_errors(scores, model).tolist() == [0, 0, 0, 0.4]
    assert float(metrics.matching_error(scores, model)) == pytest.approx(0.1)
    only_first = np.array([[False, True, False, False], [False] * 4])
    part = scores[0] + table.model(0, every_state(2), only_first)
    assert metrics.matching_errors(scores, part).tolist() == pytest.approx([0, 0, 0.4, 0.8])
    dipping = np.array([1.0, -3.0, 3.0, 2.0])  # |v(N) - v(∅)| = 1, max - min = 6
    apart = metrics.matching_errors(dipping, np.ones(4), scale="range")
    assert apart.tolist() == pytest.approx([0, 4 / 6, 2 / 6, 1 / 6])
    assert metrics.matching_errors(dipping, np.ones(4)).tolist() == [0, 4, 2, 1]


def test_sparsity_curve_by_hand() -> None:
    """Two probes of one word: strengths 2, 1 and 0.5, 0, relative to 2."""
    curve = metrics.sparsity_curve([np.array([[0, 2.0], [0, -1.0]]), np.array([[0, -0.5], [0, 0.0]])], points=4)
    assert curve.tolist() == [1, 0.5, 0.25, 0]


def test_generalizable_ratio_by_hand() -> None:
    """The baseline LLM ends with AND{0} = 5, AND{1} = +2 (other sign) and OR{01} = -0.4."""
    other = np.zeros((1, 2, 4))
    other[0, 0, 1:3], other[0, 1, 3] = (5, 2), -0.4
    evolution = Evolution(by_hand(), TAU)
    signs = reference_signs(evolution.history, Evolution(history_of([other]), TAU))
    parts = class_sums(evolution, 0, reference=signs[0])
    removed, preserved, emerged = (parts[change] for change in Change)
    assert preserved.generalizable.tolist() == [pytest.approx(1 / 3), 1, 0.5]
    assert emerged.generalizable[1:].tolist() == [1, 1]
    assert removed.generalizable[2] == 0
    assert trends(evolution, Selection(2), references=signs).classes[Change.PRESERVED].generalizable_mean[2] == 0.5


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(0, 4), st.booleans(), st.sampled_from(sorted(RULES)))
def test_curves_are_the_plain_definitions(seed: int, base: int, trajectory: bool, rule: str) -> None:
    evolution = Evolution(random_history(seed), ThresholdRule.parse(rule))
    other = Evolution(random_history(seed + 1), ThresholdRule.parse(rule))
    signs = reference_signs(evolution.history, other)
    for p, part in enumerate(evolution.history.probes):
        sums = class_sums(evolution, p, base, trajectory=trajectory, reference=signs[p])
        for now in range(5):
            for change, members in evolution.partition(p, now, base, trajectory=trajectory).items():
                effects = part.effects[base if change is Change.REMOVED else now]
                shared = np.sign(effects[members]) == signs[p][members]
                found = sums[change]
                assert found.count[now] == members.sum()
                assert found.effect[now] == pytest.approx(effects[members].sum(), abs=1e-12)
                assert found.strength[now] == pytest.approx(np.abs(effects[members]).sum(), abs=1e-12)
                if members.any():
                    order = np.broadcast_to(part.table.orders, members.shape)[members].mean()
                    uncancelled = abs(effects[members].sum()) / np.abs(effects[members]).sum()
                    assert found.mean_order[now] == pytest.approx(order)
                    assert found.uncancelled[now] == pytest.approx(uncancelled, abs=1e-12)
                else:
                    assert np.isnan([found.mean_order[now], found.uncancelled[now]]).all()
                assert found.shared[now] == shared.sum()
                for ratio in (found.uncancelled[now], found.generalizable[now]):
                    assert np.isnan(ratio) or 0 <= ratio <= 1


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(0, 4))
def test_early_and_late_are_the_plain_definition(seed: int, boundary: int) -> None:
    evolution = Evolution(random_history(seed))
    for p, part in enumerate(evolution.history.probes):
        early = evolution.seen_by(p, boundary)
        sums = emerged_sums(evolution, p, 0, boundary)
        assert np.array_equal(early, np.logical_or.reduce([evolution.omega(p, t) for t in range(boundary + 1)]))
        for found, seen in ((sums[EARLY], early), (sums[LATE], ~early)):
            for now in range(5):
                members = evolution.partition(p, now)[Change.EMERGED] & seen
                assert found.count[now] == members.sum()
                assert found.effect[now] == pytest.approx(part.effects[now][members].sum(), abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_everything_a_run_encodes_and_b_is_the_whole_score(seed: int) -> None:
    """With τ = 0 the classes preserved and emerged sum to h(x_N) - b = v(x_N) - b within ζ."""
    evolution = Evolution(random_history(seed), ThresholdRule("absolute", 0))
    for p, part in enumerate(evolution.history.probes):
        sums = class_sums(evolution, p)
        total = sums[Change.PRESERVED].effect + sums[Change.EMERGED].effect
        np.testing.assert_allclose(total + part.bias, part.output, atol=0.02)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_a_table_is_its_dense_effects(seed: int) -> None:
    part = random_history(seed).probes[1]
    dense, kept = part.effects, np.random.default_rng(seed).random(part.table.effect.size) < 0.5
    for t in range(5):
        assert np.array_equal(part.table.at(t), dense[t])
    assert np.array_equal(part.table.series(1, 6), dense[:, 1, 6])
    assert np.array_equal(part.table.strongest, np.abs(dense).max(axis=(1, 2)))
    some = part.table.dense(np.where(kept, part.table.effect, 0))
    model = logical_model(part.bias, some[:, 0], some[:, 1])
    apart = np.abs(part.scores - model)
    found = measure_mismatch(part.scores, part.states, part.table, kept)
    np.testing.assert_allclose(found.mean, apart.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.largest, apart.max(axis=1), atol=1e-12)


def test_sampled_steps_of_other_effects_each_need_no_matrix_of_all_states_and_effects() -> None:
    random, states = np.random.default_rng(0), sample_states(14, 2458)
    steps = []
    for _ in range(16):
        subset = random.choice(1 << 14, 1300, replace=False).astype(np.uint64)
        steps.append(Pairs(random.integers(0, 2, 1300).astype(np.uint8), subset, random.normal(size=1300)))
    table = EffectTable.of_pairs(14, steps, every=False)
    kept = random.random(table.effect.size) < 0.5
    tracemalloc.start()
    found = measure_mismatch(np.zeros((16, 2458)), states, table, kept)
    assert tracemalloc.get_traced_memory()[1] < 30e6  # the matrix: 500 MB
    tracemalloc.stop()
    last, own = table.pairs(15), kept[table.within(15)]
    direct = triggers(states.subset, last.relation[own], last.subset[own]) @ last.effect[own]
    np.testing.assert_allclose(found.largest[15], np.abs(direct).max(), atol=1e-9)


@settings(deadline=None, max_examples=15)
@given(seeds, st.permutations(range(3)))
def test_renaming_and_reordering_the_probes_changes_nothing(seed: int, order: Sequence[int]) -> None:
    history = random_history(seed)
    renamed = [replace(part, probe=replace(part.probe, id=f"other {i}")) for i, part in enumerate(history.probes)]
    moved = replace(history, probes=tuple(renamed[i] for i in order))
    first, second = (trends(Evolution(run), Selection(4)) for run in (history, moved))
    for change in Change:
        for name in ("count_mean", "strength_mean", "uncancelled_mean", "uncancelled_pooled", "contribution_mean"):
            one, two = (getattr(part.classes[change], name) for part in (first, second))
            assert one == pytest.approx(two, nan_ok=True)


def test_a_step_without_any_interaction_is_a_gap_in_the_table() -> None:
    effects = np.zeros((4, 2, 8))
    effects[1, 0, 3] = 1.0
    table = EffectTable.of_dense(effects)
    assert table.strongest.tolist() == [0, 1, 0, 0]
    assert table.until(0).dense().sum() == 0
    assert EffectTable.of_dense(np.zeros((3, 2, 4))).strongest.tolist() == [0, 0, 0]


def test_a_large_run_is_held_in_float32_with_the_same_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sample_run(tmp_path / "run", n_steps=6, n_probes=2, n=5)
    whole = load_history(path)
    monkeypatch.setattr("sftscope.analysis.run.run_history.LARGE", 100)
    small = load_history(path)
    assert whole.probes[0].table.effect.dtype == whole.probes[0].scores.dtype == np.float64
    assert small.probes[0].table.effect.dtype == small.probes[0].scores.dtype == np.float32
    first, second = (trends(Evolution(run), Selection(5)) for run in (whole, small))
    assert second.matching_error_all == pytest.approx(first.matching_error_all, rel=1e-3)
    for change in Change:
        assert second.classes[change].count_mean == first.classes[change].count_mean
        strengths = second.classes[change].strength_mean, first.classes[change].strength_mean
        assert strengths[0] == pytest.approx(strengths[1], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "\x1b"}, "has no probe 'p01'"),
        ({"instruction": "else"}, "the instruction of probe 'p01' differ"),
        ({"input": "x y c d"}, "the text of probe 'p01' differ"),
        ({"words": ((0, 1),)}, "the chosen words of probe 'p01' differ"),
    ],
)
def test_runs_with_other_probes_are_refused_in_one_line(change: dict[str, object], reason: str) -> None:
    history = random_history(0)
    other = replace(history.probes[1], probe=replace(history.probes[1].probe, **change))
    foreign = replace(history, probes=(history.probes[0], other, history.probes[2]))
    with pytest.raises(SftscopeError, match=reason) as error:
        match_probes(history, foreign)
    assert str(error.value).isprintable()
    with pytest.raises(SftscopeError, match="has no probe"):
        match_probes(replace(history, probes=history.probes[:2]), history)


def test_probes_may_come_in_another_order_and_with_another_response() -> None:
    history = random_history(0)
    answered = [replace(part, probe=replace(part.probe, response="else")) for part in history.probes[::-1]]
    assert match_probes(history, replace(history, probes=tuple(answered))) == [2, 1, 0]


def test_one_checkpoint_and_empty_classes_are_gaps() -> None:
    over_time = trends(Evolution(counted_history([[3], [2]])), Selection(0))
    assert over_time.classes[Change.EMERGED].count_mean == [0.0]
    assert np.isnan(over_time.classes[Change.EMERGED].contribution_mean).all()
    assert np.isnan(over_time.jaccard_neighbours).all()


def test_the_views_follow_the_trajectory_option() -> None:
    evolution, selection = Evolution(by_hand(), TAU), Selection(2, trajectory=True)
    expected = {Change.REMOVED: 2, Change.PRESERVED: 1, Change.EMERGED: 2}
    assert changes(evolution, selection).counts == expected
    assert {change: part.count_mean[2] for change, part in trends(evolution, selection).classes.items()} == expected
    counted = {
        change: sum(row.count_mean for row in rows)
        for change, rows in orders_view(evolution, selection).classes.items()
    }
    assert counted == expected
    rows = {row.name: row for row in backbone(evolution, selection).rows}
    assert rows["preserved"].cross_entropy_without_bias[2] == pytest.approx(np.log(1 + np.exp(-4)))
