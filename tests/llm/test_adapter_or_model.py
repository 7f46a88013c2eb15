"""Folders that hold an adapter and a model: never both in one score, never the one for the other."""

import json
import os
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from attached_runs import attached
from foreign_training import WORDS, make_trainer, quiet, train, write_inputs
from run_configs import write_config
from sftscope.bench import benchmark
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.settings import ModelSettings
from sftscope.llm import loading
from sftscope.llm.loading import load_llm, load_tokenizer
from sftscope.llm.weights.adapters import AdapterSlot
from sftscope.llm.weights.untrusted_weights import check_weights
from sftscope.monitor import SftscopeCallback
from sftscope.preflight import inspection
from sftscope.runs import pipeline
from toy_llm import toy_tokenizer

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
BESIDE = (
    r"holds an adapter \(adapter_config.json and adapter_model.safetensors\) next to the model \(model.safetensors\)"
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """`toy`; `both`, the same model with a trained adapter beside it; `adapter`, that one alone; `lora`, a training."""
    folder = tmp_path_factory.mktemp("adapters")
    write_inputs(folder)
    with quiet():
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(folder / "toy"),
            LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        torch.manual_seed(1)
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.data += torch.randn_like(value)
        model.save_pretrained(folder / "adapter")
    toy_tokenizer().save_pretrained(folder / "adapter")
    shutil.copytree(folder / "toy", folder / "both")
    for name in ADAPTER:
        shutil.copy(folder / "adapter" / name, folder / "both" / name)
    train(make_trainer(folder, out="lora", max_steps=2))
    return folder


def config_with(inputs, tmp_path, model):
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace('"toy"', json.dumps(str(inputs / model))))
    return config


WAYS = {
    "attach": lambda inputs, tmp_path, model: attached(
        inputs,
        inputs / "lora",
        tmp_path / "run",
        settings={"model": {"path": str(inputs / model)}, "probes": {"n_words": WORDS}},
        same_base=True,
    ),
    "run": lambda inputs, tmp_path, model: pipeline.train(config_with(inputs, tmp_path, model), tmp_path / "run"),
    "inspect": lambda inputs, tmp_path, model: inspection.inspect(config_with(inputs, tmp_path, model)),
    "bench": lambda inputs, tmp_path, model: benchmark.bench(str(inputs / model)),
    "callback": lambda inputs, tmp_path, model: SftscopeCallback(
        make_trainer(inputs, out=str(tmp_path / "out")),
        inputs / "probes.jsonl",
        tmp_path / "run",
        model=str(inputs / model),
        words=WORDS,
    ),
    "model": lambda inputs, tmp_path, model: load_llm(ModelSettings(path=str(inputs / model), device="cpu")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("model", "message"), [("both", BESIDE), ("adapter", "holds an adapter only .* base model, ")])
def test_a_base_model_with_an_adapter_is_refused_whichever_way_it_is_given(inputs, tmp_path, way, model, message):
    with pytest.raises(SftscopeError, match=message) as caught:
        WAYS[way](inputs, tmp_path, model)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_transformers_would_have_scored_another_model(inputs):
    """What the refusal is for: it loads the adapter without a word."""
    pytest.importorskip("peft.utils.transformers_weight_conversion", reason="this PEFT is not loaded by transformers")
    ids = torch.tensor([[7, 8, 9, 10]])
    with quiet(), torch.no_grad():
        alone, silently = (AutoModelForCausalLM.from_pretrained(inputs / name)(ids).logits for name in ("toy", "both"))
    assert (alone - silently).abs().max() > 0.1


def test_an_adapter_beside_a_gguf_file_is_refused_too(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "model.gguf").touch()
    for path in (tmp_path, tmp_path / "model.gguf"):
        with pytest.raises(SftscopeError, match=r"next to the model \(model.gguf\)"):
            check_weights(path)


def test_a_hub_repository_that_is_an_adapter_is_refused(monkeypatch):
    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", lambda *_, **__: toy_tokenizer())
    monkeypatch.setattr(loading, "find_adapter_config_file", lambda path: f"/cache/{path}/adapter_config.json")
    with pytest.raises(SftscopeError, match="some/lora: this hub repository is an adapter, no base model"):
        load_tokenizer("some/lora")


def test_the_base_that_an_adapter_names_is_looked_at_too(inputs, tmp_path):
    output = shutil.copytree(inputs / "lora", tmp_path / "out")
    shutil.copytree(inputs / "both", tmp_path / "toy")  # the name of the base that is given
    config = output / "checkpoint-2" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(tmp_path / "toy")}))
    os.utime(config, (1e9, 1e9))
    with pytest.raises(SftscopeError, match=BESIDE):
        attached(inputs, output, tmp_path / "run")
    assert attached(inputs, output, tmp_path / "run", same_base=True, extracting=False)


@pytest.mark.parametrize("left", [ADAPTER, ADAPTER[:1], ADAPTER[1:]])
def test_a_checkpoint_with_an_adapter_and_a_whole_model_is_refused(inputs, tmp_path, left):
    output = shutil.copytree(inputs / "lora", tmp_path / "out")
    checkpoint = output / "checkpoint-2"
    for name in set(ADAPTER) - set(left):
        (checkpoint / name).unlink()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(inputs / "toy" / name, checkpoint / name)
    for file in checkpoint.iterdir():
        os.utime(file, (1e9, 1e9))
    message = rf"holds both an adapter \({left[-1]}\) and a whole model \(model.safetensors\).* move the other one away"
    incomplete = r"no complete checkpoint \(step 2: adapter_config.json is missing"
    with pytest.raises(SftscopeError, match=message if ADAPTER[0] in left else incomplete):
        attached(inputs, output, tmp_path / "run")
    slot = AdapterSlot(AutoModelForCausalLM.from_pretrained(inputs / "toy"))
    with pytest.raises(SftscopeError, match=message):
        slot.load(checkpoint)


def test_a_model_in_training_that_was_loaded_with_an_adapter_has_no_step_0_in_process(inputs, tmp_path):
    pytest.importorskip("peft.utils.transformers_weight_conversion", reason="this PEFT is not loaded by transformers")
    trainer = make_trainer(inputs, adapter=False, out=str(tmp_path / "out"))
    options = {"probes": inputs / "probes.jsonl", "out": tmp_path / "run", "where": "in-process"}
    with quiet():
        trainer.model = AutoModelForCausalLM.from_pretrained(inputs / "adapter")
        with pytest.raises(SftscopeError, match="loaded with a trained adapter in it"):
            SftscopeCallback(trainer, **options)
    for name, value in trainer.model.named_parameters():
        if "lora_B" in name:
            value.data.zero_()  # as a fresh adapter: the model is the base
    SftscopeCallback(trainer, **options)
