"""Sets, metrics and stages: the laws of Eq. (4)-(14) on random and on planted histories."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import history_of, random_history, seeds
from sample_history import ZETA, write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.thresholds import RULES, ThresholdRule, default_rules, thresholds
from sftscope.analysis.sets.views import Selection, backbone, changes, orders_view, trends
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import logical_model, orders


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(0, 4), st.integers(0, 4), st.booleans(), st.sampled_from(sorted(RULES)))
def test_partition_laws_without_hysteresis(seed: int, now: int, base: int, trajectory: bool, rule: str) -> None:
    evolution = Evolution(random_history(seed), ThresholdRule.parse(rule), 1.0)
    for p, omega in enumerate(evolution.encoded):
        part = evolution.partition(p, now, base, trajectory=trajectory)
        removed, preserved, emerged = (part[change] for change in Change)
        assert np.array_equal(removed | preserved, omega[base])
        assert np.array_equal(preserved | emerged, omega[now])
        assert not (removed & preserved).any()
        assert not (preserved & emerged).any()
        two_point = evolution.partition(p, now, base)
        assert not (preserved & ~two_point[Change.PRESERVED]).any()
        assert trajectory or not (removed & emerged).any()


steps = st.integers(0, 4)
factors = st.floats(0.05, 1.0)


@settings(deadline=None, max_examples=40)
@given(seeds, steps, steps, st.booleans(), st.sampled_from(sorted(RULES)), factors)
def test_partition_laws_with_hysteresis(
    seed: int, now: int, base: int, trajectory: bool, rule: str, factor: float
) -> None:
    evolution = Evolution(random_history(seed), ThresholdRule.parse(rule), factor)
    for p in range(3):
        before, after = evolution.both(p, base), evolution.both(p, now)
        assert not (before.strict & ~before.loose).any()
        part = evolution.partition(p, now, base, trajectory=trajectory)
        removed, preserved, emerged = (part[change] for change in Change)
        assert np.array_equal(removed | preserved | emerged, before.strict | after.strict)
        assert not (preserved & (removed | emerged)).any()
        assert not (removed & ~before.strict).any()
        assert not (emerged & ~after.strict).any()
        assert not (preserved & ~(before.loose & after.loose)).any()
        assert not (before.strict & ~(removed | preserved)).any()
        assert not (after.strict & ~(preserved | emerged)).any()
        if not trajectory:
            assert not (removed & emerged).any()
            assert np.array_equal(removed, before.strict & ~after.loose)
            assert np.array_equal(emerged, after.strict & ~before.loose)
        back = evolution.partition(p, base, now, trajectory=trajectory)
        assert [np.array_equal(back[one], part[other]) for one, other in zip(Change, reversed(Change), strict=True)]


def test_hysteresis_by_hand() -> None:
    """τ = 1: what falls to 0.6 is preserved, to 0.4 removed; what rises from 0.6 is preserved, from 0.4 emerged.

    0.6 to 0.7 is in no class, though neither is clearly absent: it is encoded at neither step.
    """
    effects = np.zeros((2, 2, 8))
    effects[0, 0, 1:6], effects[1, 0, 1:6] = (2, 2, 0.6, 0.4, 0.6), (0.6, 0.4, -2, 2, 0.7)
    part = Evolution(history_of([effects]), ThresholdRule("absolute", 1)).partition(0, 1)
    found = {change: np.flatnonzero(part[change][0]).tolist() for change in Change}
    assert found == {Change.REMOVED: [2], Change.PRESERVED: [1, 3], Change.EMERGED: [4]}
    exact = Evolution(history_of([effects]), ThresholdRule("absolute", 1), 1.0).partition(0, 1)
    found = {change: np.flatnonzero(exact[change][0]).tolist() for change in Change}
    assert found == {Change.REMOVED: [1, 2], Change.PRESERVED: [], Change.EMERGED: [3, 4]}
    diff = changes(Evolution(history_of([effects]), ThresholdRule("absolute", 1)), Selection(1))
    assert {row.subset: row.same_sign for row in diff.rows} == {1: True, 2: None, 3: False, 4: None}
    assert diff.flipped == 1


def test_each_step_has_its_own_threshold() -> None:
    """max-step 50 %: τ is 2 at the base and 0.5 now, so 0.3 now is more than half of it, and 0.9 then is less."""
    effects = np.zeros((2, 2, 4))
    effects[0, 0, 1:], effects[1, 0, 1:] = (4, 3, 0.9), (1, 0.3, 0.8)
    part = Evolution(history_of([effects]), ThresholdRule("max-step", 0.5)).partition(0, 1)
    found = {change: np.flatnonzero(part[change][0]).tolist() for change in Change}
    assert found == {Change.REMOVED: [], Change.PRESERVED: [1, 2], Change.EMERGED: [3]}


@pytest.mark.parametrize("factor", [0, -1, 1.1, float("nan")])
def test_a_hysteresis_that_makes_no_sense_is_refused(factor: float) -> None:
    with pytest.raises(SftscopeError, match="hysteresis: expected a factor above 0 and at most 1"):
        Evolution(random_history(0), hysteresis=factor)


@pytest.mark.parametrize("run", ["smollm2", "gemma3"])
@pytest.mark.parametrize("rule", ["max-step:0.05", "max-run:0.05"])
def test_without_hysteresis_the_sets_are_those_of_the_paper(run: str, rule: str) -> None:
    """Golden values: recorded before there was a hysteresis, the sets of every probe and step as a hash."""
    golden = json.loads((Path(__file__).parent / "golden" / "paper_sets.json").read_text())[f"{run} {rule}"]
    history = load_history(Path(__file__).parents[2] / "sample_runs" / run)
    evolution = Evolution(history, ThresholdRule.parse(rule), 1.0)
    over_time = trends(evolution, Selection(history.steps.size - 1))
    assert over_time.encoded_mean == pytest.approx(golden["encoded_mean"], rel=1e-9)
    for change in Change:
        recorded, digest = golden["classes"][change.value], hashlib.sha256()
        for p in range(len(history.probes)):
            for now in range(history.steps.size):
                digest.update(evolution.partition(p, now)[change].tobytes())
        assert digest.hexdigest()[:16] == recorded["sets"]
        for name in ("count_mean", "strength_mean", "order_mean", "uncancelled_mean", "contribution_mean"):
            values = [np.nan if value is None else value for value in recorded[name]]
            assert getattr(over_time.classes[change], name) == pytest.approx(values, rel=1e-9, nan_ok=True)


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(0, 4))
def test_against_itself_nothing_changes(seed: int, step: int) -> None:
    evolution = Evolution(random_history(seed))
    for p in range(len(evolution.encoded)):
        part = evolution.partition(p, step, step)
        assert not part[Change.REMOVED].any()
        assert not part[Change.EMERGED].any()


@settings(deadline=None, max_examples=40)
@given(seeds, st.floats(0, 1))
def test_metrics_of_any_set(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    members = rng.random((2, 16)) < share
    members[:, 0] = False
    effects = rng.normal(size=(2, 16))
    distribution = metrics.order_distribution(members, effects, orders(4), 4)
    assert distribution[0].sum() - distribution[1].sum() == pytest.approx(np.abs(effects[members]).sum())
    assert distribution[:2].sum() == pytest.approx(effects[members].sum())
    assert distribution[2].sum() == members.sum()
    assert distribution.shape == (3, 5)


def test_cross_entropy_neither_overflows_nor_loses_small_losses() -> None:
    assert metrics.cross_entropy(0.0) == pytest.approx(np.log(2))
    assert metrics.cross_entropy(-1e4) == pytest.approx(1e4)
    assert metrics.cross_entropy(50.0) == pytest.approx(np.exp(-50))


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_all_interactions_match_the_score_within_zeta(seed: int) -> None:
    history = random_history(seed)
    for part in history.probes:
        scale = np.abs(part.output - part.bias)
        model = logical_model(part.bias, part.effects[:, 0], part.effects[:, 1])
        errors = metrics.matching_error(part.scores, model)
        assert np.all(errors[scale > 0] <= ZETA / scale[scale > 0])
        assert np.abs(part.scores - model).max() <= ZETA
        for t in range(history.steps.size):
            one = metrics.matching_error(part.scores[t], part.bias[t] + part.table.model(t, part.states))
            assert one == pytest.approx(errors[t], nan_ok=True)
            full = metrics.cross_entropy(float(part.output[t]))
            alone = metrics.cross_entropy(float(part.effects[t].sum() + part.bias[t]))
            assert alone == pytest.approx(full, abs=ZETA)


def test_matching_error_without_a_scale_is_undefined() -> None:
    assert np.isnan(metrics.matching_error(np.ones(4), np.ones(4)))


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_rules_give_one_tau_a_step_and_the_fixed_ones_do_not_move(seed: int) -> None:
    history = random_history(seed)
    for rule in default_rules():
        tau = thresholds(history, rule)
        assert all(limit.shape == history.steps.shape and (limit >= 0).all() for limit in tau)
        if rule.name in ("max-run", "max-base", "absolute"):
            assert all(np.ptp(limit) == 0 for limit in tau)
        if rule.name in ("pooled-step", "gap"):
            assert all(np.array_equal(limit, tau[0]) for limit in tau)
    for part, limit in zip(history.probes, thresholds(history, ThresholdRule("max-run", 0.5)), strict=True):
        assert limit[0] == 0.5 * np.abs(part.effects).max()


@pytest.mark.parametrize("k", [0, 1, 3, 1000])
def test_top_k_keeps_at_most_k(k: int) -> None:
    evolution = Evolution(random_history(0), ThresholdRule("top-k", k))
    present = np.array([(np.abs(part.effects) > 0).sum(axis=(1, 2)) for part in evolution.history.probes])
    assert np.array_equal(evolution.counts(), np.minimum(present, k))


@pytest.mark.parametrize("text", [*RULES, "max-run:0.123456789", "top-k:7", "absolute:0"])
def test_a_rule_is_written_as_it_is_read(text: str) -> None:
    rule = ThresholdRule.parse(text)
    assert ThresholdRule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text", ["", "max", "max-run:", "max-run:x", "max-run:-1", "absolute:nan", "top-k:1.5", "\x1b"]
)
def test_a_rule_that_makes_no_sense_is_refused_in_one_safe_line(text: str) -> None:
    with pytest.raises(SftscopeError) as error:
        ThresholdRule.parse(text)
    assert str(error.value).isprintable()


@settings(deadline=None, max_examples=10)
@given(seeds, st.integers(0, 4), st.integers(0, 4))
def test_views_agree_with_each_other(seed: int, now: int, base: int) -> None:
    evolution = Evolution(random_history(seed))
    selection = Selection(now, base)
    over_time, diff, by_order = (view(evolution, selection) for view in (trends, changes, orders_view))
    probes = len(evolution.encoded)
    for change in Change:
        count = over_time.classes[change].count_mean[now] * probes
        assert diff.counts[change] == pytest.approx(count)
        assert sum(row.count_mean for row in by_order.classes[change]) * probes == pytest.approx(count)
        strength = sum(row.positive_mean - row.negative_mean for row in by_order.classes[change])
        assert strength == pytest.approx(over_time.classes[change].strength_mean[now])
    assert all(row.order == len(row.words) == orders(4)[row.subset] for row in diff.rows)
    strengths = [max(abs(row.effect_base), abs(row.effect_now)) for row in diff.rows]
    assert strengths == sorted(strengths, reverse=True)


def test_a_run_without_any_interaction_has_gaps_not_numbers() -> None:
    evolution = Evolution(history_of([np.zeros((4, 2, 8))] * 2))
    over_time = trends(evolution, Selection(3))
    assert all(np.isnan(over_time.classes[change].uncancelled_mean).all() for change in Change)
    assert over_time.encoded_mean == [0.0] * 4
    assert changes(evolution, Selection(3)).rows == []
    names = [row.name for row in backbone(evolution, Selection(3)).rows]
    assert names == ["full score", "removed", "preserved", "emerged", "bias alone"]


def test_one_probe_and_all_probes(tmp_path: Path) -> None:
    history = load_history(write_sample_run(tmp_path / "run", n_steps=6, n_probes=3, n=[3, 4, 2]))
    evolution = Evolution(history)
    everything = changes(evolution, Selection(5))
    apart = [changes(evolution, Selection(5, probe=p)) for p in range(3)]
    assert sum(len(part.rows) for part in apart) == len(everything.rows)
    assert {row.probe for row in apart[1].rows} <= {"p01"}
    assert len(orders_view(evolution, Selection(5, probe=2)).classes[Change.EMERGED]) == 2


def test_a_history_names_what_it_left_out(tmp_path: Path) -> None:
    path = write_sample_run(tmp_path / "ru\x1bn", n_steps=4, n_probes=2, n=3)
    other = write_sample_run(tmp_path / "other", n_steps=4, n_probes=2, n=2)
    steps = path / "steps"
    (steps / "step_00000001.h5").write_bytes(b"torn")
    (steps / "step_00000003.h5").write_bytes((other / "steps" / "step_00000003.h5").read_bytes())
    history = load_history(path)
    assert history.steps.tolist() == [0, 2]
    assert len(history.left_out) == 2
    assert "step_00000001.h5: not a step file" in history.left_out[0]
    assert "not the probes of this run" in history.left_out[1]
    assert all(line.isprintable() for line in (history.name, *history.left_out))
    with pytest.raises(SftscopeError, match="step 1 is not among"):
        history.index_of(1)
    with pytest.raises(SftscopeError, match="no probe"):
        history.probe_index("\x1b")
    assert history.probe_index("p01") == 1


def test_a_run_without_results_says_what_to_do(tmp_path: Path) -> None:
    path = write_sample_run(tmp_path / "run", n_steps=1, n_probes=1, n=2)
    (path / "steps" / "step_00000000.h5").write_bytes(b"")
    with pytest.raises(SftscopeError, match=r"no extracted steps yet.*not a step file"):
        load_history(path)
