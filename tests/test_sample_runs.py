"""The runs that ship with the project keep every promise: matched, certified, small, without weights."""

from pathlib import Path

import numpy as np
import pytest

from sftscope.analysis.conclusions.verdict import Agreement, Decision, judge
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, trends
from sftscope.decomposition import decompose
from sftscope.lattice.transforms import TINY_SHARE, logical_model

FOLDER = Path(__file__).parents[1] / "sample_runs"
RUNS = sorted(file.parent for file in FOLDER.glob("*/run.toml"))


@pytest.mark.parametrize(("run", "model"), [("smollm2", "SmolLM2-135M-Instruct"), ("gemma3", "gemma-3-270m")])
def test_there_are_two_real_runs_into_overfitting(run, model):
    history = load_history(FOLDER / run)
    assert history.run["model"]["name"].startswith(model)
    assert history.steps.size >= 14
    assert len(history.probes) >= 16
    assert min(probe.n_variables for probe in history.probes) >= 9
    assert len({probe.probe.response for probe in history.probes}) >= 12
    assert history.losses["eval"][-1] > 1.2 * np.nanmin(history.losses["eval"])
    assert history.placebos


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_masked_state_is_matched_and_every_gap_certified(run):
    history = load_history(run)
    assert not history.left_out
    for probe in history.probes:
        model = logical_model(probe.bias, probe.effects[:, 0], probe.effects[:, 1])
        scale = np.abs(probe.scores - probe.bias[:, None]).max()
        assert (np.abs(model - probe.scores).max(axis=1) <= probe.zeta * (1 + TINY_SHARE) + 1e-9 * scale).all()
        assert (probe.gap <= 1e-3).all()
        assert (probe.noise <= 1e-4).all()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_stored_effects_are_those_of_the_stored_scores(run):
    history = load_history(run)
    for probe in history.probes[::3]:
        names = [probe.probe.variables] * 2
        result = decompose(probe.scores[[0, -1]], probe.zeta[[0, -1]], names=names)
        scale = np.abs(probe.effects).max()
        np.testing.assert_allclose(result.and_effects, probe.effects[[0, -1], 0], atol=1e-6 * scale)
        np.testing.assert_allclose(result.or_effects, probe.effects[[0, -1], 1], atol=1e-6 * scale)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_it_is_small_and_holds_no_weights(run):
    files = [file for file in run.rglob("*") if file.is_file() and "checkpoints" not in file.parts]
    assert sum(file.stat().st_size for file in files) <= 10 * 2**20
    assert not [file for file in files if file.suffix in (".safetensors", ".bin", ".pt", ".gguf")]


def verdict_on(run):
    evolution = Evolution(load_history(FOLDER / run))
    view = trends(evolution, Selection(evolution.history.steps.size - 1))
    return view, judge(view)


def test_smollm2_is_sparsest_at_20_but_loss_goes_on_improving_until_it_overfits():
    view, verdict = verdict_on("smollm2")
    events = view.events
    assert (events.removal.step, events.sparsest.step, events.emergence.low) == (12, 20, 24)
    assert (events.sparsest.low, events.sparsest.high) == (20, 24)
    assert verdict.agreement is Agreement.CONFLICT
    assert (verdict.decision, verdict.past_stop) == (Decision.STOP_BY, True)
    assert verdict.stop_by == verdict.held_out.best_step == 48
    number, emerged = view.soft.effective_mean, view.soft.emerged_mean
    assert [round(number[view.steps.index(step)]) for step in (0, 20, 120)] == [117, 49, 206]
    assert emerged[-1] > 40 * emerged[view.steps.index(20)]


def test_gemma3_is_sparsest_where_held_out_loss_is_lowest():
    view, verdict = verdict_on("gemma3")
    events = view.events
    assert (events.removal.step, events.sparsest.step, events.emergence.step) == (8, 20, 24)
    assert events.sparsest.low <= 32 <= events.sparsest.high
    assert verdict.agreement is Agreement.AGREE
    assert verdict.decision is Decision.STOP_AT
    assert verdict.stop_by == verdict.held_out.best_step == 32
    number = view.soft.effective_mean
    assert [round(number[view.steps.index(step)]) for step in (0, 20, 120)] == [166, 65, 264]


def test_the_page_has_the_numbers_of_the_run():
    history = load_history(FOLDER / "smollm2")
    view = trends(Evolution(history), Selection(history.steps.size - 1))
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    shown = {row[0]: [cell.strip("*") for cell in row[1:]] for row in rows}
    at = [view.steps.index(int(step)) for step in shown["step"]]
    soft = view.soft
    assert shown["effective number of interactions per prompt, N_eff"] == [f"{soft.effective_mean[t]:.1f}" for t in at]
    assert shown["strength removed, share of that at step 0"] == [f"{soft.removed_mean[t]:.2f}" for t in at]
    assert shown["strength emerged, share of that at step 0"] == [f"{soft.emerged_mean[t]:.2f}" for t in at]
    assert shown["held-out loss"] == [f"{history.losses['eval'][t]:.3f}" for t in at]
    assert shown["held-out accuracy (400 rows)"] == [f"{history.losses['accuracy'][t]:.3f}" for t in at]
