"""Which weights a checkpoint has, by what a forward pass depends on: untrained adapters and models are the base."""

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

from sftscope.llm.weights.adapters import AdapterSlot, new_adapter
from sftscope.llm.weights.weights_content import BASE, adapter_content, tensors_content
from toy_llm import toy_model

IDS = torch.tensor([[6, 9, 12, 7]])


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_an_adapter_that_was_not_trained_is_the_base(tmp_path, architecture, kind):
    model = new_adapter(toy_model(architecture), rank=4, alpha=8, dropout=0.0, **kind)
    fresh = saved(model, tmp_path / "fresh")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.mul_(2.0)
    other_a = saved(model, tmp_path / "other_a")
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name)[0, 0] = 1e-6
    trained = saved(model, tmp_path / "trained")

    slot = AdapterSlot(toy_model(architecture))
    plain = slot.model(IDS).logits
    for folder in (fresh, other_a):
        slot.load(folder)
        assert slot.content == BASE
        assert torch.equal(slot.model(IDS).logits, plain)
    slot.load(trained)
    content = slot.content
    assert len(content) == 64
    slot.clear()
    assert slot.content == BASE
    slot.load(trained)
    assert slot.content == content


def test_a_magnitude_that_was_trained_is_not_the_base():
    model = new_adapter(toy_model("llama"), rank=4, alpha=8, dropout=0.0, dora=True)
    state = dict(get_peft_model_state_dict(model))
    assert adapter_content(state, model.get_base_model()) == BASE
    name = next(name for name in state if "magnitude" in name)
    assert adapter_content({**state, name: state[name] * 1.01}, model.get_base_model()) != BASE


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # PEFT asks for it
def test_a_layer_that_an_adapter_brings_whole_is_compared_with_that_of_the_base():
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(toy_model("llama"), config)
    state = dict(get_peft_model_state_dict(model))
    assert adapter_content(state, model.get_base_model()) == BASE
    name = next(name for name in state if "lm_head" in name)
    assert adapter_content({**state, name: state[name] + 1e-3}, model.get_base_model()) != BASE


def test_whole_models_are_compared_bit_for_bit(tmp_path):
    untouched = saved(toy_model("llama"), tmp_path / "untouched")
    model = toy_model("llama")
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-6
    slot, trained = AdapterSlot(toy_model("llama")), saved(model, tmp_path / "trained")
    slot.load(untouched)
    assert slot.content == BASE
    slot.load(trained)
    assert slot.content not in (BASE, None)


def test_content_knows_values_names_and_kinds():
    one = {"a": torch.ones(2, 2), "b": torch.zeros(3, dtype=torch.int64)}
    assert tensors_content(one) == tensors_content(dict(reversed(one.items())))
    for other in ({**one, "a": torch.ones(4)}, {**one, "a": torch.ones(2, 2).half()}, {"c": one["a"], "b": one["b"]}):
        assert tensors_content(other) != tensors_content(one)
    assert tensors_content({"a": torch.tensor(2.0, dtype=torch.bfloat16), "e": torch.empty(0)}) != BASE
    assert tensors_content({}) == BASE
