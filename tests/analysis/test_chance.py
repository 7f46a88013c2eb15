"""Chance, z and turnover: by hand, by drawing sets at random, on the sample runs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import history_of, random_history, seeds
from sftscope.analysis.comparison.baseline_llm import reference_signs
from sftscope.analysis.run.probe_means import two_errors
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.chance import possible_subsets, preserved_by_chance
from sftscope.analysis.sets.class_sums import class_sums, same_sign_sums
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Selection, trends

SAMPLES = Path(__file__).parents[2] / "sample_runs"
TAU = ThresholdRule("absolute", 1)


def evolution_of(first: dict[tuple[int, int], float], second: dict[tuple[int, int], float], **more: float) -> Evolution:
    """Two steps of one probe of 4 words with these effects by (relation, subset)."""
    effects = np.zeros((2, 2, 16))
    for step, found in enumerate((first, second)):
        for place, effect in found.items():
            effects[step][place] = effect
    return Evolution(history_of([effects]), TAU, **more)


def test_preserved_by_chance_by_hand() -> None:
    """Order 1 has 4 subsets, order 2 has 6. Base: AND 1 +, AND 2 +, AND 4 -, AND 3 +; now: AND 1 -, AND 8 +, AND 3 +.

    Any sign: 3 · 2 / 4 + 1 · 1 / 6; same sign: (2 · 1 + 1 · 1) / 4 + 1 / 6.
    """
    base = {(0, 1): 2.0, (0, 2): 2.0, (0, 4): -2.0, (0, 3): 2.0}
    evolution = evolution_of(base, {(0, 1): -2.0, (0, 8): 2.0, (0, 3): 2.0}, hysteresis=1)
    found = preserved_by_chance(evolution, 0)
    assert found.any_sign[1] == pytest.approx(6 / 4 + 1 / 6)
    assert found.same_sign[1] == pytest.approx(3 / 4 + 1 / 6)
    assert np.isnan(found.any_sign[0])
    assert np.isnan(found.same_sign[0])
    same = same_sign_sums(evolution, 0)
    assert (same.count[1], class_sums(evolution, 0)[Change.PRESERVED].count[1]) == (1, 2)


def test_relations_do_not_meet() -> None:
    found = preserved_by_chance(evolution_of({(0, 3): 2.0}, {(1, 3): 2.0}), 0)
    assert found.any_sign[1] == 0


def test_preserved_by_chance_is_the_mean_of_random_sets() -> None:
    """Sets with hysteresis of fixed sizes, at random places of each order: the mean of 4000 draws."""
    rng = np.random.default_rng(0)
    strengths = {1: ([2.0, 0.7, -2.0], [2.0, 2.0, -0.6]), 2: ([2.0, -2.0, 0.7], [2.0, 0.8, -2.0])}
    places = {order: [s for s in range(16) if s.bit_count() == order] for order in strengths}
    counts = []
    for _ in range(4000):
        steps: list[dict[tuple[int, int], float]] = [{}, {}]
        for order, values in strengths.items():
            for step, effects in zip(steps, values, strict=True):
                chosen = rng.permutation(places[order])[: len(effects)].tolist()
                step.update({(0, subset): effect for subset, effect in zip(chosen, effects, strict=True)})
        strict, loose = ([{s: e for s, e in step.items() if abs(e) > t} for step in steps] for t in (1, 0.5))
        kept = (strict[0].keys() & loose[1].keys()) | (loose[0].keys() & strict[1].keys())
        counts.append((len(kept), sum(loose[0][s] * loose[1][s] > 0 for s in kept)))
    expected = preserved_by_chance(evolution_of(*steps), 0)
    assert np.mean(counts, axis=0) == pytest.approx([expected.any_sign[1], expected.same_sign[1]], abs=0.05)


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(0, 4), st.floats(0.05, 1), st.booleans())
def test_chance_lies_between_nothing_and_everything(seed: int, base: int, factor: float, trajectory: bool) -> None:
    evolution = Evolution(random_history(seed), hysteresis=factor)
    for p in range(3):
        found = preserved_by_chance(evolution, p, base, trajectory=trajectory)
        two_point = preserved_by_chance(evolution, p, base)
        others = np.arange(5) != base
        loose = np.array([evolution.omega(p, t, loose=True).sum() for t in range(5)])
        assert (found.same_sign[others] >= 0).all()
        assert (found.same_sign[others] <= found.any_sign[others] + 1e-12).all()
        assert (found.any_sign[others] <= np.minimum(loose, loose[base])[others] + 1e-12).all()
        assert (found.any_sign[others] <= two_point.any_sign[others] + 1e-12).all()


def test_possible_subsets_are_the_binomials() -> None:
    assert possible_subsets(4).tolist() == [1, 4, 6, 4, 1]


def test_generalizable_by_chance_by_hand() -> None:
    """The reference has AND 1 +, AND 2 - and AND 4 - of 4; emerged: AND 8 + (chance 1/4) and AND 2 - (2/4)."""
    other = np.zeros((1, 2, 16))
    other[0, 0, [1, 2, 4]] = 2, -2, -2
    evolution = evolution_of({}, {(0, 8): 2.0, (0, 2): -2.0})
    signs = reference_signs(evolution.history, Evolution(history_of([other]), TAU))
    emerged = class_sums(evolution, 0, reference=signs[0])[Change.EMERGED]
    assert emerged.generalizable[1] == 0.5
    assert emerged.generalizable_by_chance[1] == pytest.approx((1 / 4 + 2 / 4) / 2)
    over_time = trends(evolution, Selection(1), references=signs)
    assert over_time.classes[Change.EMERGED].generalizable_by_chance[1] == pytest.approx(3 / 8)


def test_z_and_random_signs_by_hand() -> None:
    """Emerged 3 and -4 … z = -1/5; random signs give √(2/π) · 5/7."""
    emerged = class_sums(evolution_of({}, {(0, 1): 3.0, (1, 3): -4.0}), 0)[Change.EMERGED]
    assert emerged.z[1] == pytest.approx(-1 / 5)
    assert emerged.uncancelled_by_chance[1] == pytest.approx(np.sqrt(2 / np.pi) * 5 / 7)
    assert np.isnan(emerged.z[0])


def test_of_random_signs_z_has_mean_0_and_error_1() -> None:
    rng = np.random.default_rng(1)
    effects = np.zeros((1, 2, 256))
    values = []
    for _ in range(400):
        effects[0, 0, 1:] = rng.exponential(size=255) * rng.choice([-1, 1], 255)
        values.append(class_sums(Evolution(history_of([effects]), ThresholdRule("absolute", 0)), 0)[Change.PRESERVED])
    z = np.array([part.z[0] for part in values])
    assert abs(z.mean()) < 0.15
    assert z.std() == pytest.approx(1, abs=0.1)
    ratio, random = (
        np.mean([getattr(part, name)[0] for part in values]) for name in ("uncancelled", "uncancelled_by_chance")
    )
    assert ratio == pytest.approx(random, rel=0.1)


def test_two_standard_errors_leave_out_what_is_undefined() -> None:
    values = np.array([[1.0, 1.0], [3.0, np.nan], [np.nan, np.nan]])
    errors = two_errors(values)
    assert errors[0] == pytest.approx(2 * np.std([1, 3], ddof=1) / np.sqrt(2))
    assert np.isnan(errors[1])
    assert two_errors([]) == []


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(0, 4), st.floats(0.05, 1))
def test_same_sign_is_the_plain_definition(seed: int, base: int, factor: float) -> None:
    evolution = Evolution(random_history(seed), hysteresis=factor)
    for p, part in enumerate(evolution.history.probes):
        same = same_sign_sums(evolution, p, base)
        for now in range(5):
            members = evolution.partition(p, now, base)[Change.PRESERVED]
            kept = members & (part.effects[base] * part.effects[now] > 0)
            assert same.count[now] == kept.sum()
            assert same.effect[now] == pytest.approx(part.effects[now][kept].sum(), abs=1e-12)
            assert same.squares[now] == pytest.approx((part.effects[now][kept] ** 2).sum(), abs=1e-12)


MEASURED = {  # run, step: preserved, by chance, z of removed, preserved, emerged: an independent computation
    ("smollm2", 20): (8.4, 6.0, 0.21, 0.93, 1.08),
    ("smollm2", 120): (20.1, 14.6, 0.11, 0.64, 0.49),
    ("gemma3", 20): (9.9, 7.5, -0.65, 0.85, 0.64),
    ("gemma3", 120): (24.9, 23.9, -0.52, 0.87, 0.43),
}


@pytest.mark.parametrize(("run", "step"), MEASURED)
def test_chance_and_z_of_the_sample_runs(run: str, step: int) -> None:
    """The paper's sets under max-step:0.05, without hysteresis; preserved with any sign."""
    history = load_history(SAMPLES / run)
    over_time = trends(Evolution(history, ThresholdRule("max-step", 0.05), 1.0), Selection(0))
    t = history.index_of(step)
    kept, chance, *z = MEASURED[run, step]
    assert over_time.classes[Change.PRESERVED].count_mean[t] == pytest.approx(kept, abs=0.05)
    assert over_time.preserved_by_chance[t] == pytest.approx(chance, abs=0.05)
    assert [over_time.classes[change].z_mean[t] for change in Change] == pytest.approx(z, abs=0.006)


def test_turnover_of_the_sample_runs_does_not_end() -> None:
    history = load_history(SAMPLES / "smollm2")
    over_time = trends(Evolution(history), Selection(0))
    assert np.isnan([over_time.turnover[0], over_time.soft.turnover_mean[0]]).all()
    assert over_time.turnover[1:] == pytest.approx([1 - value for value in over_time.jaccard_neighbours[1:]])
    assert min(over_time.turnover[10:]) > 0.45
    assert min(over_time.soft.turnover_mean[10:]) > 0.3
