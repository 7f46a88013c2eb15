"""Checkpoints with the same weights are scored once, stored for each, marked, and counted once."""

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from run_configs import write_config
from sftscope.analysis.conclusions.verdict import judge
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, trends
from sftscope.extraction import extract as extraction
from sftscope.extraction import zeta
from sftscope.reporting.show import show_json, show_text
from sftscope.runs import pipeline
from sftscope.store import RunFolder

COLUMNS = ("n_variables", "target", "scores", "noise")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(config, run folder), not extracted: step 1 has learning rate 0, and 4 the tensors of 2 in another order."""
    folder = tmp_path_factory.mktemp("equal")
    config = write_config(folder, **{"check_states = 4": "check_states = 2", "warmup_ratio = 0": "warmup_ratio = 0.1"})
    run = RunFolder(folder / "run")
    pipeline.train(config, run.path)
    weights = [run.checkpoints / f"checkpoint-{step}" / "adapter_model.safetensors" for step in (2, 4)]
    save_file(dict(reversed(load_file(weights[0]).items())), weights[1], {"saved": "again"})
    assert weights[0].read_bytes() != weights[1].read_bytes()
    return config, run


@pytest.fixture(scope="module")
def extracted(trained):
    _, run = trained
    scored = []
    plain = extraction.scored_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            extraction, "scored_step", lambda work, step, *a, **b: (scored.append(step), plain(work, step, *a, **b))[1]
        )
        pipeline.extract(run.path)
    return run, scored


def assert_same(one, other):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in vars(one.effects):
        np.testing.assert_array_equal(getattr(one.effects, name), getattr(other.effects, name))


def test_equal_weights_are_scored_once_and_their_results_are_equal_byte_for_byte(extracted):
    run, scored = extracted
    assert run.steps() == (0, 1, 2, 4, 6)
    assert scored == [0, 2, 6]
    for step, first in ((1, 0), (4, 2)):
        one, other = run.read_step(first), run.read_step(step)
        assert_same(one, other)
        assert other.provenance["weights_sha256"] == one.provenance["weights_sha256"]
        assert other.step == step
    assert run.read_step(0).weights == ""
    assert run.read_step(1).losses["eval"] == run.read_step(0).losses["eval"]
    assert run.read_step(4).losses["eval"] != run.read_step(2).losses["eval"]  # what was logged is its own
    assert load_history(run.path).same_weights == {1: 0, 4: 2}


def test_what_is_taken_over_is_what_scoring_gives(extracted):
    run, _ = extracted
    alone = run.path.with_name("alone")
    shutil.copytree(run.path, alone, ignore=shutil.ignore_patterns("steps"))
    for step in (2, 6):
        shutil.rmtree(alone / "checkpoints" / f"checkpoint-{step}")
    pipeline.extract(alone, steps=[1])
    pipeline.extract(alone, steps=[4])
    for step in (1, 4):
        assert RunFolder(alone).step_file(step).read_bytes() == run.step_file(step).read_bytes()


def test_a_worker_takes_the_results_too_and_makes_the_same_files(extracted, capsys):
    run, _ = extracted
    other = RunFolder(run.path.with_name("other"))
    shutil.copytree(run.path, other.path, ignore=shutil.ignore_patterns("steps"))
    pipeline.extract(other.path, place=(1, 1))
    assert "step 1: has the same weights as step 0" in capsys.readouterr().err
    assert other.steps() == run.steps()
    for step in run.steps():
        assert other.step_file(step).read_bytes() == run.step_file(step).read_bytes()


def test_of_silent_probes_each_weights_count_once_in_zeta(extracted, monkeypatch):
    run, _ = extracted
    reactions = np.array([zeta.reaction(run.read_step(step)) for step in (0, 2, 6)])
    floor = np.sort(reactions[0])[:2].mean()  # one probe is silent
    monkeypatch.setattr(zeta, "SCALE_FLOOR", floor)
    expected = 0.02 * np.where(reactions[0] < floor, np.maximum(np.median(reactions, axis=0), floor), reactions[0])
    silent = RunFolder(run.path.with_name("silent"))
    shutil.copytree(run.path, silent.path, ignore=shutil.ignore_patterns("steps"))
    pipeline.extract(silent.path, steps=[0])
    np.testing.assert_allclose(silent.read_step(0).effects.zeta, expected, rtol=1e-4)


def test_a_step_that_repeats_another_is_shown_so_and_is_no_evidence(extracted):
    run, _ = extracted
    history = load_history(run.path)
    assert history.steps[history.independent].tolist() == [0, 2, 6]
    evolution = Evolution(history)
    last = Selection(4)
    text = show_text(evolution, last)
    assert text.count("weights of step 0\n") == text.count("weights of step 2\n") == 2
    assert "no evidence of their own: step 1 as step 0, step 4 as step 2." in text
    assert show_json(evolution, last)["trends"]["same_weights"] == {"1": 0, "4": 2}
    assert "two stages need at least 7 extracted steps, this run has 3" in text
    said = judge(trends(evolution, last), history.held_out)
    assert said.held_out is not None
    assert said.held_out.best_step in (0, 2, 6)
