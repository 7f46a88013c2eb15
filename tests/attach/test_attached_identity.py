"""Of which step, base and training attached weights are: from what is certain, and said where nothing is."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from attached_runs import attached
from foreign_training import make_trainer, quiet, train, write_inputs
from sftscope.attach.attach import Choices, attach
from sftscope.attach.copies import copy_checkpoint
from sftscope.attach.foreign_checkpoints import GIVEN, Found, why_not_whole
from sftscope.attach.layouts import Source, find_checkpoints
from sftscope.cli.options import checkpoints_in
from sftscope.foundation.errors import SftscopeError
from sftscope.llm import hub
from sftscope.llm.weights.adapter_config import read_adapter
from sftscope.llm.weights.adapters import AdapterSlot
from sftscope.store.checkpoints import Checkpoint, list_checkpoints
from sftscope.verification.verify import verify

ADAPTER, CONFIG, STATE = "adapter_model.safetensors", "adapter_config.json", "trainer_state.json"
STEPS = (10, 20, 30)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """`toy`, `probes.jsonl`, and the adapters of three steps: `10`, `20`, `30`, merged in `10-merged` and so on."""
    folder = tmp_path_factory.mktemp("identity")
    write_inputs(folder)
    torch.manual_seed(7)
    with quiet():
        model = get_peft_model(base(folder), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        for step in STEPS:
            for value in model.parameters():
                if value.requires_grad:
                    value.data += 0.2 * torch.randn_like(value)
            model.save_pretrained(folder / str(step))
            merged = PeftModel.from_pretrained(base(folder), folder / str(step)).merge_and_unload()
            merged.save_pretrained(folder / f"{step}-merged")
    for file in folder.rglob("*"):
        os.utime(file, (1e9, 1e9))
    return folder


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder / "toy").eval()


def log(upto):
    rows = []
    for step in range(10, upto + 1, 10):
        rows.append({"step": step, "loss": 3.0 / step, "learning_rate": 1e-4, "grad_norm": 1.0})
        rows.append({"step": step, "eval_loss": 4.0 / step})
    return rows


def write_state(folder, step, **more):
    content = {"global_step": step, "max_steps": 30, "log_history": log(step), **more}
    (folder / STATE).write_text(json.dumps(content))
    os.utime(folder / STATE, (1e9, 1e9))


def trainer_output(inputs, out, **best):
    """`checkpoint-N` of three steps, as a Trainer leaves them."""
    for step in STEPS:
        shutil.copytree(inputs / str(step), out / f"checkpoint-{step}")
        write_state(out / f"checkpoint-{step}", step, **best)
    return out


def put_final(inputs, out, step, **best):
    """Weights of `step` in the output folder itself, next to the state of step 30."""
    for name in (ADAPTER, CONFIG):
        shutil.copy2(inputs / str(step) / name, out / name)
    write_state(out, 30, **best)


def steps_of(folder, copies=None):
    return [part.step for part in Source(folder).look(copies).checkpoints]


def copied(inputs, source, out, **options):
    """The steps that a run takes from `source`, and the run."""
    run = attached(inputs, source, out, extracting=False, **options)
    return [part.step for part in list_checkpoints(run.checkpoints)], run


BEST = {"best_global_step": 20, "best_model_checkpoint": "out/checkpoint-20", "best_metric": 0.1}


def test_a_trainer_that_loads_its_best_weights_does_not_pass_them_off_as_its_last(inputs, tmp_path):
    trainer = make_trainer(
        inputs,
        out=str(tmp_path / "out"),
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,
    )
    train(trainer)
    trainer.save_model()
    trainer.save_state()
    state = json.loads((tmp_path / "out" / STATE).read_text())
    assert (state["best_global_step"], state["global_step"]) == (2, 6)
    shutil.rmtree(tmp_path / "out" / "checkpoint-6")
    layout = Source(tmp_path / "out").look()
    assert [part.step for part in layout.checkpoints] == [2, 4]
    assert not layout.left_out  # the final weights are those of step 2, which is there


def test_final_weights_that_may_be_the_best_ones_are_left_out_and_that_is_said(inputs, tmp_path, capsys):
    out = trainer_output(inputs, tmp_path / "out", **BEST)
    put_final(inputs, out, 20, **BEST)
    shutil.rmtree(out / "checkpoint-20")
    shutil.rmtree(out / "checkpoint-30")
    steps, _ = copied(inputs, out, tmp_path / "run")
    assert steps == [10]
    said = capsys.readouterr().err
    assert "may be those of the best step (step 20) or of the last (30)" in said
    assert f"--checkpoint STEP={out}" in said


def test_only_the_best_saved_and_the_last_in_the_folder_is_not_certain_either(inputs, tmp_path):
    out = trainer_output(inputs, tmp_path / "out", **BEST)
    put_final(inputs, out, 30, **BEST)
    for step in (10, 30):
        shutil.rmtree(out / f"checkpoint-{step}")
    layout = Source(out).look()
    assert [part.step for part in layout.checkpoints] == [20]
    assert list(layout.left_out) == [out]


@pytest.mark.parametrize("best", [{}, {"best_global_step": 30, "best_model_checkpoint": "out/checkpoint-30"}])
def test_without_another_best_step_the_final_weights_are_of_the_last(inputs, tmp_path, best):
    out = trainer_output(inputs, tmp_path / "out", **best)
    put_final(inputs, out, 30, **best)
    shutil.rmtree(out / "checkpoint-30")
    assert steps_of(out) == [10, 20, 30]
    assert find_checkpoints(out)[-1].path == out


def test_final_weights_unlike_those_of_the_checkpoint_of_their_state_are_no_step(inputs, tmp_path):
    out = trainer_output(inputs, tmp_path / "out")
    put_final(inputs, out, 20)
    (out / "checkpoint-20").rename(tmp_path / "away")
    layout = Source(out).look()
    assert [part.path.name for part in layout.checkpoints] == ["checkpoint-10", "checkpoint-30"]
    assert "its weights are not those of checkpoint-30" in layout.left_out[out]


def test_a_copy_that_was_made_before_says_of_which_step_the_final_weights_are(inputs, tmp_path):
    out = trainer_output(inputs, tmp_path / "out", **BEST)
    _, run = copied(inputs, out, tmp_path / "run")
    for step in (20, 30):
        shutil.rmtree(out / f"checkpoint-{step}")
    put_final(inputs, out, 20, **BEST)
    assert [(part.step, part.said_by) for part in Source(out).look(run.checkpoints).checkpoints][-1] == (
        20,
        "equal weights",
    )


def test_a_run_that_took_the_best_weights_for_the_last_step_is_not_continued(inputs, tmp_path):
    """As an earlier release did: the copy of the final folder was made as step 30."""
    out = trainer_output(inputs, tmp_path / "out", **BEST)
    shutil.rmtree(out / "checkpoint-30")
    _, run = copied(inputs, out, tmp_path / "run")
    put_final(inputs, out, 20, **BEST)
    assert not copy_checkpoint(Checkpoint(30, out), run.checkpoints)
    with pytest.raises(SftscopeError, match=r"was taken from .* as step 30, but its weights are those of .*point-20"):
        copied(inputs, out, run.path)


def test_a_step_that_is_given_is_taken_with_its_own_losses(inputs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    put_final(inputs, out, 20, **BEST)
    run = attached(inputs, out, tmp_path / "run", given={20: out})
    assert run.steps() == (0, 20)
    assert run.read_step(20).losses == {"train": pytest.approx(3 / 20), "eval": pytest.approx(4 / 20)}
    assert run.read_run()["attached"]["given"] == [f"20={out}"]
    assert not verify(run.path).damaged
    assert attached(inputs, None, run.path, given={20: out}).steps() == (0, 20)


def test_a_step_that_is_given_wrongly_is_one_line(inputs, tmp_path):
    out = trainer_output(inputs, tmp_path / "out")
    with pytest.raises(SftscopeError, match="is of step 20 by its name"):
        Source(None, {10: out / "checkpoint-20"}).look()
    with pytest.raises(SftscopeError, match=r"has the weights of .*checkpoint-20, of step 20"):
        Source(out, {25: inputs / "20"}).look()
    with pytest.raises(SftscopeError, match="no such folder; expected STEP=FOLDER"):
        Source(None, {10: out / "none"}).look()
    for text in ("20", "x=out", "0=out", "=out", "5="):
        with pytest.raises(SftscopeError, match="expected STEP=PATH"):
            checkpoints_in([text])
    assert checkpoints_in(["7=a=b"]) == {7: Path("a=b")}


@pytest.mark.parametrize("name", ["checkpoint-{}", "step_{}", "step-000{}"])
def test_folders_that_are_named_after_steps_need_no_state(inputs, tmp_path, name):
    for step in STEPS:
        shutil.copytree(inputs / str(step), tmp_path / "out" / name.format(step))
    steps, run = copied(inputs, tmp_path / "out", tmp_path / "run")
    assert steps == [10, 20, 30]
    for step in STEPS:
        copy = load_file(run.checkpoints / f"checkpoint-{step}" / ADAPTER)
        assert all(torch.equal(copy[key], value) for key, value in load_file(inputs / str(step) / ADAPTER).items())


def test_merged_models_without_a_state_are_scored_as_a_plain_forward_runs_them(inputs, tmp_path):
    from sftscope.llm.loading import load_tokenizer
    from sftscope.scoring.masking import mask_probe

    for step in (10, 30):
        shutil.copytree(inputs / f"{step}-merged", tmp_path / "out" / f"checkpoint-{step}")
    run = attached(inputs, tmp_path / "out", tmp_path / "run")
    assert run.steps() == (0, 10, 30)
    prompt = mask_probe(run.read_probes()[0], load_tokenizer(str(inputs / "toy")), "chat", "first")
    model = AutoModelForCausalLM.from_pretrained(inputs / "30-merged").eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt.ids])).logits[0, -1].double()
    odds = logits[prompt.target] - torch.cat([logits[: prompt.target], logits[prompt.target + 1 :]]).logsumexp(0)
    record = run.read_step(30)
    assert record.scores[record.offsets[1] - 1] == pytest.approx(float(odds), abs=1e-4)


def test_epochs_are_steps_only_where_nothing_counts_steps_and_that_is_said(inputs, tmp_path, capsys):
    for number in (1, 2):
        shutil.copytree(inputs / str(10 * number), tmp_path / "out" / f"epoch_{number}")
    steps, run = copied(inputs, tmp_path / "out", tmp_path / "run")
    assert steps == [1, 2]
    assert "a step of this run is an epoch" in capsys.readouterr().err
    assert run.read_run()["attached"]["step_unit"] == "epoch"
    shutil.copytree(inputs / "30", tmp_path / "out" / "checkpoint-30")
    with pytest.raises(SftscopeError, match=r"was begun with epochs, and the checkpoints of .* count steps now"):
        copied(inputs, tmp_path / "out", tmp_path / "run")
    shutil.rmtree(tmp_path / "out" / "checkpoint-30")
    (tmp_path / "out" / "trainer_log.jsonl").write_text('{"current_steps": 2, "loss": 1.0}\n')
    assert steps_of(tmp_path / "out") == []
    for number in (1, 2):
        write_state(tmp_path / "out" / f"epoch_{number}", 10 * number)
    assert steps_of(tmp_path / "out") == [10, 20]


def test_epochs_from_0_and_a_single_adapter_are_asked_for_their_steps(inputs, tmp_path):
    for number in (0, 1):
        shutil.copytree(inputs / str(10 * number + 10), tmp_path / "out" / f"epoch_{number}")
    with pytest.raises(SftscopeError) as caught:
        copied(inputs, tmp_path / "out", tmp_path / "run")
    assert f"--checkpoint STEP={tmp_path}/out/epoch_0 --checkpoint STEP={tmp_path}/out/epoch_1" in str(caught.value)
    with pytest.raises(SftscopeError, match=r"nothing says of which step its weights are.*--checkpoint STEP="):
        copied(inputs, inputs / "30", tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_weights_without_a_state_are_taken_when_they_are_whole_and_still(inputs, tmp_path):
    folder = shutil.copytree(inputs / "20-merged", tmp_path / "alone" / "checkpoint-20")
    part = Checkpoint(20, folder)
    assert not why_not_whole(part)
    os.utime(folder / "model.safetensors")
    assert "changed just now" in why_not_whole(part)
    assert not why_not_whole(part, now=float("inf"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert why_not_whole(part, now=float("inf")) == "model.safetensors.index.json is missing"
    (folder / "config.json").unlink()
    assert why_not_whole(part, now=float("inf")) == "config.json is missing"


def test_a_save_of_a_trainer_that_was_cut_off_is_no_layout_without_states(inputs, tmp_path):
    out = trainer_output(inputs, tmp_path / "out")
    (out / "checkpoint-30" / STATE).unlink()
    folder = out / "checkpoint-30"
    assert "which comes last, is missing" in why_not_whole(Found(30, folder), now=float("inf"))
    assert not why_not_whole(Found(30, folder, GIVEN), now=float("inf"))
    alone = shutil.copytree(inputs / "30", tmp_path / "alone" / "checkpoint-30")
    (alone / "optimizer.pt").write_bytes(b"")
    assert "which comes last, is missing" in why_not_whole(Found(30, alone), now=float("inf"))


def test_an_adapter_of_another_name_than_default_lies_deeper_and_can_be_given(inputs, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(inputs / "20", out / "checkpoint-20" / "policy")
    write_state(out / "checkpoint-20", 20)
    with pytest.raises(SftscopeError, match=r"no weights; .* those in policy by --checkpoint STEP=.*/policy"):
        copied(inputs, out, tmp_path / "run")
    assert copied(inputs, None, tmp_path / "run", given={20: out / "checkpoint-20" / "policy"})[0] == [20]


def test_the_base_is_by_default_the_one_that_the_adapters_name(inputs, tmp_path, capsys):
    source = shutil.copytree(inputs / "20", tmp_path / "out" / "checkpoint-20")
    probes = inputs / "probes.jsonl"
    settings = {"model": {"path": "", "device": "cpu"}, "probes": {"n_words": 4}}
    attach(tmp_path / "out", tmp_path / "run", probes, Choices(settings=settings, extracting=False))
    assert f"base model: {inputs / 'toy'}, as checkpoint-20 names it" in capsys.readouterr().err
    config = json.loads((source / CONFIG).read_text()) | {"base_model_name_or_path": "/gone/models/toy"}
    (source / CONFIG).write_text(json.dumps(config))
    os.utime(source / CONFIG, (1e9, 1e9))
    with pytest.raises(SftscopeError, match="names the base /gone/models/toy, which is not there; give the base model"):
        attach(tmp_path / "out", tmp_path / "run2", probes, Choices(settings=settings))
    with pytest.raises(SftscopeError, match=r"holds a whole model, .* give the base model: --model BASE"):
        attach(None, tmp_path / "run3", probes, Choices(settings=settings, given={20: inputs / "20-merged"}))


def test_a_hub_name_is_asked_for_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "_answers", lambda path: bool(asked.append(path)))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(SftscopeError, match="no such file or folder, and as a hub name it cannot be fetched"):
        hub.refuse_unreachable("nobody/nothing")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: str(tmp_path))
    hub.refuse_unreachable("nobody/cached")
    assert hub.constants.HF_HUB_OFFLINE
    hub.refuse_unreachable("nobody/nothing")
    hub.refuse_unreachable(str(tmp_path))
    assert asked == ["nobody/nothing", "nobody/cached"]


def two_logs(inputs, out, change):
    trainer_output(inputs, out)
    rows = log(30)
    change(rows)
    write_state(out / "checkpoint-30", 30, log_history=rows)
    return out


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.append({"step": 20, "eval_loss": 0.2000003}),  # evaluated again on resuming
        lambda rows: rows.append({"step": 20, "eval_loss": 0.21}),  # the same, the first value is still there
        lambda rows: rows[3].update(eval_loss=0.2 * (1 + 5e-5)),  # another GPU
    ],
)
def test_a_step_that_was_evaluated_again_is_of_the_same_training(inputs, tmp_path, change):
    _, run = copied(inputs, two_logs(inputs, tmp_path / "out", change), tmp_path / "run")
    evals = {row["step"]: row["eval"] for row in run.read_log() if "eval" in row}
    assert evals == {10: 0.4, 20: 0.2, 30: pytest.approx(4 / 30)}  # the first value


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda rows: rows[2].update(loss=0.15 * (1 + 3e-4)), "loss 0.150045 and 0.15 at step 20"),
        (lambda rows: rows[0].update(learning_rate=2e-4), "learning_rate 0.0002 and 0.0001 at step 10"),
    ],
)
def test_logs_that_differ_are_of_two_trainings_and_the_digits_show_it(inputs, tmp_path, change, shown):
    with pytest.raises(SftscopeError, match=shown):
        copied(inputs, two_logs(inputs, tmp_path / "out", change), tmp_path / "run")


def test_a_run_takes_no_checkpoints_of_another_training_from_another_folder(inputs, tmp_path):
    one = trainer_output(inputs, tmp_path / "one")
    shutil.rmtree(one / "checkpoint-30")
    two = two_logs(inputs, tmp_path / "two", lambda rows: rows[0].update(loss=0.31))
    for step in (10, 20):
        shutil.rmtree(two / f"checkpoint-{step}")
    copied(inputs, one, tmp_path / "run")
    with pytest.raises(SftscopeError, match=r"not of the same training as checkpoint-30: .* at step 10"):
        copied(inputs, two, tmp_path / "run")


OLD_KEYS = (
    "peft_version",
    "target_parameters",
    "trainable_token_indices",
    "use_qalora",
    "exclude_modules",
    "lora_bias",
)


@pytest.mark.parametrize(
    "change",
    [
        dict.fromkeys(OLD_KEYS),
        {"peft_version": "0.1", "lora_dropout": 0.3, "inference_mode": False, "task_type": None, "revision": "main"},
        {"fan_in_fan_out": True, "target_modules": r".*\.(q|v)_proj", "modules_to_save": [], "rank_pattern": None},
    ],
)
def test_configs_that_compute_the_same_are_of_one_training(inputs, tmp_path, change):
    folder = shutil.copytree(inputs / "20", tmp_path / "adapter")
    config = json.loads((folder / CONFIG).read_text()) | change
    (folder / CONFIG).write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    assert read_adapter(folder).kind == read_adapter(inputs / "20").kind
    (folder / CONFIG).write_text(json.dumps(config | {"lora_alpha": 99}))
    assert read_adapter(folder).kind != read_adapter(inputs / "20").kind


def rename(file, rule):
    save_file({rule(key): value for key, value in load_file(file).items()}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", ["20", "20-merged"])
@pytest.mark.parametrize(
    "rule",
    [
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: key.replace("layers.0.", "layers.0._orig_mod."),
        lambda key: key.replace("base_model.model.", "base_model.model.module."),
    ],
)
def test_prefixes_of_wrappers_are_read_over(inputs, tmp_path, kind, rule):
    folder = shutil.copytree(inputs / kind, tmp_path / kind)
    rename(next(folder.glob("*model.safetensors")), rule)
    ids = torch.tensor([[3, 5, 8, 13, 21]])
    slot = AdapterSlot(base(inputs))
    slot.load(folder)
    with quiet(), torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(inputs / "20-merged").eval()(ids).logits
        torch.testing.assert_close(slot.model(ids).logits, expected, atol=1e-4, rtol=0)


def test_a_prefix_is_said_and_two_of_one_name_are_refused(inputs, tmp_path, capsys):
    folder = shutil.copytree(inputs / "20", tmp_path / "out" / "checkpoint-20")
    rename(folder / ADAPTER, lambda key: f"_orig_mod.{key}")
    os.utime(folder / ADAPTER, (1e9, 1e9))
    copied(inputs, tmp_path / "out", tmp_path / "run")
    assert "named with '_orig_mod.', the prefix of a wrapper (in 1 checkpoints)" in capsys.readouterr().err
    save_file({**load_file(folder / ADAPTER), **load_file(inputs / "20" / ADAPTER)}, folder / ADAPTER)
    with pytest.raises(SftscopeError, match="with and without the prefix of a wrapper"):
        read_adapter(folder)


def test_watching_says_what_is_left_out_when_it_ends(inputs, tmp_path, capsys):
    from sftscope.attach.first_checkpoint import Watching

    out = trainer_output(inputs, tmp_path / "out", **BEST)
    shutil.rmtree(out / "checkpoint-20")
    put_final(inputs, out, 20, **BEST)
    with suppress(KeyboardInterrupt):
        copied(inputs, out, tmp_path / "run", watching=Watching(poll=0.01, idle=0.02))
    assert f"{out}: left out: its {STATE} is of step 30, but its weights are not those" in capsys.readouterr().err
