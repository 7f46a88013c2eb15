"""The whole job on a tiny model: killed anywhere it goes on, and the result is the same."""

import os
import signal
import subprocess
import time

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from command_line import command
from run_configs import write_config
from sftscope.analysis.run.read_run import load_history
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import logical_model
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope.store.checkpoints import ready_checkpoints


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(config, run folder) of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    config = write_config(folder)
    pipeline.run(config, folder / "run")
    return config, RunFolder(folder / "run")


def test_a_run_has_a_step_file_for_every_checkpoint(finished):
    _, folder = finished
    assert folder.steps() == (0, 1, 2, 4, 6)  # 6 is the last step of 2 epochs of 12 rows in batches of 4
    history = load_history(folder.path)
    assert not history.left_out
    assert np.isfinite(history.losses["train"]).all()
    assert np.isfinite(history.losses["eval"]).all()
    assert history.losses["train"][-1] < history.losses["train"][0]


def test_every_masked_state_is_matched_within_zeta_and_every_gap_is_certified(finished):
    history = load_history(finished[1].path)
    for probe in history.probes:
        model = logical_model(probe.bias, probe.effects[:, 0], probe.effects[:, 1])
        scale = np.abs(probe.scores - probe.bias[:, None]).max()
        assert (np.abs(model - probe.scores).max(axis=1) <= probe.zeta + 1e-9 * scale).all()
        assert (probe.gap <= 1e-3).all()
        assert (probe.noise < 1e-4).all()  # tree and naive agree
        assert np.ptp(probe.zeta) == 0  # one ζ for all steps


def test_provenance_names_what_made_a_step(finished):
    _, folder = finished
    zero, last = folder.read_step(0).provenance, folder.read_step(6).provenance
    assert zero["adapter_sha256"] == ""
    assert len(last["adapter_sha256"]) == 64
    assert zero["identity"] == last["identity"] == folder.read_run()["identity"]
    assert {"sftscope", "torch", "transformers", "peft"} <= set(last["versions"])


def kill_when(condition, *arguments: object) -> None:
    """Start a command and kill it with SIGKILL as soon as `condition()` holds."""
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


@pytest.mark.campaign
@pytest.mark.long
def test_killed_in_training_and_in_extraction_it_goes_on_to_the_same_result(finished, tmp_path):
    config, whole = finished
    folder = RunFolder(tmp_path / "run")
    arguments = ("run", config, "--out", folder.path)
    kill_when(lambda: 2 in ready_checkpoints(folder.checkpoints), *arguments)
    assert not folder.steps()
    early = (folder.checkpoints / "checkpoint-2" / "adapter_model.safetensors").stat()
    kill_when(lambda: len(folder.steps()) >= 2, *arguments)
    before = {step: folder.step_file(step).stat() for step in folder.steps()}
    subprocess.run(command(*arguments), check=True, capture_output=True)
    again = (folder.checkpoints / "checkpoint-2" / "adapter_model.safetensors").stat()
    assert (early.st_ino, early.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)
    for step, stat in before.items():
        now = folder.step_file(step).stat()
        assert (stat.st_ino, stat.st_mtime_ns) == (now.st_ino, now.st_mtime_ns)
    assert folder.steps() == whole.steps()
    for step in whole.steps():
        assert folder.step_file(step).read_bytes() == whole.step_file(step).read_bytes()
    assert not list(folder.path.rglob("*tmp*"))


def test_a_finished_run_computes_nothing_again(finished, capsys):
    config, folder = finished
    before = {step: folder.step_file(step).stat().st_mtime_ns for step in folder.steps()}
    pipeline.run(config, folder.path)
    assert before == {step: folder.step_file(step).stat().st_mtime_ns for step in folder.steps()}
    assert "all 6 steps are done" in capsys.readouterr().err


def test_a_damaged_step_is_made_again(finished, capsys):
    _, folder = finished
    good = folder.step_file(4).read_bytes()
    folder.step_file(4).write_bytes(good[:-7])
    pipeline.extract(folder.path)
    assert folder.step_file(4).read_bytes() == good
    assert "extracting step 4 again" in capsys.readouterr().err


def test_a_run_folder_is_not_continued_with_other_settings(finished, tmp_path):
    config, folder = finished
    text = config.read_text()
    other = config.with_name("other.toml")
    other.write_text(text.replace("learning_rate = 1e-2", "learning_rate = 2e-2"))
    with pytest.raises(SftscopeError, match=r"learning_rate is 0\.02, but .* begun with 0\.01"):
        pipeline.run(other, folder.path)


def test_an_adapter_that_does_not_fit_the_base_is_one_line(toy_run):
    folder = RunFolder(toy_run()[1])
    weights = folder.checkpoints / "checkpoint-1" / "adapter_model.safetensors"
    state = load_file(weights)
    name = sorted(state)[0]
    save_file({**state, name: state[name][:, :-1].contiguous()}, weights)
    with pytest.raises(SftscopeError, match=r"checkpoint-1: the adapter does not fit the base model: .* shape"):
        pipeline.extract(folder.path)
    save_file({key: value for key, value in state.items() if key != name}, weights)
    with pytest.raises(SftscopeError, match="the adapter does not fit the base model: the adapter lacks"):
        pipeline.extract(folder.path)
    assert not folder.steps()


def test_where_the_base_model_is_silent_zeta_is_the_median_over_steps(finished, toy_run, monkeypatch):
    """Over all that there are, whichever are asked for; of the other probes it is that of step 0."""
    from sftscope.extraction import zeta as noise_bound

    whole = finished[1]
    records = [whole.read_step(step) for step in whole.steps()]
    reactions = np.array([noise_bound.reaction(record) for record in records])
    order = np.argsort(reactions[0])
    floor = reactions[0][order[:2]].mean()  # one probe is silent
    monkeypatch.setattr(noise_bound, "SCALE_FLOOR", floor)
    expected = 0.02 * np.where(reactions[0] < floor, np.maximum(np.median(reactions, axis=0), floor), reactions[0])
    folder = RunFolder(toy_run()[1])
    for steps in ([0], None):
        pipeline.extract(folder.path, steps=steps)
    for step in folder.steps():
        record = folder.read_step(step)
        np.testing.assert_allclose(record.effects.zeta, expected, rtol=1e-4)
        assert record.provenance["zeta_source"].count("median over steps") == 1
        assert record.provenance["zeta_source"][order[0]] == "median over steps"
    assert not list(folder.steps_folder.glob("*.scores.h5"))


def test_other_precisions_and_recomputation_train_and_are_scored_in_float32(tmp_path):
    changes = {
        'path = "toy"': 'path = "toy"\ndtype = "bfloat16"',
        "learning_rate = 1e-2": "learning_rate = 1e-2\ngradient_checkpointing = true",
    }
    pipeline.run(write_config(tmp_path, architecture="gpt2", **changes), tmp_path / "run")
    history = load_history(tmp_path / "run")
    assert history.losses["train"][-1] < history.losses["train"][0]
    assert max(probe.noise.max() for probe in history.probes) < 1e-4
    assert RunFolder(tmp_path / "run").read_step(0).provenance["dtype"] == "float32"


def test_a_run_stays_the_same_run_when_a_setting_is_written_out_with_its_default(finished, capsys):
    config, folder = finished
    other = config.with_name("explicit.toml")
    other.write_text(config.read_text() + 'target = "first"\n')
    pipeline.train(other, folder.path)
    assert "steps are done" in capsys.readouterr().err


def test_zeta_is_a_share_of_the_reaction_at_step_0(toy_run, monkeypatch):
    from sftscope.extraction import zeta as noise_bound

    _, run = toy_run()
    monkeypatch.setattr(noise_bound, "SCALE_FLOOR", 0.0)
    pipeline.extract(run)
    for probe in load_history(run).probes:
        assert probe.zeta == pytest.approx(0.02 * abs(probe.output[0] - probe.bias[0]))


def test_steps_can_be_chosen_and_unknown_ones_are_refused(toy_run):
    _, run = toy_run()
    pipeline.extract(run, steps=[0, 4])
    assert RunFolder(run).steps() == (0, 4)
    with pytest.raises(SftscopeError, match="no checkpoint of step 3; there are 0, 1, 2, 4, 6"):
        pipeline.extract(run, steps=[3])
