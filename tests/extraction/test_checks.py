"""Masked states are scored again: small differences are noise, large ones refuse the step, nothing is half-written."""

import shutil
import tomllib

import numpy as np
import pytest
import tomli_w

from sftscope.extraction import zeta as noise_bound
from sftscope.foundation.errors import SftscopeError
from sftscope.runs import pipeline
from sftscope.runs.identity import identity_fits
from sftscope.scoring.rescoring import TOLERANCE, compare, refuse_beyond_tolerance
from sftscope.scoring.scorer import Scorer
from sftscope.store import RunFolder


def off_by(error, states=slice(None)):
    """A `Scorer.score` whose result is off at some masked states."""
    score = Scorer.score

    def wrong(self, prompt, *watched):
        scores = score(self, prompt)
        scores[states] += error
        return scores

    return wrong


def test_verify_decides_how_many_states_are_checked_and_changes_no_score(fresh):
    pipeline.extract(fresh.path, steps=[0])
    as_configured = fresh.read_step(0)
    assert as_configured.provenance["verify"]["states"] == 4
    shutil.rmtree(fresh.steps_folder)
    pipeline.extract(fresh.path, steps=[0], verify=1000)  # more than there are: all
    whole = fresh.read_step(0)
    assert np.array_equal(whole.scores, as_configured.scores)
    assert whole.provenance["identity"] == as_configured.provenance["identity"]
    largest = whole.provenance["verify"]["largest_difference"]
    assert whole.provenance["verify"]["states"] == 1000
    assert len(largest) == 3
    for sigma, most in zip(whole.noise, largest, strict=True):
        assert 0 < sigma <= most <= TOLERANCE["float32"]


@pytest.mark.parametrize("error", [0.01, -0.01, np.inf])
def test_a_scorer_that_is_off_is_refused_and_nothing_is_stored(fresh, monkeypatch, error):
    pipeline.extract(fresh.path, steps=[0])
    before = fresh.step_file(0).read_bytes()
    monkeypatch.setattr(Scorer, "method", "copy-free tree")  # or the trial of the tree would already choose naive
    monkeypatch.setattr(Scorer, "score_naively", shifted(Scorer.score_naively, error))
    with pytest.raises(SftscopeError) as refused:
        pipeline.extract(fresh.path)
    assert "\n" not in str(refused.value)
    assert "--verify" not in str(refused.value)  # nobody is told to store what was refused
    for part in (
        "step 1, probe 'p00'",
        f"by {abs(error):.3g} log-odds",
        "at most 0.001 for float32",
        "cannot be trusted",
    ):
        assert part in str(refused.value)
    assert [file.name for file in fresh.steps_folder.iterdir()] == ["step_00000000.h5"]
    assert fresh.step_file(0).read_bytes() == before


def shifted(score_naively, error):
    return lambda self, prompt, subsets: score_naively(self, prompt, subsets) + error


def test_a_tree_that_is_off_at_one_state_is_found_when_all_are_checked(fresh, monkeypatch):
    monkeypatch.setattr(Scorer, "score", off_by(0.01, 11))
    with pytest.raises(SftscopeError, match=r"masked state 11 .* differs by 0\.01 log-odds"):
        pipeline.extract(fresh.path, steps=[2], verify=16)
    assert not fresh.steps()
    assert not list(fresh.path.rglob("*tmp*"))


def test_a_refused_step_is_made_when_the_scorer_is_right_again(fresh, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score", off_by(0.01))
        with pytest.raises(SftscopeError, match="step 0"):
            pipeline.extract(fresh.path)
    pipeline.extract(fresh.path, steps=[0])
    assert fresh.steps() == (0,)


def test_without_a_check_the_noise_is_unknown(fresh, monkeypatch):
    monkeypatch.setattr(Scorer, "method", "copy-free tree")  # need not be tried out
    monkeypatch.setattr(Scorer, "score_naively", None)  # is not called
    monkeypatch.setattr(noise_bound, "SCALE_FLOOR", 0.0)  # nor is it for the ζ of a probe that step 0 cannot give
    pipeline.extract(fresh.path, steps=[0], verify=0)
    record = fresh.read_step(0)
    assert np.isnan(record.noise).all()
    assert record.provenance["verify"] == {"states": 0, "largest_difference": [None] * 3}


def test_a_draft_that_was_checked_less_is_scored_again(fresh, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pipeline.extract(fresh.path, steps=[0, 1])
    assert fresh.draft_file(0).exists()  # ζ hangs on it, so it is kept before anything is decomposed
    pipeline.extract(fresh.path, steps=[0, 1], verify=16)
    assert [fresh.read_step(step).provenance["verify"]["states"] for step in (0, 1)] == [16, 16]


def test_how_many_states_are_checked_does_not_belong_to_a_run(trained, tmp_path):
    config, run = trained
    other = config.with_name("checked.toml")
    other.write_text(config.read_text().replace("check_states = 4", "check_states = 7"))
    before = (run / "run.toml").read_bytes()
    pipeline.train(other, run)
    assert (run / "run.toml").read_bytes() == before


def test_run_checks_as_many_states_as_its_config_says_now(trained, fresh):
    config, _ = trained
    other = config.with_name("more.toml")
    other.write_text(config.read_text().replace("check_states = 4", "check_states = 7"))
    pipeline.run(other, fresh.path)
    assert fresh.read_step(1).provenance["verify"]["states"] == 7


def test_a_folder_with_an_identity_that_its_settings_do_not_have_is_refused(trained, fresh):
    config, _ = trained
    content = tomllib.loads(fresh.run_file.read_text())
    fresh.run_file.write_text(tomli_w.dumps(content | {"identity": "of another run"}))
    assert not identity_fits(fresh.read_run())
    with pytest.raises(SftscopeError, match="belongs to another run"):
        pipeline.train(config, fresh.path)
    other = config.with_name("other.toml")
    other.write_text(config.read_text().replace("learning_rate = 1e-2", "learning_rate = 2e-2"))
    with pytest.raises(SftscopeError, match="learning_rate"):
        pipeline.train(other, fresh.path)


def test_the_tolerance_is_that_of_the_dtype_and_nan_exceeds_it():
    difference = compare(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.25, 1.9]))
    assert (difference.largest, difference.subset) == (0.25, 1)
    assert difference.noise == pytest.approx(np.sqrt((0.25**2 + 0.1**2) / 3))
    refuse_beyond_tolerance(difference, step=1, probe="x", precision="bfloat16")
    refuse_beyond_tolerance(difference, step=1, probe="x", precision="int8")
    for dtype in ("float32", "float16"):
        with pytest.raises(SftscopeError, match=f"for {dtype}"):
            refuse_beyond_tolerance(difference, step=1, probe="x", precision=dtype)
    torn = compare(np.zeros(2), np.array([1.0, np.nan]))
    assert torn.subset == 1
    with pytest.raises(SftscopeError, match="differs by nan"):
        refuse_beyond_tolerance(torn, step=1, probe="\x1b", precision="bfloat16")


def test_infinitely_apart_is_the_largest():
    assert compare(np.zeros(2), np.array([1.0, np.inf])).largest == np.inf
