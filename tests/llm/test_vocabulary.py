"""Adapters and whole models whose vocabulary grew: the base resized and their saved embeddings taken, compared with
the model that PEFT or transformers loads itself."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sftscope.foundation.errors import SftscopeError
from sftscope.llm.weights.adapters import AdapterSlot
from sftscope.llm.weights.vocabulary import fit_vocabulary
from toy_llm import CONFIGS

_IDS = torch.tensor([[3, 17, 50, 4, 99]])
_GROWN = 124
ADAPTERS = {
    "resized": {"target_modules": ["q_proj"]},
    "lora on embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "trained tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 119]},
    "trained modules": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
}


def _base(folder: Path, *, tied: bool):
    torch.manual_seed(0)
    config = CONFIGS["llama"]()
    config.tie_word_embeddings = tied
    config.num_hidden_layers = 1
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def _trained(model, settings: dict, folder: Path):
    """An adapter with random numbers everywhere, saved as a training does."""
    torch.manual_seed(1)
    wrapped = get_peft_model(model, LoraConfig(r=4, **settings))
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    wrapped.save_pretrained(folder)
    return wrapped.eval()


def _logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=_IDS).logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [120, _GROWN])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_with_embeddings_of_their_own(tmp_path: Path, kind: str, rows: int, tied: bool) -> None:
    if tied and kind == "trained modules":
        pytest.skip("PEFT unties them, which the base cannot hold")
    model = _base(tmp_path / "base", tied=tied)
    if rows != 120:
        model.resize_token_embeddings(rows)
    expected = _logits(_trained(model, ADAPTERS[kind], tmp_path / "checkpoint-1"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    line = fit_vocabulary(base, [tmp_path / "checkpoint-1"])
    assert ("124 embeddings, the base model 120" in line) == (rows == _GROWN)
    slot, plain = AdapterSlot(base), _logits(base)
    slot.load(tmp_path / "checkpoint-1")
    assert torch.allclose(_logits(slot.model), expected, atol=1e-4)
    slot.clear()
    assert torch.equal(_logits(slot.model), plain)
    slot.load(tmp_path / "checkpoint-1")
    assert torch.allclose(_logits(slot.model), expected, atol=1e-4)


@pytest.mark.parametrize("rows", [128, 110])
def test_whole_models_with_more_or_fewer_rows(tmp_path: Path, rows: int) -> None:
    model = _base(tmp_path / "base", tied=False)
    model.resize_token_embeddings(rows)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "checkpoint-1")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    before = _logits(base)
    assert fit_vocabulary(base, [tmp_path / "checkpoint-1"])
    slot = AdapterSlot(base)
    same = min(rows, 120)
    assert torch.allclose(_logits(slot.model)[..., :same], before[..., :same], atol=1e-5)
    slot.load(tmp_path / "checkpoint-1")
    assert torch.allclose(_logits(slot.model), _logits(model), atol=1e-5)


def test_new_rows_are_the_mean_of_the_old_ones_every_time(tmp_path: Path) -> None:
    model = _base(tmp_path / "base", tied=False)
    model.resize_token_embeddings(_GROWN)
    _trained(model, ADAPTERS["resized"], tmp_path / "checkpoint-1")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    means = [part.weight.mean(dim=0) for part in (base.get_input_embeddings(), base.get_output_embeddings())]
    fit_vocabulary(base, [tmp_path / "checkpoint-1"])
    for part, mean in zip((base.get_input_embeddings(), base.get_output_embeddings()), means, strict=True):
        assert torch.allclose(part.weight[120:], mean.expand(4, -1), atol=1e-6)


def test_tokens_beyond_the_base_are_refused_in_one_line(tmp_path: Path) -> None:
    model = _base(tmp_path / "base", tied=False)
    _trained(model, {"target_modules": ["q_proj"], "trainable_token_indices": [3, 119]}, tmp_path / "checkpoint-1")
    config = tmp_path / "checkpoint-1" / "adapter_config.json"
    config.write_text(config.read_text().replace("119", "5000"))
    slot = AdapterSlot(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    with pytest.raises(SftscopeError, match=r"trainable_tokens_delta has the shape .* rows up to 5000"):
        slot.load(tmp_path / "checkpoint-1")


def test_other_weights_for_a_head_that_shares_those_of_the_embeddings_are_refused(tmp_path: Path) -> None:
    model = _base(tmp_path / "base", tied=True)
    model.resize_token_embeddings(_GROWN)
    _trained(model, ADAPTERS["resized"], tmp_path / "checkpoint-1")
    file = tmp_path / "checkpoint-1" / "adapter_model.safetensors"
    state = load_file(file)
    state["base_model.model.lm_head.weight"] += 1
    save_file(state, file)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    fit_vocabulary(base, [tmp_path / "checkpoint-1"])
    with pytest.raises(SftscopeError, match=r"other weights for lm_head than for model\.embed_tokens"):
        AdapterSlot(base).load(tmp_path / "checkpoint-1")


def test_peft_itself_needs_the_resized_base(tmp_path: Path) -> None:
    model = _base(tmp_path / "base", tied=False)
    model.resize_token_embeddings(_GROWN)
    expected = _logits(_trained(model, ADAPTERS["trained tokens"], tmp_path / "checkpoint-1"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    base.resize_token_embeddings(_GROWN)
    again = PeftModel.from_pretrained(base, tmp_path / "checkpoint-1").eval()
    assert torch.allclose(_logits(again), expected, atol=1e-5)


@pytest.mark.parametrize(
    "rule", [lambda key: f"module._orig_mod.{key}", lambda key: key.replace("model.", "model._orig_mod.", 1)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_vocabulary_that_grew_in_a_wrapper(tmp_path: Path, whole: bool, rule) -> None:
    model = _base(tmp_path / "base", tied=True)
    model.resize_token_embeddings(_GROWN)
    folder = tmp_path / "checkpoint-1"
    if whole:
        model.save_pretrained(folder)
        expected = _logits(model)
    else:
        expected = _logits(_trained(model, ADAPTERS["resized"], folder))
    (file,) = folder.glob("*.safetensors")
    save_file({rule(key): value for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    assert "124 embeddings" in fit_vocabulary(base, [folder])
    slot = AdapterSlot(base)
    slot.load(folder)
    assert torch.allclose(_logits(slot.model), expected, atol=1e-4)
