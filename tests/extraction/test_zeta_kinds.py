"""ζ as a share of the range of v at each step: for every way to extract, and what verify and repair make of it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from damage import flip
from run_configs import write_config
from run_results import assert_same_results
from sftscope.decomposition import noise_bound
from sftscope.foundation.errors import SftscopeError
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope.verification.repair import repair
from sftscope.verification.verify import verify

SHARE = 0.03
SETTING = f'check_states = 4\nzeta_of = "range"\nzeta_range = {SHARE}'


@pytest.fixture(scope="module", autouse=True)
def without_floor():
    """The scores of toy models differ by less than the floor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise_bound, "SCALE_FLOOR", 0.0)
        yield


@pytest.fixture(scope="module")
def moving(toy_run):
    """(config, run folder), with a placebo."""
    config, run = toy_run(extracted=True, **{"check_states = 4": SETTING})
    pipeline.placebo(run)
    return config, RunFolder(run)


@pytest.fixture
def copied(moving, tmp_path):
    shutil.copytree(moving[0].parent, tmp_path / "copy")
    return RunFolder(tmp_path / "copy" / "run")


def without_results(folder: RunFolder) -> RunFolder:
    shutil.rmtree(folder.steps_folder)
    shutil.rmtree(folder.placebo_file(6).parent)
    return folder


def shares_of(folder: RunFolder) -> np.ndarray:
    """ζ / (max v - min v) by step and probe."""
    records = [folder.read_step(step) for step in folder.steps()]
    spreads = [[np.ptp(each.scores[each.probe_slice(p)]) for p in range(3)] for each in records]
    assert np.ptp(spreads, axis=0).min() > 0
    return np.array([each.effects.zeta for each in records]) / spreads


def test_zeta_is_its_share_of_the_range_at_every_step(moving) -> None:
    assert moving[1].steps() == (0, 1, 2, 4, 6)
    np.testing.assert_allclose(shares_of(moving[1]), SHARE, rtol=1e-12)
    assert moving[1].read_step(4).provenance["zeta_source"] == ["range at this step"] * 3
    assert not verify(moving[1].path).findings


def test_the_range_of_a_sample_is_that_of_the_states_that_were_scored(toy_run) -> None:
    _, run = toy_run(extracted=True, **{"check_states = 4": f"{SETTING}\nmasked_states = 12\nreplicates = 2"})
    assert RunFolder(run).read_step(2).sample is not None
    np.testing.assert_allclose(shares_of(RunFolder(run)), SHARE, rtol=1e-12)
    assert not verify(run).findings


def test_below_the_floor_it_is_the_share_of_the_floor(moving, monkeypatch) -> None:
    record = moving[1].read_step(0)
    spreads = [np.ptp(record.scores[record.probe_slice(p)]) for p in range(3)]
    monkeypatch.setattr(noise_bound, "SCALE_FLOOR", float(np.median(spreads)))
    zeta, _ = noise_bound.range_zeta(record, 0.1)
    assert zeta == pytest.approx(0.1 * np.maximum(spreads, np.median(spreads)))


def test_no_step_waits_for_another_and_workers_make_the_same_bytes(moving, copied) -> None:
    folder = without_results(copied)
    pipeline.extract(folder.path, shard=(2, 3))
    assert folder.steps() == (1, 6)
    assert not folder.draft_file(0).exists()  # which a fixed ζ would have been measured at
    pipeline.extract(folder.path, place=(2, 3), block=1)
    assert_same_results(folder, moving[1])


def test_a_step_is_repaired_from_its_own_scores(moving, copied) -> None:
    for step in copied.steps():
        flip(copied.step_file(step), 60)
    shutil.rmtree(copied.checkpoints)
    assert not repair(copied.path).damaged
    assert_same_results(copied, moving[1])


def test_another_zeta_than_that_of_its_scores_is_damage(copied) -> None:
    record = copied.read_step(2)
    wider = replace(record.effects, zeta=record.effects.zeta * 1.01)  # h still matches v
    copied.write_step(replace(record, effects=wider))
    assert [finding.what for finding in verify(copied.path).findings] == [
        "its ζ is not 0.03 of the range of its scores"
    ]


def test_a_placebo_has_the_zeta_of_its_step(moving, copied) -> None:
    record = moving[1].read_placebo(6)
    np.testing.assert_array_equal(record.effects.zeta, moving[1].read_step(6).effects.zeta)
    copied.write_placebo(replace(record, effects=replace(record.effects, zeta=record.effects.zeta * 1.01)))
    assert [finding.what for finding in verify(copied.path).findings] == ["its ζ is not that of step 6"]


@pytest.mark.parametrize("begun", ["base", "range"])
def test_a_run_begun_with_one_kind_is_not_resumed_with_the_other(begun, tmp_path) -> None:
    def config(kind: str):
        return write_config(tmp_path, **{"check_states = 4": f'check_states = 4\nzeta_of = "{kind}"'})

    other = "range" if begun == "base" else "base"
    pipeline.train(config(begun), tmp_path / "run")
    with pytest.raises(SftscopeError, match=f"zeta_of is '{other}', but .* was begun with '{begun}'"):
        pipeline.run(config(other), tmp_path / "run")
