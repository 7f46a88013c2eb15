"""Checkpoints that others wrote: attached as they are, or refused in one line; never a wrong number."""

import json
import os
import shutil
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, TrainerCallback

from attached_runs import attached
from foreign_training import WORDS, losses_in, make_trainer, quiet, train, write_inputs
from run_results import assert_same_results
from sftscope.analysis.rows.known_rows import CHANGED, NOT_HERE, rows_or_why
from sftscope.analysis.run.read_run import load_history
from sftscope.attach import copies
from sftscope.attach.copies import copy_checkpoint
from sftscope.attach.first_checkpoint import Watching
from sftscope.attach.foreign_checkpoints import why_not_whole
from sftscope.attach.layouts import find_checkpoints
from sftscope.attach.trainer_logs import log_rows
from sftscope.distributed import submit as cluster
from sftscope.extraction import extract as extraction
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import load_settings, resolve_paths
from sftscope.runs import pipeline
from sftscope.runs.begin import begin
from sftscope.scoring.influential_words import InfluentialWords
from sftscope.scoring.scorer import Scorer
from sftscope.store import RunFolder
from sftscope.store.checkpoints import Checkpoint
from sftscope.verification.repair import repair
from sftscope.verification.verify import verify

ADAPTER, STATE, CONFIG = "adapter_model.safetensors", "trainer_state.json", "adapter_config.json"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """`toy`, `probes.jsonl`, `lora` and `full`, the outputs of two trainings."""
    folder = tmp_path_factory.mktemp("attach")
    write_inputs(folder)
    for adapter, out in ((True, "lora"), (False, "full")):
        train(make_trainer(folder, adapter=adapter, out=out, eval_on_start=True))
    return folder


@pytest.fixture
def output(inputs, tmp_path):
    """A copy of the training with adapters that may be spoilt; long finished."""
    copy = shutil.copytree(inputs / "lora", tmp_path / "out")
    for file in copy.rglob("*"):
        os.utime(file, (1e9, 1e9))
    return copy


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    return attached(inputs, inputs / "lora", tmp_path_factory.mktemp("run") / "run")


def test_words_by_influence_are_measured_on_the_base_and_the_last_checkpoint_once(inputs, tmp_path, monkeypatch):
    settings = {
        "model": {"path": str(inputs / "toy"), "device": "cpu"},
        "probes": {"n_words": WORDS, "choice": "influence"},
    }
    copied = attached(inputs, inputs / "lora", tmp_path / "run", settings=settings, extracting=False)
    probes, content = copied.read_probes(), copied.probes_file.read_bytes()
    assert {len(probe.words) for probe in probes} == {WORDS}
    for probe in probes:
        assert [each.weights for each in probe.influence.moved] == ["base", "checkpoint-6"]
    monkeypatch.setattr(InfluentialWords, "__call__", None)  # would raise where it is asked again
    attached(inputs, inputs / "lora", tmp_path / "run", settings=settings, extracting=False)
    assert copied.probes_file.read_bytes() == content


def test_every_checkpoint_and_the_base_become_steps_with_the_losses_that_were_logged(inputs, run):
    history = load_history(run.path)
    assert history.steps.tolist() == [0, 2, 4, 6]
    assert not history.left_out
    state = json.loads((inputs / "lora" / "checkpoint-6" / STATE).read_text())
    evals = {row["step"]: row["eval_loss"] for row in state["log_history"] if "eval_loss" in row}
    losses = {row["step"]: row["loss"] for row in state["log_history"] if "loss" in row}
    assert history.losses["eval"].tolist() == [evals[step] for step in (0, 2, 4, 6)]
    assert np.isnan(history.losses["train"][0])
    assert history.losses["train"][1:].tolist() == [losses[step] for step in (2, 4, 6)]
    content = run.read_run()
    assert "training" not in content["settings"]  # nothing is known of it, so nothing is said
    assert content["attached"]["max_steps"] == 6


def the_first_probe(inputs, folder):
    """The base model as transformers loads it, the mean of its embeddings, and the first probe as tokens."""
    from sftscope.llm.loading import load_tokenizer
    from sftscope.scoring.masking import mask_probe

    base = AutoModelForCausalLM.from_pretrained(inputs / "toy").eval()
    baseline = base.get_input_embeddings().weight.detach().mean(dim=0)
    prompt = mask_probe(folder.read_probes()[0], load_tokenizer(str(inputs / "toy")), "chat", "first")
    return base, baseline, prompt


def log_odds(model, prompt, **given):
    """v by a plain forward."""
    with torch.no_grad():
        logits = model(**given).logits[0, -1].double()
    rest = torch.cat([logits[: prompt.target], logits[prompt.target + 1 :]])
    return float(logits[prompt.target] - torch.logsumexp(rest, 0))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_scores_are_those_of_a_plain_forward_of_the_checkpoint(inputs, run, tmp_path, kind):
    folder = run if kind == "lora" else attached(inputs, inputs / "full", tmp_path / "run")
    base, baseline, prompt = the_first_probe(inputs, folder)
    for step in (0, 2, 6):
        checkpoint = inputs / kind / f"checkpoint-{step}"
        with quiet():
            if step == 0:
                model = base
            elif kind == "lora":
                fresh = AutoModelForCausalLM.from_pretrained(inputs / "toy")
                model = PeftModel.from_pretrained(fresh, checkpoint).eval()
            else:
                model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
        expected = []
        for subset in range(1 << WORDS):
            own = model.get_input_embeddings()(torch.tensor([prompt.ids])).detach().clone()
            for place, word in enumerate(prompt.owner):
                if word >= 0 and not subset >> word & 1:
                    own[0, place] = baseline
            expected.append(log_odds(model, prompt, inputs_embeds=own))
        np.testing.assert_allclose(folder.read_step(step).scores[: 1 << WORDS], expected, atol=1e-4)


def test_the_same_adapters_by_our_own_path_give_the_same_interactions(inputs, run, tmp_path):
    from run_configs import write_config

    config = write_config(tmp_path)
    text = (
        config.read_text().replace('"toy"', f'"{inputs / "toy"}"').replace('"probes.jsonl"', f'"{inputs}/probes.jsonl"')
    )
    config.write_text(text.replace("check_states = 4", ""))
    settings_ = load_settings(config)
    own = RunFolder(tmp_path / "own")
    begin(settings_, resolve_paths(settings_, tmp_path), own, config)
    shutil.copytree(inputs / "lora", own.checkpoints)
    pipeline.extract(own.path)
    assert own.steps() == run.steps()
    for step in own.steps():
        ours, theirs = own.read_step(step), run.read_step(step)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
        np.testing.assert_allclose(ours.effects.and_effects, theirs.effects.and_effects, atol=1e-5)
        np.testing.assert_allclose(ours.effects.or_effects, theirs.effects.or_effects, atol=1e-5)


def test_an_attached_run_verifies_and_a_changed_setting_is_found(run, tmp_path):
    assert not verify(run.path).damaged
    shutil.copytree(run.path, tmp_path / "changed")
    file = tmp_path / "changed" / "run.toml"
    text = file.read_text()
    assert f"n_words = {WORDS}" in text
    file.write_text(text.replace(f"n_words = {WORDS}", f"n_words = {WORDS + 1}"))
    assert verify(tmp_path / "changed").damaged == ("run.toml",)


def test_a_step_of_an_attached_run_is_repaired_from_its_scores(run, tmp_path):
    folder = RunFolder(shutil.copytree(run.path, tmp_path / "copy"))
    good = folder.step_file(4).read_bytes()
    folder.step_file(4).write_bytes(good[:60] + bytes([good[60] ^ 4]) + good[61:])
    assert verify(folder.path).repairable == (4,)
    assert not repair(folder.path).damaged
    assert folder.step_file(4).read_bytes() == good


def test_attached_again_nothing_is_made_again_and_the_source_is_never_written_to(inputs, run):
    def seen(folder):
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before, source = seen(run.steps_folder), seen(inputs / "lora")
    attached(inputs, inputs / "lora", run.path)
    pipeline.extract(run.path)
    assert seen(run.steps_folder) == before
    assert seen(inputs / "lora") == source


@pytest.mark.campaign
def test_copies_alone_are_extracted_by_workers_to_the_same_results(inputs, run, tmp_path):
    folder = attached(inputs, inputs / "lora", tmp_path / "run", extracting=False)
    assert folder.steps() == ()
    cluster.run_here(2, cluster.Worker(folder.path, 1, 1, block=1))
    assert_same_results(folder, run)


def test_estimates_from_a_sample_of_the_masked_states_are_attached_too(inputs, tmp_path):
    settings = {
        "model": {"path": str(inputs / "toy"), "device": "cpu"},
        "probes": {"n_words": WORDS},
        "extraction": {"masked_states": 12, "replicates": 2},
    }
    folder = attached(inputs, inputs / "lora", tmp_path / "run", settings=settings)
    history = load_history(folder.path)
    assert history.steps.tolist() == [0, 2, 4, 6]
    assert all(part.is_estimated for part in history.probes)


def test_zeta_can_be_a_share_of_the_range_of_each_step(inputs, tmp_path):
    settings = {
        "model": {"path": str(inputs / "toy"), "device": "cpu"},
        "probes": {"n_words": WORDS},
        "extraction": {"zeta_of": "range"},
    }
    folder = attached(inputs, inputs / "lora", tmp_path / "run", settings=settings)
    assert {*folder.read_step(4).provenance["zeta_source"]} == {"range at this step"}
    assert not verify(folder.path).damaged


def test_variables_of_another_kind_are_refused_in_one_line(inputs, tmp_path):
    settings = {"model": {"path": str(inputs / "toy")}, "probes": {"n_words": WORDS, "variables": "letters"}}
    with pytest.raises(SftscopeError, match=r"expected one of words, .*tokens, got .letters"):
        attached(inputs, inputs / "lora", tmp_path / "run", settings=settings)
    assert not (tmp_path / "run").exists()


def test_a_run_lives_on_when_its_source_is_gone(inputs, output, tmp_path):
    folder = attached(inputs, output, tmp_path / "run")
    shutil.rmtree(output)
    folder.step_file(4).unlink()
    pipeline.extract(folder.path)
    assert folder.steps() == (0, 2, 4, 6)


def test_copies_of_whole_models_are_dropped_once_their_results_are_there(inputs, tmp_path):
    folder = attached(inputs, inputs / "full", tmp_path / "run")
    assert folder.steps() == (0, 2, 4, 6)
    assert not list(folder.checkpoints.rglob("model*.safetensors"))
    before = folder.step_file(2).read_bytes()
    folder.step_file(2).unlink()
    attached(inputs, inputs / "full", folder.path, keep=True)  # copied and extracted again
    assert folder.step_file(2).read_bytes() == before
    assert [path.parent.name for path in folder.checkpoints.rglob("model*.safetensors")] == ["checkpoint-2"]


def test_one_checkpoint_and_a_final_model_in_the_folder_itself_are_attached(inputs, output, tmp_path):
    assert attached(inputs, output / "checkpoint-4", tmp_path / "one").steps() == (0, 4)
    for name in (ADAPTER, CONFIG, STATE):
        shutil.copy(output / "checkpoint-6" / name, output / name)
    shutil.rmtree(output / "checkpoint-6")
    assert attached(inputs, output, tmp_path / "final").steps() == (0, 2, 4, 6)


def test_llama_factorys_log_gives_the_losses_that_the_state_lacks(inputs, output):
    rows = [
        {"current_steps": 2, "loss": 99.0, "lr": 1.0, "total_steps": 6},
        {"current_steps": 6, "total_steps": 6, "eval_loss": 1.25},
        {"current_steps": 7, "loss": 0.5, "lr": 0.125},
    ]
    (output / "trainer_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"current_st')
    for step in (2, 4, 6):
        path = output / f"checkpoint-{step}" / STATE
        state = json.loads(path.read_text())
        state["log_history"] = [row for row in state["log_history"] if row["step"] <= 2]
        path.write_text(json.dumps(state))
    found = {(row["step"], row["kind"]): row for row in log_rows(find_checkpoints(output), output)}
    assert found[2, "batch"]["train"] != 99.0  # the trainer's own state counts first
    assert found[6, "checkpoint"]["eval"] == 1.25
    assert found[7, "batch"] == {"step": 7, "kind": "batch", "train": 0.5, "learning_rate": 0.125}


def spoil_config(change):
    def spoil(checkpoint):
        path = checkpoint / CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return spoil


def make_shards(checkpoint):
    (checkpoint / ADAPTER).unlink()
    (checkpoint / CONFIG).unlink()
    (checkpoint / "pytorch_model_fsdp_0").mkdir()


def make_zero3_stubs(checkpoint):
    state = load_file(checkpoint / ADAPTER)
    save_file({name: torch.zeros(0) for name in state}, checkpoint / ADAPTER)


def make_pickle(checkpoint):
    (checkpoint / ADAPTER).unlink()
    (checkpoint / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")


def widen(checkpoint):
    state = load_file(checkpoint / ADAPTER)
    name = next(name for name in sorted(state) if "lora_A" in name)
    save_file({**state, name: torch.zeros(4, 33)}, checkpoint / ADAPTER)


def remove_weights(checkpoint):
    (checkpoint / ADAPTER).unlink()
    (checkpoint / CONFIG).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (make_shards, r"checkpoint-2: holds shards of FSDP or ZeRO \(pytorch_model_fsdp_0\).* consolidate first"),
        (make_zero3_stubs, r"has no values, as ZeRO-3 leaves it; consolidate first"),
        (
            make_pickle,
            r"checkpoint-2: its weights are pickled \(adapter_model.bin\).* never read; save them as safetens",
        ),
        (remove_weights, r"checkpoint-2: no weights; expected adapter_model.safetensors or model.safetensors"),
        (spoil_config({"init_lora_weights": "pissa_niter_4"}), r"begun by pissa_niter_4, which changes the base model"),
        (spoil_config({"init_lora_weights": "olora"}), r"begun by olora, .* convert it to plain LoRA"),
        (spoil_config({"init_lora_weights": "loftq"}), r"begun by loftq, which changes the base model"),
        (spoil_config({"corda_config": {"cache_file": "x"}}), r"which changes the base model under it; convert"),
        (spoil_config({"peft_type": "IA3"}), r"'peft_type': expected LORA, got 'IA3'"),
        (
            spoil_config({"base_model_name_or_path": "other/toy-2"}),
            r"of the base model other/toy-2, --model is .*/toy;",
        ),
        (spoil_config({"base_model_name_or_path": "x/\x1b[31m"}), r"of the base model x/␛\[31m, --model"),
        (widen, r"does not fit the base model: .* has the shape \(4, 33\), expected \(4, 64\)"),
    ],
)
def test_what_can_never_be_read_is_one_line(inputs, output, tmp_path, spoil, message):
    spoil(output / "checkpoint-2")
    for file in (output / "checkpoint-2").iterdir():
        os.utime(file, (1e9, 1e9))
    with pytest.raises(SftscopeError, match=message) as caught:
        attached(inputs, output, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert 2 not in RunFolder(tmp_path / "run").steps()


def test_an_adapter_that_names_its_base_otherwise_is_taken_where_the_weights_are_the_same(inputs, output, tmp_path):
    other = shutil.copytree(inputs / "toy", tmp_path / "renamed")
    for step in (2, 4, 6):
        spoil_config({"base_model_name_or_path": str(other)})(output / f"checkpoint-{step}")
    assert attached(inputs, output, tmp_path / "run").steps() == (0, 2, 4, 6)
    for step in (2, 4, 6):
        spoil_config({"base_model_name_or_path": "gone/elsewhere"})(output / f"checkpoint-{step}")
    with pytest.raises(SftscopeError, match="give that base, or --same-base"):
        attached(inputs, output, tmp_path / "again")
    assert attached(inputs, output, tmp_path / "again", same_base=True).steps() == (0, 2, 4, 6)


def test_checkpoints_of_two_trainings_in_one_folder_are_refused(inputs, output, tmp_path):
    path = output / "checkpoint-4" / STATE
    state = json.loads(path.read_text())
    next(row for row in state["log_history"] if "loss" in row)["loss"] += 0.5
    path.write_text(json.dumps(state))
    with pytest.raises(SftscopeError, match=r"checkpoint-4: not of the same training as checkpoint-2: .* at step 1"):
        attached(inputs, output, tmp_path / "run")
    shutil.rmtree(output / "checkpoint-4")
    shutil.copytree(inputs / "full" / "checkpoint-4", output / "checkpoint-4")
    with pytest.raises(SftscopeError, match=r"not of the same training|unlike"):
        attached(inputs, output, tmp_path / "run")


def test_a_checkpoint_that_was_replaced_since_is_refused_and_its_results_stay(inputs, output, tmp_path):
    folder = attached(inputs, output, tmp_path / "run")
    before = folder.step_file(4).read_bytes()
    weights = output / "checkpoint-4" / ADAPTER
    weights.write_bytes(weights.read_bytes())  # written again, equal
    os.utime(weights, (2e9 - 1e9 + 1, 1e9))
    attached(inputs, output, folder.path)
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    os.utime(weights, (1e9, 1e9))
    with pytest.raises(SftscopeError, match=r"checkpoint-4: was replaced since .* use another --out folder"):
        attached(inputs, output, folder.path)
    assert folder.step_file(4).read_bytes() == before


def test_a_run_is_not_continued_with_other_probes_or_another_base(inputs, output, tmp_path):
    attached(inputs, output, tmp_path / "run")
    chosen = {"model": {"path": str(inputs / "toy"), "device": "cpu"}, "probes": {"n_words": 3}}
    with pytest.raises(SftscopeError, match=r"n_words is 3, but .* was begun with 4"):
        attached(inputs, output, tmp_path / "run", settings=chosen)


def boundaries(folder):
    """Every state of `checkpoint-4` that a save passes through: files in the order of saving, the last one cut."""
    order = [ADAPTER, CONFIG, "tokenizer.json", "training_args.bin", "optimizer.pt", STATE]
    for count in range(len(order)):
        whole, torn = order[:count], order[count]
        content = (folder / torn).read_bytes().rstrip()  # JSON without its last line break is whole
        for cut in {0, 1, 7, 8, 9, len(content) // 2, len(content) - 1}:
            yield whole, torn, content[:cut]


def test_a_checkpoint_that_is_half_written_at_any_boundary_is_never_taken_for_whole(inputs, tmp_path):
    source = inputs / "lora" / "checkpoint-4"
    states = 0
    for number, (whole, torn, content) in enumerate(boundaries(source)):
        folder = tmp_path / str(number) / "checkpoint-4"
        folder.mkdir(parents=True)
        for name in whole:
            shutil.copy(source / name, folder / name)
        (folder / torn).write_bytes(content)
        assert why_not_whole(Checkpoint(4, folder))
        assert copy_checkpoint(Checkpoint(4, folder), tmp_path / "copies")
        assert not list((tmp_path / "copies").glob("*")) if (tmp_path / "copies").exists() else True
        states += 1
    assert states >= 36


def test_a_half_written_checkpoint_is_left_out_and_said_or_an_error_where_it_was_asked_for(
    inputs, output, tmp_path, capsys
):
    (output / "checkpoint-6" / STATE).write_text('{"global_step": 6')
    folder = attached(inputs, output, tmp_path / "run")
    assert folder.steps() == (0, 2, 4)
    assert "checkpoint-6: left out: its trainer_state.json is not complete yet" in capsys.readouterr().err
    with pytest.raises(SftscopeError, match="checkpoint-6: left out"):
        attached(inputs, output, tmp_path / "asked", steps=frozenset([2, 6]))
    with pytest.raises(SftscopeError, match="--steps asks for none of its checkpoints; there are 2, 4, 6"):
        attached(inputs, output, tmp_path / "none of them", steps=frozenset([0, 5]))
    with pytest.raises(SftscopeError, match="no checkpoint of step 5; there are 2, 4, 6"):
        attached(inputs, output, tmp_path / "unknown", steps=frozenset([2, 5]))
    with pytest.raises(SftscopeError, match=r"no complete checkpoint \(step 6: its trainer_state.json is not"):
        attached(inputs, output, tmp_path / "none", steps=frozenset([6]))
    with pytest.raises(SftscopeError, match="no such folder"):
        attached(inputs, tmp_path / "nowhere", tmp_path / "none")


def test_while_it_is_replaced_in_place_a_checkpoint_is_not_taken(inputs, output, tmp_path):
    weights = output / "checkpoint-4" / ADAPTER
    save_file(
        {name: value + 1 for name, value in load_file(weights).items()}, weights
    )  # its state still is the old one
    assert "may be being replaced" in why_not_whole(Checkpoint(4, weights.parent))
    assert not why_not_whole(Checkpoint(4, weights.parent), now=time.time() + 600)


@pytest.mark.parametrize("change", ["replaced", "deleted", "deleted first"])
def test_a_source_that_changes_while_it_is_copied_is_never_mixed(output, tmp_path, monkeypatch, change):
    source, copied = output / "checkpoint-4", copies.copy_plain

    def meddle(file, target, *rest, **options):
        if change == "deleted first":
            shutil.rmtree(source, ignore_errors=True)
        copied(file, target, *rest, **options)
        if change == "replaced":
            shutil.copy(output / "checkpoint-2" / ADAPTER, source / ADAPTER)
        if change == "deleted":
            shutil.rmtree(source, ignore_errors=True)

    monkeypatch.setattr(copies, "copy_plain", meddle)
    assert copy_checkpoint(Checkpoint(4, source), tmp_path / "copies")
    assert not list((tmp_path / "copies").iterdir())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_a_checkpoints_files_hold_there_is_a_reason_or_one_line(inputs, tmp_path_factory, data):
    source = inputs / "lora" / "checkpoint-2"
    folder = tmp_path_factory.mktemp("mutant") / "checkpoint-2"
    shutil.copytree(source, folder)
    name = data.draw(st.sampled_from([ADAPTER, CONFIG, STATE]))
    content = bytearray((folder / name).read_bytes())
    start = data.draw(st.integers(0, min(len(content) - 1, 2000)))
    content[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    (folder / name).write_bytes(content)
    os.utime(folder / STATE)
    reason = ""
    with suppress(SftscopeError):  # anything else is a mistake of ours
        reason = copy_checkpoint(Checkpoint(2, folder), folder.parent / "copies")
    if not reason and (folder.parent / "copies" / "checkpoint-2").exists():
        assert why_not_whole(Checkpoint(2, folder.parent / "copies" / "checkpoint-2"), now=float("inf")) == ""


def test_watching_follows_a_training_to_its_last_step_whatever_it_rotates(inputs, tmp_path):
    """The checkpoints appear one by one, file by file, and the one before is deleted."""
    source, live = inputs / "lora", tmp_path / "live"
    order = [ADAPTER, CONFIG, "tokenizer.json", "tokenizer_config.json", "optimizer.pt", STATE]
    folder = RunFolder(tmp_path / "run")
    failures = []

    def training():
        try:
            for step in (2, 4, 6):
                target = live / f"checkpoint-{step}"
                target.mkdir(parents=True)
                for name in order:
                    content = (source / f"checkpoint-{step}" / name).read_bytes()
                    (target / name).write_bytes(content[: len(content) // 2])
                    time.sleep(0.02)
                    (target / name).write_bytes(content)
                deadline = time.monotonic() + 60
                while not (folder.checkpoints / target.name).is_dir():
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                shutil.rmtree(target)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=training)
    thread.start()
    attached(inputs, live, folder.path, watching=Watching(poll=0.05))
    thread.join()
    assert not failures
    assert folder.steps() == (0, 2, 4, 6)
    assert load_history(folder.path).losses["eval"].size == 4


def test_what_axolotl_leaves_beside_the_checkpoints_changes_nothing(inputs, run, output, tmp_path):
    """Axolotl 0.19 saves the last adapter, tokenizer and the base's config.json there too, and may merge them."""
    for file in (output / "checkpoint-6").iterdir():
        if file.name in (ADAPTER, CONFIG, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(file, output / file.name)
    shutil.copy(inputs / "toy" / "config.json", output / "config.json")
    shutil.copytree(inputs / "toy", output / "merged")
    (output / "README.md").write_text("---\nlibrary_name: peft\n---\n")
    (output / "debug.log").write_text("[INFO] axolotl")
    folder = attached(inputs, output, tmp_path / "run")
    assert folder.steps() == run.steps()
    for step in run.steps():
        assert folder.read_step(step).scores.tolist() == run.read_step(step).scores.tolist()


def test_a_device_that_fails_while_attaching_is_one_line(inputs, output, tmp_path, monkeypatch):
    def fails(self, prompt, *watched):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score", fails)
        with pytest.raises(SftscopeError, match=r"extraction: out of memory; .* the same command resumes"):
            attached(inputs, output, tmp_path / "run")
    assert attached(inputs, output, tmp_path / "run").steps() == (0, 2, 4, 6)


def test_watching_ends_where_no_checkpoint_comes(inputs, output, tmp_path, capsys):
    """A training that was killed says nothing; what is there was extracted, and the same command goes on later."""
    shutil.move(output / "checkpoint-6", tmp_path / "later")
    folder = attached(inputs, output, tmp_path / "run", watching=Watching(poll=0.05, idle=0.2))
    assert folder.steps() == (0, 2, 4)
    assert "no longer watched; the same command resumes" in capsys.readouterr().err
    shutil.move(tmp_path / "later", output / "checkpoint-6")
    assert attached(inputs, output, folder.path, watching=Watching(poll=0.05)).steps() == (0, 2, 4, 6)
    with pytest.raises(SftscopeError, match="no such folder"):
        attached(inputs, tmp_path / "none", tmp_path / "other", watching=Watching(poll=0.05, idle=0.2))


class Stops(TrainerCallback):
    """An early stop, as transformers' own callback makes it, at the evaluation before a save."""

    def on_evaluate(self, args, state, control, **_):
        control.should_training_stop = state.global_step >= 4
        return control


def test_watching_ends_with_a_training_that_was_stopped_early(inputs, tmp_path):
    trainer = make_trainer(inputs, out=str(tmp_path / "out"))
    trainer.add_callback(Stops())
    train(trainer)
    folder = attached(inputs, tmp_path / "out", tmp_path / "run", watching=Watching(poll=0.05))
    assert folder.steps() == (0, 2, 4)
    assert folder.read_run()["attached"]["max_steps"] == 6


def several_eval_sets(inputs, out, names=("near", "far")):
    trainer = make_trainer(inputs, out=str(out), max_steps=2)
    rows = trainer.eval_dataset
    trainer.eval_dataset = dict(zip(names, (rows[:1], rows[1:]), strict=True))
    train(trainer)
    name = f"eval_{names[1]}_loss"
    return {row["step"]: row for row in trainer.state.log_history if name in row}[2][name]


def test_of_several_eval_sets_one_is_the_held_out_one(inputs, tmp_path, capsys):
    """The one that was asked for, or the first, which is said; it stays the one of the run."""
    far = several_eval_sets(inputs, tmp_path / "out")
    first = load_history(attached(inputs, tmp_path / "out", tmp_path / "first").path)
    said = capsys.readouterr().err
    assert "evaluated on near, far; the held-out loss is that of near: choose by --eval-set" in said
    chosen = attached(inputs, tmp_path / "out", tmp_path / "far", eval_set="far")
    assert load_history(chosen.path).losses["eval"][-1] == far != first.losses["eval"][-1]
    assert "evaluated on" not in capsys.readouterr().err
    with pytest.raises(SftscopeError, match=r"--eval-set nor: the training evaluated on near, far"):
        attached(inputs, tmp_path / "out", tmp_path / "none", eval_set="nor")
    with pytest.raises(SftscopeError, match=r"was begun with --eval-set far; use the same, or another --out"):
        attached(inputs, tmp_path / "out", chosen.path)
    assert not verify(chosen.path).damaged


def test_the_rows_of_an_attached_run_are_known_as_long_as_they_are_the_same(inputs, tmp_path):
    rows = tmp_path / "train.jsonl"
    rows.write_text(json.dumps({"instruction": "how is it ?", "output": "good"}) + "\n")
    run = attached(inputs, inputs / "lora", tmp_path / "run", train=str(rows), extracting=False).path
    found = rows_or_why(run)
    assert not isinstance(found, str)
    assert [row.response for row in found.rows] == ["good"]
    rows.write_text(rows.read_text() * 2)
    assert rows_or_why(run) == CHANGED
    rows.unlink()
    assert rows_or_why(run) == NOT_HERE


def test_the_training_rows_are_not_taken_for_held_out_ones(inputs, tmp_path, capsys):
    several_eval_sets(inputs, tmp_path / "out", names=("train", "dev"))
    attached(inputs, tmp_path / "out", tmp_path / "run")
    assert "evaluated on train, dev; the held-out loss is that of dev" in capsys.readouterr().err


def test_an_eval_set_is_not_asked_of_a_training_that_had_one_without_a_name(inputs, output, tmp_path):
    with pytest.raises(SftscopeError, match="--eval-set far: the training evaluated on one set without a name"):
        attached(inputs, output, tmp_path / "run", eval_set="far")


def test_a_full_disk_is_said_before_anything_is_copied(inputs, output, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "_SPARE", 2**60)
    with pytest.raises(SftscopeError, match=r"copies of 3 checkpoints take .* GB are free; make room"):
        attached(inputs, output, tmp_path / "run")


def test_the_template_of_the_training_is_that_of_the_probes(inputs, output, tmp_path):
    template = "{% for m in messages %}{{ m['role'] }} , {{ m['content'] }} ! {% endfor %}"
    for step in (2, 4, 6):
        (output / f"checkpoint-{step}" / "chat_template.jinja").write_text(template)
    folder = attached(inputs, output, tmp_path / "run")
    assert (folder.path / "chat_template.jinja").read_text() == template
    other = attached(inputs, inputs / "lora", tmp_path / "other")
    assert folder.read_run()["hashes"]["template"] != other.read_run()["hashes"]["template"]
    assert not np.allclose(folder.read_step(0).scores, other.read_step(0).scores)


VARIANTS = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
    "gaussian": {"init_lora_weights": "gaussian"},
    "head": {"modules_to_save": ["lm_head"]},
    "embeddings": {"modules_to_save": ["embed_tokens"]},
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_every_kind_of_lora_is_scored_as_peft_runs_it(inputs, tmp_path, kind):
    """An oracle without our code: PEFT loads the adapter, transformers runs it."""
    checkpoint = tmp_path / "out" / "checkpoint-2"
    torch.manual_seed(3)
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(inputs / "toy")
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **VARIANTS[kind])
        model = get_peft_model(base, config)
        for name, value in model.named_parameters():
            if value.requires_grad and "magnitude" not in name:
                value.data += 0.1 * torch.randn_like(value)
        model.save_pretrained(checkpoint)
    shutil.copy(inputs / "lora" / "checkpoint-2" / STATE, checkpoint / STATE)
    folder = attached(inputs, tmp_path / "out", tmp_path / "run")
    _, _, prompt = the_first_probe(inputs, folder)
    with quiet():
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(inputs / "toy"), checkpoint).eval()
    expected = log_odds(loaded, prompt, input_ids=torch.tensor([prompt.ids]))
    record = folder.read_step(2)
    assert record.scores[record.offsets[1] - 1] == pytest.approx(expected, abs=1e-4)  # all words present
    assert folder.read_step(0).scores[record.offsets[1] - 1] != pytest.approx(expected, abs=1e-3)


def test_losses_are_nan_where_none_was_logged(inputs, output, tmp_path):
    for step in (2, 4, 6):
        path = output / f"checkpoint-{step}" / STATE
        state = json.loads(path.read_text())
        state["log_history"] = [row for row in state["log_history"] if row["step"] % 4 == 0]
        path.write_text(json.dumps(state))
    history = load_history(attached(inputs, output, tmp_path / "run").path)
    assert np.isfinite(history.losses["train"]).tolist() == [False, False, True, False]


def test_the_trainer_and_the_run_agree_on_every_logged_loss(inputs, run):
    trainer = make_trainer(inputs, out="again", eval_on_start=True)
    train(trainer)
    rows = {(row["step"], row["kind"]): row for row in run.read_log()}
    for step, name, value in losses_in(trainer):
        kind, key = {"loss": ("batch", "train"), "eval_loss": ("checkpoint", "eval")}.get(name, ("batch", "grad_norm"))
        assert rows[step, kind][key] == value


def test_a_following_extraction_tells_of_steps_that_were_there_before(run):
    told = []
    settings_, folder, identity = pipeline.open_run(run.path)
    extraction.follow(settings_, folder, identity=identity, more=lambda: False, made=told.append)
    assert told == [0, 2, 4, 6]
