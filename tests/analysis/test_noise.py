"""What noise alone can make is neither counted as emerged nor as removed, and the sets keep their laws."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import counted_history, history_of, random_history, seeds
from sample_history import write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.noise_floor import FLOOR, noise_floor
from sftscope.analysis.sets.thresholds import RULES, ThresholdRule
from sftscope.analysis.sets.views import Selection
from sftscope.analysis.trust.certificates import measure_quality
from sftscope.decomposition import decompose
from sftscope.lattice.transforms import and_effects_of, logical_model, orders
from sftscope.reporting.document import markdown
from sftscope.reporting.forms import make_report
from sftscope.reporting.outline import outline
from sftscope.reporting.show import show_json, show_text


def with_noise(history: RunHistory, noise: Sequence[float]) -> RunHistory:
    """The history with this σ of v at its steps, the same for every probe."""
    return replace(history, probes=tuple(replace(part, noise=np.array(noise)) for part in history.probes))


@settings(deadline=None, max_examples=30)
@given(
    seeds,
    st.integers(0, 4),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from(sorted(RULES)),
    st.floats(0, 0.5),
    st.sampled_from([0.5, 1.0]),
)
def test_partition_laws_hold_with_a_floor(
    seed: int, now: int, base: int, trajectory: bool, rule: str, sigma: float, hysteresis: float
) -> None:
    history = with_noise(random_history(seed), [np.nan, sigma, sigma / 2, np.nan, 0.0])
    evolution = Evolution(history, ThresholdRule.parse(rule), hysteresis)
    for p, (part, omega) in enumerate(zip(history.probes, evolution.encoded, strict=True)):
        sets = evolution.partition(p, now, base, trajectory=trajectory)
        removed, preserved, emerged = (sets[change] for change in Change)
        assert np.array_equal(removed | preserved | emerged, omega[base] | omega[now])
        if hysteresis == 1:
            assert np.array_equal(removed | preserved, omega[base])
            assert np.array_equal(preserved | emerged, omega[now])
        assert not (removed & preserved).any()
        assert not (preserved & emerged).any()
        strength, floor = np.abs(part.effects), FLOOR * sigma * 2 ** (orders(part.n_variables) / 2)
        assert np.array_equal(omega, strength > np.maximum(evolution.tau[p][:, None, None], floor))
        assert np.array_equal(omega[now], evolution.encodes(p, now, part.table, now))
        loose = strength[now] > np.maximum(hysteresis * evolution.tau[p][now], floor)
        assert np.array_equal(evolution.omega(p, now, loose=True), loose)
        assert not (evolution.below_floor(p) & omega).any()
        assert np.array_equal(omega | evolution.below_floor(p), strength > evolution.tau[p][:, None, None])


def test_unmeasured_noise_is_no_floor() -> None:
    assert not noise_floor(np.array([np.nan, np.nan]), orders(4)).any()
    assert not noise_floor(np.array([np.inf, np.nan]), orders(4)).any()
    assert noise_floor(np.array([np.nan, 1.0, 0.5]), orders(2)).tolist() == pytest.approx(
        [FLOOR, FLOOR * 2**0.5, FLOOR * 2**0.5, FLOOR * 2]
    )


def test_moebius_values_of_pure_noise_are_normal_with_the_width_of_their_order() -> None:
    sigma, n = 1e-3, 6
    effects = and_effects_of(np.random.default_rng(0).normal(scale=sigma, size=(20_000, 1 << n)))
    widths = effects[:, 1:].std(axis=0) / (sigma * 2 ** (orders(n)[1:] / 2))
    np.testing.assert_allclose(widths, 1.0, atol=0.03)
    share = (np.abs(effects[:, 1:]) > noise_floor(np.array([sigma]), orders(n))[1:]).mean()
    assert share == pytest.approx(0.0027, rel=0.15)  # P(|normal| > 3)


def test_with_the_noise_of_two_layouts_hardly_any_moebius_value_passes() -> None:
    first, second = np.random.default_rng(1).normal(scale=1e-3, size=(2, 2000, 1 << 6))
    measured = np.sqrt(np.mean((first - second) ** 2, keepdims=True)[0])
    assert (np.abs(and_effects_of(first)) > noise_floor(measured, orders(6)))[:, 1:].mean() < 1e-4


def test_a_step_that_differs_by_noise_alone_has_hardly_any_emerged_interaction() -> None:
    sigma, n, zeta = 0.03, 6, np.full(8, 0.02)
    rng = np.random.default_rng(2)
    planted = np.zeros((8, 2, 1 << n))
    for row in planted:
        row[0, rng.choice(np.arange(1, 1 << n), 5, replace=False)] = 3.0
    clean = logical_model(np.zeros(8), planted[:, 0], planted[:, 1])
    steps = [decompose(clean + rng.normal(scale=s, size=clean.shape), zeta, tolerance=1e-3) for s in (0, sigma)]
    effects = np.stack([np.stack([step.and_effects, step.or_effects], axis=1) for step in steps], axis=1)
    history = history_of(list(effects))
    counts = {}
    for name, noise in (("without", np.nan), ("with", sigma)):
        evolution = Evolution(with_noise(history, [noise, noise]), ThresholdRule("absolute", 0.01))
        sets = [evolution.partition(p, 1) for p in range(8)]
        counts[name] = {change: sum(int(part[change].sum()) for part in sets) for change in Change}
    assert counts["without"][Change.EMERGED] > 100  # noise imitates the finding
    assert counts["with"][Change.EMERGED] <= 8 * 2 * 63 * 0.0027  # the rate of Möbius values above the floor
    assert counts["with"][Change.PRESERVED] >= 40  # and what is planted stays


def test_quality_counts_what_fell_below_the_floor_at_each_step() -> None:
    history = counted_history([[4, 2, 3]])
    quiet = measure_quality(Evolution(with_noise(history, [np.nan, 1e-6, 1e-6])), Selection(2))
    assert quiet.below_noise == [0, 0, 0]
    loud = measure_quality(Evolution(with_noise(history, [np.nan, 1e-6, 10.0])), Selection(2))
    assert loud.below_noise == [4, 2, 3]  # one floor for all steps, of the loudest
    assert np.isnan(loud.noise_max[0])
    assert loud.mismatch_max <= 1


def test_show_and_report_say_how_many_fell_below_the_floor(tmp_path: Path) -> None:
    history = load_history(write_sample_run(tmp_path / "run", n_steps=4, n_probes=2, n=4))
    loud = Evolution(with_noise(history, [0.1] * 4))
    below = measure_quality(loud, Selection(3)).below_noise
    assert sum(below) > 0
    assert show_json(loud, Selection(3))["quality"]["below_noise"] == below
    assert show_json(loud, Selection(3))["noise_floor"] == {"factor": FLOOR, "sigma_by_probe": [0.1, 0.1]}
    for text in (show_text(loud, Selection(3)), markdown(outline(make_report(loud)))):
        (line,) = [line for line in text.splitlines() if "below the noise floor" in line]
        assert str(sum(below)) in line
        assert f"{below[0]} at step 0" in line
    (line,) = [line for line in show_text(Evolution(history), Selection(3)).splitlines() if "below the noise" in line]
    assert "at every step" in line
