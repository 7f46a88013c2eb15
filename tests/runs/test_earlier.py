"""Runs that earlier releases began are continued as they were begun: their grid of checkpoints, their schedule."""

import shutil

import pytest
from msgspec.structs import replace

from run_configs import write_config
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import DEFAULT_CHECKPOINTS, load_settings
from sftscope.runs import pipeline
from sftscope.runs.earlier import FORMER_DEFAULTS, as_begun
from sftscope.runs.identity import identity_fits, identity_of
from sftscope.store import RunFolder

FORMER = FORMER_DEFAULTS["training", "checkpoints"]
GRID = "checkpoints = [0, 1, 2, 4, 8]"


def rewrite(folder: RunFolder, **training) -> None:
    """run.toml as an earlier release wrote it, with other settings of training."""
    content = folder.read_run()
    content.pop("meaning", None)
    del content["settings"]["training"]["trained_end"]
    content["settings"]["training"] |= training
    folder.write_run(content)


def rates(folder: RunFolder) -> list[float]:
    return [row["learning_rate"] for row in folder.read_log() if row["kind"] == "batch"]


def test_the_default_grid_has_no_step_with_the_weights_of_the_base():
    assert set(FORMER) - set(DEFAULT_CHECKPOINTS) == {1}
    assert DEFAULT_CHECKPOINTS[:3] == (0, 2, 3)


def test_a_run_with_the_former_default_grid_resumes_by_the_same_config_and_keeps_it(tmp_path):
    config = write_config(tmp_path, **{GRID: "max_steps = 2"})
    folder = RunFolder(tmp_path / "run")
    pipeline.train(config, folder.path)
    before = folder.read_run()["identity"]
    shutil.rmtree(folder.checkpoints)
    rewrite(folder, checkpoints=list(FORMER))
    content = folder.read_run()
    assert identity_fits(content)
    resolved = pipeline.train(config, folder.path)
    assert resolved.training.checkpoints == FORMER
    assert folder.read_run() == content
    assert content["identity"] == before
    assert sorted(path.name for path in folder.checkpoints.iterdir() if path.is_dir()) == [
        "checkpoint-1",
        "checkpoint-2",
    ]
    with pytest.raises(SftscopeError, match=r"\[training\] checkpoints is"):
        pipeline.train(config, folder.path, sets=["training.checkpoints=[0, 2]"])


def test_a_constant_schedule_warms_up_but_in_a_run_of_before(tmp_path):
    config = write_config(
        tmp_path, **{GRID: 'checkpoints = [0]\nschedule = "constant"', "warmup_ratio = 0": "warmup_ratio = 0.3"}
    )
    new, old = RunFolder(tmp_path / "new"), RunFolder(tmp_path / "old")
    pipeline.train(config, new.path)
    assert rates(new) == pytest.approx([0, 0.005, 0.01, 0.01, 0.01, 0.01])
    old.path.mkdir()
    shutil.copy(new.run_file, old.run_file)
    rewrite(old)
    pipeline.train(config, old.path)
    assert rates(old) == [0.01] * 6


def test_what_an_earlier_release_cut_otherwise_is_not_trained_further(tmp_path):
    config = write_config(tmp_path, **{GRID: "checkpoints = [0, 1, 2, 4, 8]\ncutoff = 12"})
    folder = RunFolder(tmp_path / "run")
    pipeline.train(config, folder.path)
    rewrite(folder)
    pipeline.train(config, folder.path)  # it is done
    shutil.rmtree(folder.checkpoints / "checkpoint-6")
    with pytest.raises(SftscopeError, match="an earlier sftscope began this training and cut rows"):
        pipeline.train(config, folder.path)


def test_a_grid_of_ones_own_and_any_other_setting_count_as_before(tmp_path):
    settings = load_settings(write_config(tmp_path))
    at_former = replace(settings, training=replace(settings.training, checkpoints=FORMER))
    at_default = replace(settings, training=replace(settings.training, checkpoints=DEFAULT_CHECKPOINTS))
    assert identity_of(at_former, {}) == identity_of(at_default, {}) != identity_of(settings, {})
    assert as_begun(at_default, at_former, {}).training.checkpoints == FORMER
    ends = replace(settings, training=replace(settings.training, trained_end="template"))
    assert identity_of(ends, {}) != identity_of(settings, {})
