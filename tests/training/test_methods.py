"""Ways to train: LoRA and its variants, every weight, early stop, several processes; and what is scored is what was
trained."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from run_configs import write_config
from sftscope.analysis.run.read_run import load_history
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import ModelSettings, TrainingSettings
from sftscope.llm.loading import load_llm
from sftscope.llm.weights.adapters import AdapterSlot, linear_modules
from sftscope.preflight import plan as planner
from sftscope.runs import pipeline
from sftscope.store import RunFolder
from sftscope.store.checkpoints import Checkpoint, ready_checkpoints
from sftscope.training.method import trainable
from sftscope.training.sft import is_patience_over
from toy_llm import VOCABULARY, save_toy_llm, toy_model

METHODS = {
    "rslora": "use_rslora = true",
    "dora": "use_dora = true",
    "both": "use_rslora = true\nuse_dora = true",
    "full": 'method = "full"',
}


def config_for(folder, method: str, **replaced: str):
    return write_config(folder, **{"learning_rate = 1e-2": f"learning_rate = 1e-3\n{METHODS[method]}", **replaced})


def loss_of(model, ids: list[int]) -> float:
    batch = torch.tensor([ids])
    with torch.inference_mode():
        return float(model(batch, labels=batch).loss)


@pytest.fixture(scope="module")
def full_run(tmp_path_factory):
    """(config, run folder) of a run that trained every weight."""
    folder = tmp_path_factory.mktemp("full")
    config = config_for(folder, "full")
    pipeline.run(config, folder / "run")
    return config, RunFolder(folder / "run")


def test_full_fine_tuning_is_extracted_at_every_checkpoint(full_run):
    _, folder = full_run
    history = load_history(folder.path)
    assert folder.steps() == (0, 1, 2, 4, 6)
    assert history.losses["train"][-1] < history.losses["train"][0]
    assert max(probe.noise.max() for probe in history.probes) < 1e-4
    hashes = [folder.read_step(step).provenance["adapter_sha256"] for step in folder.steps()]
    assert hashes[0] == ""
    assert len(set(hashes)) == len(hashes)
    assert len(np.unique(history.probes[0].output)) == len(folder.steps())  # no warm-up: every step moves
    assert history.same_weights == {}


def test_the_weights_of_a_full_checkpoint_are_those_that_are_scored_and_the_base_comes_back(full_run):
    config, folder = full_run
    base = load_llm(ModelSettings(path=str(config.parent / "toy"), device="cpu")).model
    before, slot, ids = loss_of(base, [7, 8, 9, 10]), AdapterSlot(base), [7, 8, 9, 10]
    for step in (6, 2):
        path = ready_checkpoints(folder.checkpoints)[step].path
        slot.load(path)
        alone = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        assert loss_of(slot.model, ids) == loss_of(alone, ids) != before
    slot.clear()
    assert loss_of(slot.model, ids) == before


def test_only_the_last_full_checkpoint_keeps_its_optimizer(full_run):
    _, folder = full_run
    kept = {step: (c.path / "optimizer.pt").exists() for step, c in ready_checkpoints(folder.checkpoints).items()}
    assert kept == {1: False, 2: False, 4: False, 6: True}


def test_full_fine_tuning_goes_on_from_the_last_checkpoint_that_has_an_optimizer(full_run, tmp_path):
    config, whole = full_run
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(whole.path, folder.path)
    for step in (6, 4):
        shutil.rmtree(folder.checkpoints / f"checkpoint-{step}")
    pipeline.train(config, folder.path)  # checkpoint 2 has lost its optimizer: from the start
    again = load_file(folder.checkpoints / "checkpoint-6" / "model.safetensors")
    for name, tensor in load_file(whole.checkpoints / "checkpoint-6" / "model.safetensors").items():
        assert torch.equal(tensor, again[name])


def test_a_full_checkpoint_of_another_model_is_one_line(full_run, tmp_path):
    base = toy_model("llama")
    path = ready_checkpoints(full_run[1].checkpoints)[6].path
    other = save_toy_llm(tmp_path / "other", "qwen2")
    with pytest.raises(SftscopeError, match=r"not a model like the base model|its model is not complete"):
        AdapterSlot(base).load(other)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((path / "config.json").read_bytes())
    state = load_file(path / "model.safetensors")
    name = sorted(state)[0]
    save_file({key: value for key, value in state.items() if key != name}, broken / "model.safetensors")
    with pytest.raises(SftscopeError, match="broken: its model is not complete: it lacks"):
        AdapterSlot(base).load(broken)
    (broken / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(SftscopeError, match=r"broken.model\.safetensors: damaged safetensors file"):
        AdapterSlot(base).load(broken)


def test_a_model_saved_in_parts_is_ready_only_with_all_of_them(full_run, tmp_path):
    path = ready_checkpoints(full_run[1].checkpoints)[6].path
    model = AutoModelForCausalLM.from_pretrained(path)
    parts = tmp_path / "checkpoint-6"
    model.save_pretrained(parts, max_shard_size="40KB")
    (parts / "trainer_state.json").write_text(json.dumps({"global_step": 6}))
    assert Checkpoint(6, parts).is_ready()
    slot = AdapterSlot(toy_model("llama"))
    slot.load(parts)
    assert loss_of(slot.model, [7, 8, 9]) == loss_of(model, [7, 8, 9])
    shards = sorted(parts.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[-1].unlink()
    assert not Checkpoint(6, parts).is_ready()
    (parts / "model.safetensors.index.json").write_text("{")
    assert not Checkpoint(6, parts).is_ready()


@pytest.mark.parametrize("method", ["rslora", "dora", "both"])
def test_variants_of_lora_are_scored_as_they_were_trained(tmp_path, method):
    config = config_for(tmp_path, method)
    pipeline.run(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    history = load_history(folder.path)
    assert history.losses["train"][-1] < history.losses["train"][0]
    path = ready_checkpoints(folder.checkpoints)[6].path
    assert json.loads((path / "adapter_config.json").read_text())["use_rslora"] is (method != "dora")
    base = load_llm(ModelSettings(path=str(tmp_path / "toy"), device="cpu")).model
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "toy", dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT uses names that transformers gives up
        alone = PeftModel.from_pretrained(alone, path)
    slot = AdapterSlot(base)
    slot.load(path)
    assert loss_of(slot.model, [7, 8, 9]) == pytest.approx(loss_of(alone.eval(), [7, 8, 9]), abs=1e-5)


def test_rslora_scales_by_the_root_of_the_rank():
    settings = TrainingSettings(lora_rank=4, lora_alpha=8.0, use_rslora=True)
    for flag, scale in ((True, 4.0), (False, 2.0)):
        wrapped = trainable(toy_model("llama"), replace(settings, use_rslora=flag))
        scales = {part.scaling["default"] for part in wrapped.modules() if isinstance(part, LoraLayer)}
        assert scales == {scale}


def test_half_precision_full_fine_tuning_keeps_its_weights_in_float32(tmp_path):
    config = config_for(tmp_path, "full", **{'path = "toy"': 'path = "toy"\ndtype = "bfloat16"'})
    pipeline.train(config, tmp_path / "run")
    (last,) = [c for step, c in ready_checkpoints(tmp_path / "run" / "checkpoints").items() if step == 6]
    assert {tensor.dtype for tensor in load_file(last.path / "model.safetensors").values()} == {torch.float32}


def test_plan_times_full_fine_tuning(tmp_path):
    plan = planner.plan(config_for(tmp_path, "full"))
    assert plan.seconds["training"] > 0


def test_layers_that_see_images_get_no_adapter():
    from model_kinds import KINDS

    model = AutoModelForCausalLM.from_config(KINDS["gemma-3"].config(vocab_size=64))
    names = linear_modules(model)
    assert len(names) == 2 * 7  # of each of two layers: q, k, v, o, gate, up, down
    assert not any("vision" in name or "projector" in name for name in names)


LOSSES = [3.0, 2.0, 2.5, 2.1, 2.0, 1.9]


def test_patience_ends_a_training_after_so_many_checkpoints_without_a_lower_loss():
    rows = [{"step": step, "eval_eval_loss": loss} for step, loss in enumerate(LOSSES, start=1)]
    over = [is_patience_over(rows[:n], 3) for n in range(len(rows) + 1)]
    assert over == [False] * 5 + [True, False]  # 2.5, 2.1 and 2.0 are not lower than 2.0; then 1.9 is
    assert not is_patience_over(rows, 0)
    assert not is_patience_over([{"step": 0, "eval_eval_loss": 0.0}, *rows[:2]], 1)  # step 0 is no checkpoint


def test_a_training_that_patience_ended_is_finished(tmp_path, capsys):
    changes = {
        "learning_rate = 1e-2": "learning_rate = 3.0\npatience = 1",  # far too high: the loss rises
        "epochs = 2": "epochs = 8",
    }
    config = write_config(tmp_path, **changes)
    pipeline.run(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    done = max(ready_checkpoints(folder.checkpoints))
    assert 2 <= done < 24
    assert folder.steps()[-1] == done
    capsys.readouterr()
    pipeline.train(config, tmp_path / "run")
    assert f"stopped at step {done}: no lower eval loss at 1 checkpoints" in capsys.readouterr().err
    assert max(ready_checkpoints(folder.checkpoints)) == done


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('path = "toy"', 'path = "toy"\nquantization = "nf4"', r"\[training\] method|cannot be trained themselves"),
        ('eval = "rows.jsonl"', "", "patience needs"),
    ],
)
def test_settings_that_exclude_each_other_are_one_line(tmp_path, old, new, message):
    config = config_for(tmp_path, "full", **{old: new, "epochs = 2": "epochs = 2\npatience = 2"})
    with pytest.raises(SftscopeError, match=message):
        pipeline.train(config, tmp_path / "run")


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed: there is nothing to say")
def test_without_bitsandbytes_a_quantised_base_is_one_line(tmp_path):
    config = write_config(tmp_path, **{'path = "toy"': 'path = "toy"\nquantization = "int8"'})
    with pytest.raises(SftscopeError, match="int8 needs bitsandbytes; install it with: pip install bitsandbytes"):
        pipeline.train(config, tmp_path / "run")


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="an optional package: not part of any extra")
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_an_adapter_on_a_quantised_base_is_trained_and_scored_on_it(tmp_path, kind):
    config = write_config(tmp_path, **{'path = "toy"': f'path = "toy"\nquantization = "{kind}"'})
    wide = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    torch.manual_seed(0)  # blocks of 64 weights share a scale: narrower layers have none
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=VOCABULARY, **wide)).save_pretrained(tmp_path / "toy")
    pipeline.run(config, tmp_path / "run")
    history = load_history(tmp_path / "run")
    assert history.losses["train"][-1] < history.losses["train"][0]


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"],
    # with --cpu it would start one process only; where there is no GPU these two use gloo as well
    "accelerate": [
        *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "--no_python"),
    ],
}


def launched(launcher: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in two processes on CPUs (gloo), as torchrun or accelerate launch starts it."""
    code = "import sys; from sftscope_tui.cli import main; main()"
    command = [sys.executable, "-m", *LAUNCHERS[launcher], sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_two_processes_train_the_same_adapter_as_one_and_resume(tmp_path, launcher):
    config = write_config(tmp_path, **{"micro_batch_size = 2": "micro_batch_size = 1"})
    pipeline.run(config, tmp_path / "one")
    result = launched(launcher, "run", config, "--out", tmp_path / "two")
    assert result.returncode == 0, result.stderr
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert two.steps() == one.steps()
    for step, checkpoint in ready_checkpoints(one.checkpoints).items():
        ours = load_file(checkpoint.path / "adapter_model.safetensors")
        theirs = load_file(ready_checkpoints(two.checkpoints)[step].path / "adapter_model.safetensors")
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4
    assert [row["step"] for row in two.read_log()] == [row["step"] for row in one.read_log()]
    assert result.stderr.count("training: 0/6") == 1  # one process speaks
    for path in (two.checkpoints / "checkpoint-6", two.checkpoints / "checkpoint-4"):
        (path / "trainer_state.json").unlink()
    early = (two.checkpoints / "checkpoint-2" / "adapter_model.safetensors").stat().st_mtime_ns
    again = launched(launcher, "train", config, "--out", tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert set(ready_checkpoints(two.checkpoints)) == {1, 2, 4, 6}
    assert (two.checkpoints / "checkpoint-2" / "adapter_model.safetensors").stat().st_mtime_ns == early


def test_a_batch_that_cannot_be_shared_is_one_line(tmp_path, monkeypatch):
    config = write_config(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "3")  # as torchrun sets it
    with pytest.raises(SftscopeError, match="4 is not a multiple of 3 processes × micro_batch_size 2; change one"):
        pipeline.train(config, tmp_path / "run")
