"""The callback in someone else's training: it sees everything, changes nothing, and never ends it by mistake."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from foreign_training import WORDS, losses_in, make_trainer, quiet, train, weights_of, write_inputs
from sftscope.analysis.run.read_run import load_history
from sftscope.compat.transformers import recomputation_name
from sftscope.files.atomic import append_line
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.sandbox import same_modules
from sftscope.monitor import SftscopeCallback, sidecar
from sftscope.monitor.headline import Headline, append_headline, headline_file, read_headlines
from sftscope.monitor.live import untouched
from sftscope.store import RunFolder
from sftscope.store.held_out_file import read_held_out
from sftscope.store.sharing.training_requests import Answered, Request, ask, read_answer
from sftscope.verification.verify import verify
from strangers import SUPPORT


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitor")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def alone(inputs):
    """The same training without a monitor."""
    trainer = make_trainer(inputs, out="alone")
    train(trainer)
    return trainer


def watched(inputs, tmp_path, *, add=(), run="run", adapter=True, arguments=None, **options):
    """A trainer with the monitor; its checkpoints lie in `tmp_path`."""
    trainer = make_trainer(inputs, adapter=adapter, out=str(tmp_path / "out"), **(arguments or {}))
    callback = SftscopeCallback(
        trainer, probes=inputs / "probes.jsonl", out=tmp_path / run, words=WORDS, **{"wait": 120, **options}
    )
    for other in (*add, callback):
        trainer.add_callback(other)
    return trainer, callback


def assert_same_training(one, other):
    assert losses_in(one) == losses_in(other)
    weights, others = weights_of(one), weights_of(other)
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


class Reporter(TrainerCallback):
    """What W&B or TensorBoard are given."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **_):
        self.logs.append(dict(logs))


@pytest.fixture(scope="module")
def both(inputs, tmp_path_factory):
    """By where it was extracted: the folder, the trainer, and what its reporters were given."""
    found = {}
    for where in ("in-process", "sidecar"):
        folder, reporter = tmp_path_factory.mktemp(where), Reporter()
        trainer, _ = watched(inputs, folder, where=where, add=[reporter], arguments={"save_total_limit": 1})
        train(trainer)
        found[where] = folder, trainer, reporter
    return found


@pytest.mark.parametrize("where", ["in-process", "sidecar"])
def test_losses_and_weights_are_bit_for_bit_those_without_the_monitor(both, alone, where):
    folder, trainer, reporter = both[where]
    assert_same_training(trainer, alone)
    history = load_history(folder / "run")
    assert history.steps.tolist() == [0, 2, 4, 6]
    evals = [value for step, name, value in losses_in(trainer) if name == "eval_loss"]
    assert history.losses["eval"][1:].tolist() == evals
    logged = [logs for logs in reporter.logs if "sftscope/encoded" in logs]
    assert [logs["sftscope/step"] for logs in logged] == [0, 2, 4, 6]
    assert [row["sftscope/step"] for row in trainer.state.log_history if "sftscope/step" in row] == [0, 2, 4, 6]


@pytest.mark.parametrize("where", ["in-process", "sidecar"])
def test_each_row_of_the_eval_dataset_is_measured_at_each_step(both, where):
    """Σ loss / Σ tokens is the loss that the trainer logged: it has one batch, and averages over its tokens."""
    folder, trainer, _ = both[where]
    found, problems = read_held_out(RunFolder(folder / "run"))
    assert problems == ()
    assert found.steps.tolist() == found.correct_steps.tolist() == [0, 2, 4, 6]
    assert found.loss.shape == found.correct.shape == (4, 3)
    logged = [value for _, name, value in losses_in(trainer) if name == "eval_loss"]
    assert found.loss_per_token[1:].tolist() == pytest.approx(logged, rel=1e-5)


def test_in_process_scores_are_those_of_the_checkpoints(both):
    ours, theirs = (RunFolder(both[where][0] / "run") for where in ("in-process", "sidecar"))
    for step in (0, 2, 4, 6):
        np.testing.assert_allclose(ours.read_step(step).scores, theirs.read_step(step).scores, atol=1e-5)
    assert not verify(ours.path).findings


@pytest.mark.parametrize("where", ["in-process", "sidecar"])
def test_rotated_checkpoints_are_kept_by_copies(both, where):
    folder = both[where][0]
    assert [path.name for path in (folder / "out").glob("checkpoint-*")] == ["checkpoint-6"]
    for step in (2, 4, 6):
        assert (folder / "run" / "checkpoints" / f"checkpoint-{step}" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("where", ["in-process", "sidecar"])
def test_a_sample_of_the_masked_states_is_enough(inputs, alone, tmp_path, where):
    trainer, _ = watched(inputs, tmp_path, where=where, masked_states=12)
    train(trainer)
    assert_same_training(trainer, alone)
    history = load_history(tmp_path / "run")
    assert history.steps.tolist() == [0, 2, 4, 6]
    assert all(part.is_estimated for part in history.probes)


@pytest.mark.parametrize("where", ["in-process", "sidecar"])
def test_zeta_can_be_a_share_of_the_range_of_each_step(inputs, tmp_path, where):
    trainer, _ = watched(inputs, tmp_path, where=where, zeta_of="range")
    train(trainer)
    folder = RunFolder(tmp_path / "run")
    assert folder.steps() == (0, 2, 4, 6)
    for step in folder.steps():
        record = folder.read_step(step)
        spreads = [np.ptp(record.scores[record.probe_slice(p)]) for p in range(record.n_variables.size)]
        assert record.effects.zeta == pytest.approx(0.012 * np.maximum(spreads, 0.5))


@pytest.mark.parametrize("adapter", [True, False])
def test_chosen_steps_are_written_down_without_a_save_of_the_trainer(inputs, tmp_path, adapter):
    plain = make_trainer(inputs, adapter=adapter, out=str(tmp_path / "plain"))
    train(plain)
    trainer, _ = watched(inputs, tmp_path, adapter=adapter, where="in-process", steps=(1, 3, 6))
    train(trainer)
    assert_same_training(trainer, plain)
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-4",
        "checkpoint-6",
    ]
    history = load_history(tmp_path / "run")
    assert history.steps.tolist() == [0, 1, 3, 6]
    logged = {(step, name): value for step, name, value in losses_in(trainer)}
    assert history.losses["train"][1:].tolist() == [logged[step, "loss"] for step in (1, 3, 6)]
    live = [RunFolder(tmp_path / "run").read_step(step).scores for step in (1, 3, 6)]
    for step in (1, 3, 6):
        RunFolder(tmp_path / "run").step_file(step).unlink()
    from sftscope.runs import pipeline

    pipeline.extract(tmp_path / "run")  # from what was written down
    for step, scores in zip((1, 3, 6), live, strict=True):
        np.testing.assert_allclose(RunFolder(tmp_path / "run").read_step(step).scores, scores, atol=1e-5)


def test_a_model_is_left_as_it_was_even_by_an_error(inputs):
    trainer = make_trainer(inputs)
    model = trainer.model
    model.train()
    model.get_base_model().model.layers[1].eval()
    model.config.use_cache = False
    getattr(model, f"{recomputation_name()}_enable")()
    modes = [module.training for module in model.modules()]
    trained = [parameter.requires_grad for parameter in model.parameters()]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    def meddle():
        with untouched(model), model.disable_adapter():
            assert not any(module.training for module in model.modules())
            model.config.use_cache = True
            random.random(), np.random.rand(), torch.rand(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        meddle()
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert model.config.use_cache is False
    assert getattr(model, f"is_{recomputation_name()}")
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_gradient_checkpointing_trains_the_same(inputs, tmp_path):
    arguments = {recomputation_name(): True}
    plain = make_trainer(inputs, out=str(tmp_path / "plain"), **arguments)
    train(plain)
    trainer, _ = watched(inputs, tmp_path, where="in-process", arguments=arguments)
    train(trainer)
    assert_same_training(trainer, plain)
    assert load_history(tmp_path / "run").steps.tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ValueError("anything"), SystemError()])
def test_no_error_of_ours_ends_a_training(inputs, alone, tmp_path, monkeypatch, caplog, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("sftscope.monitor.live.score_model", fail)
    trainer, _ = watched(inputs, tmp_path, where="in-process")
    train(trainer)
    assert_same_training(trainer, alone)
    assert "the training continues" in caplog.text


def test_an_out_of_memory_halves_the_work_and_is_gone(inputs, alone, tmp_path, monkeypatch):
    from sftscope.scoring.scorer import Scorer

    naive, failed = Scorer._naive, []

    def once(self, prompt, subsets, rows, *watched):
        if rows > 1 and len(failed) < 3:
            failed.append(rows)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return naive(self, prompt, subsets, rows, *watched)

    monkeypatch.setattr(Scorer, "_naive", once)
    trainer, _ = watched(inputs, tmp_path, where="in-process")
    train(trainer)
    assert len(failed) == 3
    assert_same_training(trainer, alone)
    assert load_history(tmp_path / "run").steps.tolist() == [0, 2, 4, 6]


@pytest.mark.campaign
def test_a_killed_sidecar_is_started_again_and_finishes(inputs, alone, tmp_path):
    class Killer(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                callback._process.send_signal(signal.SIGKILL)
                callback._process.wait()

    trainer, callback = watched(inputs, tmp_path)
    trainer.add_callback(Killer())
    train(trainer)
    assert callback._starts == 2
    assert_same_training(trainer, alone)
    assert load_history(tmp_path / "run").steps.tolist() == [0, 2, 4, 6]


def test_a_sidecar_that_cannot_run_is_given_up_and_the_training_is_not(inputs, alone, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sidecar, "start", lambda out: subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]))
    trainer, callback = watched(inputs, tmp_path, arguments={"save_steps": 1})
    original = callback.on_save

    def after_it_died(*arguments, **kwargs):
        callback._process.wait()
        return original(*arguments, **kwargs)

    monkeypatch.setattr(callback, "on_save", after_it_died)
    train(trainer)
    assert losses_in(trainer) == losses_in(alone)
    assert "the sidecar ended 3 times" in caplog.text
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("checkpoint-*")) == [
        f"checkpoint-{step}" for step in range(1, 7)
    ]


@pytest.mark.campaign
def test_a_sidecar_ends_when_its_training_was_killed(both):
    folder = RunFolder(both["sidecar"][0] / "run")
    sidecar.ended_file(folder).unlink()
    folder.step_file(6).unlink()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = same_modules("from sftscope.monitor.sidecar import main; main()", str(folder.path), str(gone.pid))
    subprocess.run(command, timeout=600, check=True)
    assert folder.steps() == (0, 2, 4, 6)


def test_resume_from_a_checkpoint_that_was_saved_without_the_monitor(inputs, alone, both, tmp_path):
    trainer, _ = watched(inputs, tmp_path, where="in-process")
    train(trainer, resume_from_checkpoint=str(inputs / "alone" / "checkpoint-2"))
    assert losses_in(trainer) == losses_in(alone)
    assert load_history(tmp_path / "run").steps.tolist() == [0, 4, 6]
    base = RunFolder(both["sidecar"][0] / "run").read_step(0).scores
    np.testing.assert_allclose(RunFolder(tmp_path / "run").read_step(0).scores, base, atol=1e-5)


def test_a_whole_model_that_is_trained_already_has_no_step_0_in_process(inputs, tmp_path, caplog):
    plain = make_trainer(inputs, adapter=False, out=str(tmp_path / "plain"))
    train(plain)
    trainer, _ = watched(inputs, tmp_path, adapter=False, where="in-process")
    train(trainer, resume_from_checkpoint=str(tmp_path / "plain" / "checkpoint-2"))
    assert trainer.state.global_step == 6
    assert "has no step 0" in caplog.text
    assert not RunFolder(tmp_path / "run").steps()


def test_sharded_models_are_refused_in_process_and_the_sidecar_is_offered(inputs, tmp_path):
    trainer = make_trainer(inputs)
    options = {"probes": inputs / "probes.jsonl", "out": tmp_path / "run"}
    trainer.is_fsdp_enabled = True
    with pytest.raises(SftscopeError, match=r"FSDP leaves no complete model .* use where='sidecar'"):
        SftscopeCallback(trainer, where="in-process", **options)
    SftscopeCallback(trainer, **options)
    trainer.is_fsdp_enabled = False
    plugin = SimpleNamespace(zero_stage=3)
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin))
    with pytest.raises(SftscopeError, match=r"ZeRO-3 leaves no complete model .* use where='sidecar'"):
        SftscopeCallback(trainer, where="in-process", **options)
    plugin.zero_stage = 2
    SftscopeCallback(trainer, where="in-process", **options)


def test_what_cannot_work_is_refused_before_the_training(inputs, tmp_path):
    trainer = make_trainer(inputs, save_strategy="no")
    options = {"probes": inputs / "probes.jsonl", "out": tmp_path / "run"}
    with pytest.raises(SftscopeError, match="saves no checkpoints; give steps"):
        SftscopeCallback(trainer, **options)
    with pytest.raises(SftscopeError, match="expected where 'sidecar' or 'in-process'"):
        SftscopeCallback(trainer, where="beside", **options)
    trainer.model.peft_config["default"].base_model_name_or_path = None
    with pytest.raises(SftscopeError, match="does not say where it is from; give model="):
        SftscopeCallback(trainer, steps=[1], **options)


class At(TrainerCallback):
    """Does something at the beginning of a step."""

    def __init__(self, step, work):
        self.step, self.work = step, work

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            self.work()


def headline(step, sparsest, stop_by=None):
    numbers = dict.fromkeys(("effective", "soft_removed", "soft_emerged"), 3.0)
    counts = {"encoded": 3.0, "removed": 1.0, "preserved": 2.0, "emerged": 1.0}
    words = f"sparsest at step {sparsest}, stop by {stop_by}"
    return Headline(step, **numbers, **counts, sparsest=sparsest, stop_by=stop_by, agreement="conflict", words=words)


@pytest.mark.parametrize(
    ("stop", "stop_by", "last"),
    [("never", 2, 6), ("agree", None, 6), ("agree", 2, 4), ("sparsest", None, 4)],
)
def test_it_warns_and_stops_only_where_it_was_asked_to(inputs, tmp_path, monkeypatch, caplog, stop, stop_by, last):
    monkeypatch.setattr(sidecar, "start", lambda out: subprocess.Popen([sys.executable, "-c", ""]))
    trainer, _ = watched(inputs, tmp_path, stop=stop)
    trainer.add_callback(At(3, lambda: append_headline(RunFolder(tmp_path / "run"), headline(2, 2, stop_by))))
    train(trainer)
    assert trainer.state.global_step == last
    assert (tmp_path / "out" / f"checkpoint-{last}").is_dir()  # where it stops it saves
    said = caplog.text
    assert "warning: sparsest at step 2" in said
    assert "checkpoint-2" in said
    assert said.count("warning:") == 1


@pytest.mark.parametrize("kind", ["writable by others", "a link", "a second name"])
def test_a_headline_that_another_user_could_have_written_stops_no_training(inputs, tmp_path, monkeypatch, caplog, kind):
    monkeypatch.setattr(sidecar, "start", lambda out: subprocess.Popen([sys.executable, "-c", ""]))
    folder, elsewhere = RunFolder(tmp_path / "run"), tmp_path / "elsewhere"

    def forge() -> None:
        file = headline_file(folder)
        elsewhere.write_text(json.dumps(asdict(headline(2, 2, 2))) + "\n")
        file.unlink(missing_ok=True)
        if kind == "a link":
            file.symlink_to(elsewhere)
        elif kind == "a second name":
            file.hardlink_to(elsewhere)
        else:
            elsewhere.rename(file)
            file.chmod(0o666)

    trainer, _ = watched(inputs, tmp_path, stop="sparsest")
    trainer.add_callback(At(3, forge))
    train(trainer)
    assert trainer.state.global_step == 6
    said = caplog.text
    assert "headlines.jsonl" in said
    assert "stopping" not in said


@pytest.mark.parametrize(
    "line", ["[1]", "{}", "[" * 10_000, '{"step": 1}', json.dumps({"step": "x", "sparsest": 1}), "1" * 5000]
)
def test_a_line_that_is_no_headline_is_skipped(tmp_path, line):
    folder = RunFolder(tmp_path)
    append_line(headline_file(folder), line, owned=True)
    wrong = asdict(headline(2, 2, 2)) | {"sparsest": "2"}
    append_line(headline_file(folder), json.dumps(wrong), owned=True)
    append_headline(folder, headline(2, 2, 2))
    found, end = read_headlines(folder, 0)
    assert found == [headline(2, 2, 2)]
    assert read_headlines(folder, end) == ([], end)


def test_the_sidecars_log_is_no_link(tmp_path):
    (tmp_path / "bashrc").write_text("mine\n")
    (tmp_path / "sidecar.log").symlink_to("bashrc")
    with pytest.raises(OSError, match="symbolic links"):
        sidecar.start(tmp_path)
    assert (tmp_path / "bashrc").read_text() == "mine\n"


def test_the_owner_can_ask_for_a_save_and_for_a_stop(inputs, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "sftscope")
    monkeypatch.setattr(sidecar, "start", lambda out: subprocess.Popen([sys.executable, "-c", ""]))
    folder = RunFolder(tmp_path / "run")
    trainer, _ = watched(inputs, tmp_path)
    trainer.add_callback(At(2, lambda: ask(folder, Request.SAVE)))
    trainer.add_callback(At(4, lambda: ask(folder, Request.STOP, "seen enough \x1b[31m")))
    train(trainer)
    assert trainer.state.global_step == 5
    assert (tmp_path / "out" / "checkpoint-3").is_dir()
    assert read_answer(folder) == Answered(Request.STOP, 5)
    said = caplog.text
    assert "stop asked for at step 5: seen enough" in said
    assert "\x1b" not in said
    with pytest.raises(SftscopeError, match="no training listens"):
        ask(folder, Request.STOP)


TWO_PROCESSES = """
import json, sys
from pathlib import Path
sys.path.insert(0, {support!r})
import torch.distributed
from foreign_training import make_trainer, train
from transformers import TrainerCallback
from sftscope.monitor import SftscopeCallback
from sftscope.store import RunFolder
from sftscope.store.held_out_file import read_held_out
from sftscope.store.sharing.training_requests import Request, ask

folder, out = Path({folder!r}), Path({out!r})
trainer = make_trainer(folder, out=str(out / "out"), max_steps=2000, save_steps=2, eval_strategy="no")
callback = SftscopeCallback(
    trainer, probes=folder / "probes.jsonl", out=out / "run", words=4, where="in-process", steps=(1,)
)
trainer.add_callback(callback)

class Asks(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 3 and state.is_world_process_zero:
            ask(RunFolder(out / "run"), Request.STOP)

trainer.add_callback(Asks())
train(trainer)
(out / f"rank-{{trainer.args.process_index}}").write_text(str(trainer.state.global_step))
"""


@pytest.mark.campaign
def test_a_stop_that_one_of_two_processes_sees_ends_both_at_the_same_step(inputs, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES.format(support=str(SUPPORT), folder=str(inputs), out=str(tmp_path)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "--standalone", str(script)], env=environment, timeout=600, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["4", "4"]
    assert RunFolder(tmp_path / "run").steps() == (0, 1)


def test_importing_the_package_does_not_import_pytorch():
    modules = "sftscope, sftscope.monitor, sftscope.monitor.headline, sftscope.store.sharing.training_requests"
    code = f"import {modules}, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_headline_of_a_run_is_what_its_report_says(inputs, tmp_path):
    from sftscope.analysis.sets.evolution import Evolution
    from sftscope.analysis.sets.views import Selection, trends

    trainer, _ = watched(inputs, tmp_path, where="in-process")
    train(trainer)
    evolution = Evolution(load_history(tmp_path / "run"))
    seen = trends(evolution, Selection(now=3))
    last = json.loads((tmp_path / "run" / "headlines.jsonl").read_text().splitlines()[-1])
    assert last["encoded"] == seen.encoded_mean[-1]
    for change, trend in seen.classes.items():
        assert last[str(change)] == trend.count_mean[-1]
    assert last["removed"] + last["preserved"] >= seen.encoded_mean[0]
    assert last["effective"] == seen.soft.effective_mean[-1]
    assert last["soft_emerged"] == seen.soft.emerged_mean[-1]
    assert (last["sparsest"], last["stop_by"]) == (None, None)


def test_outside_its_training_the_monitor_says_nothing(inputs, both):
    reporter = Reporter()
    trainer, _ = watched(inputs, both["in-process"][0], where="in-process", add=[reporter])
    with quiet():
        trainer.evaluate()  # before the training; the run has headlines of an earlier one
    assert reporter.logs
    assert not [logs for logs in reporter.logs if "sftscope/encoded" in logs]


def test_steps_of_another_training_are_not_added_to_a_run(inputs, tmp_path, caplog):
    short = {"max_steps": 1, "save_steps": 1, "eval_strategy": "no"}
    trainer, _ = watched(inputs, tmp_path, where="in-process", arguments=short)
    train(trainer)
    run = RunFolder(tmp_path / "run")
    before = {step: run.step_file(step).read_bytes() for step in run.steps()}
    assert list(before) == [0, 1]
    other = {**short, "max_steps": 2, "learning_rate": 2e-2}
    trainer, _ = watched(inputs, tmp_path / "other", run="../run", where="in-process", arguments=other)
    train(trainer)
    assert {step: run.step_file(step).read_bytes() for step in run.steps()} == before
    assert "not of the same training as checkpoint-1" in caplog.text


def test_words_by_influence_are_chosen_on_the_base_and_leave_the_training_as_it_is(inputs, tmp_path):
    trainer, callback = watched(inputs, tmp_path, where="in-process", choice="influence", held_out=False)
    state = SimpleNamespace(is_world_process_zero=True, global_step=0)
    random_state, mode = torch.get_rng_state(), trainer.model.training
    callback.on_train_begin(trainer.args, state, None)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert trainer.model.training == mode
    for probe in RunFolder(tmp_path / "run").read_probes():
        assert [each.weights for each in probe.influence.moved] == ["base"]
        assert len(probe.words) == WORDS
