"""Adapters of unknown origin: the tensors say what they are; nothing in their config runs, or builds what they lack."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from sftscope.foundation.errors import SftscopeError
from sftscope.llm.weights.adapter_config import read_adapter
from sftscope.llm.weights.adapters import AdapterSlot
from toy_llm import toy_model

KINDS = ("self_attn.q_proj", "self_attn.v_proj")
PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
# what Unsloth writes for models that also see images
UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:q_proj|v_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|v_proj)))"
)


@pytest.fixture(scope="module")
def base() -> Any:
    return toy_model("llama").eval()


def adapter(folder: Path, base: Any, config: dict[str, Any], layers=range(3), ranks: dict[str, int] | None = None):
    """An adapter on two modules of each layer, with the config that is given."""
    rng, modules, tensors = np.random.default_rng(1), dict(base.named_modules()), {}
    for layer in layers:
        for kind in KINDS:
            name = f"model.layers.{layer}.{kind}"
            rank = (ranks or {}).get(kind, 4)
            shape_out, shape_in = modules[name].weight.shape
            for part, shape in (("lora_A", (rank, shape_in)), ("lora_B", (shape_out, rank))):
                tensors[f"base_model.model.{name}.{part}.weight"] = rng.normal(size=shape).astype(np.float32)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, **config}))
    return folder


def effect(base: Any, folder: Path, **scales: float) -> float:
    """How far the loaded adapter is from scale · B A added by hand, over all modules; scales by module."""
    own = {name: module.weight.detach().clone() for name, module in base.named_modules() if name.endswith(KINDS)}
    slot = AdapterSlot(base)
    slot.load(folder)
    found = read_adapter(folder)
    import safetensors.torch

    tensors = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    worst = 0.0
    for name, module in base.named_modules():
        if hasattr(module, "lora_A") and len(module.lora_A):
            weight = module.get_base_layer().weight
            a, b = (tensors[f"base_model.model.{name}.{part}.weight"] for part in ("lora_A", "lora_B"))
            scale = scales.get(name.rpartition(".")[2], scales["other"])
            worst = max(worst, float((weight - own[name] - scale * b @ a).abs().max()))
            assert name in found.ranks
    slot.clear()
    return worst


LOADING = {
    "a list": ({}, {"other": 2.0}),
    "rsLoRA": ({"use_rslora": True}, {"other": 4.0}),
    "a pattern": ({"target_modules": r".*\.(q_proj|v_proj)"}, {"other": 2.0}),
    "the pattern of Unsloth": ({"target_modules": UNSLOTH}, {"other": 2.0}),
    "a pattern without end": ({"target_modules": "(a+)+$" * 20}, {"other": 2.0}),
    "no pattern at all": ({"target_modules": "("}, {"other": 2.0}),
    "full names": ({"target_modules": [f"model.layers.{i}.{k}" for i in range(3) for k in KINDS]}, {"other": 2.0}),
    "null fields": (dict.fromkeys(("modules_to_save", "exclude_modules", "layers_pattern")), {"other": 2.0}),
    "fields of a newer PEFT": ({"new_config": None, "use_new": False, "news": []}, {"other": 2.0}),
    "defaults that PEFT writes": ({"qalora_group_size": 16, "megatron_core": "megatron.core"}, {"other": 2.0}),
    "a module to import": ({"megatron_core": "os.evil", "auto_mapping": {"parent_library": "evil"}}, {"other": 2.0}),
    "alpha by module": ({"alpha_pattern": {"v_proj": 32}}, {"v_proj": 8.0, "other": 2.0}),
    "alpha by a pattern": ({"alpha_pattern": {r"layers\.[0-9]+\..*\.v_proj": 32}}, {"v_proj": 8.0, "other": 2.0}),
    "alpha at the beginning": ({"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 8}}, {"other": 2.0}),
    "eva": ({"init_lora_weights": "eva", "eva_config": {"rho": 2.0}}, {"other": 2.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADING)
def test_what_trainers_write_is_loaded_as_its_weights_say(name: str, tmp_path: Path) -> None:
    """Against scale · B A, added to the weights by hand."""
    config, scales = LOADING[name]
    base = toy_model("llama").eval()
    assert effect(base, adapter(tmp_path / "a", base, config), **scales) < 1e-5


def test_ranks_are_those_of_the_weights(tmp_path: Path) -> None:
    base = toy_model("llama").eval()
    folder = adapter(tmp_path / "a", base, {"rank_pattern": {"v_proj": 2}}, ranks={"self_attn.v_proj": 2})
    assert effect(base, folder, q_proj=2.0, v_proj=4.0, other=0.0) < 1e-5


def test_layers_to_transform_are_those_of_the_weights(tmp_path: Path) -> None:
    base = toy_model("llama").eval()
    folder = adapter(tmp_path / "a", base, {"layers_to_transform": [1], "layers_pattern": "layers"}, layers=[1])
    assert effect(base, folder, other=2.0) < 1e-5
    (tmp_path / "b").mkdir()
    with pytest.raises(SftscopeError, match=r"the adapter lacks base_model.model.model.layers.0.self_attn.q_proj"):
        AdapterSlot(base).load(adapter(tmp_path / "b", base, {}, layers=[1]))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a rank of a million": ({"r": 10**6}, "rank 1e.06 for .* its weights have rank 4"),
    "a rank that is text": ({"r": "8"}, "field 'r': expected a number above 0, got '8'"),
    "a rank without end": ({"r": float("inf")}, "field 'r': expected a number above 0"),
    "a rank of no kind": ({"r": True}, "field 'r'"),
    "ranks as a list": ({"rank_pattern": [1]}, "field 'rank_pattern': expected an object"),
    "a million in one module": ({"rank_pattern": {"q_proj": 10**6}}, "rank 1e.06 for .*q_proj"),
    "a key that searches without end": ({"alpha_pattern": {"(.*a)+$": 1}}, "field 'alpha_pattern': expected names"),
    "a key of many repetitions": ({"rank_pattern": {".*.*.*.*x": 4}}, "field 'rank_pattern': expected names"),
    "a key that is no pattern": ({"alpha_pattern": {"(": 1}}, "field 'alpha_pattern': expected names"),
    "an alpha that is no number": ({"alpha_pattern": {"q_proj": "x"}}, "field 'alpha_pattern': expected numbers"),
    "layers made several times": ({"layer_replication": [[0, 10**6]]}, "field 'layer_replication': not supported"),
    "single tokens": ({"trainable_token_indices": [0, 10**12]}, "field 'trainable_token_indices': expected none"),
    "another method": ({"megatron_config": {"x": 1}}, "field 'megatron_config': not supported"),
    "parameters": ({"target_parameters": ["experts.gate"]}, "field 'target_parameters': not supported"),
    "biases": ({"bias": "all"}, "field 'bias': expected 'none'"),
    "a method of tomorrow": ({"use_tomorrow": True}, "field 'use_tomorrow': not supported"),
    "another base": ({"init_lora_weights": "pissa"}, "was begun by pissa"),
    "a cache file": ({"corda_config": {"cache_file": "/etc/passwd"}}, "was begun by"),
    "targets that are no names": ({"target_modules": ["(a+)+$"]}, "field 'target_modules': expected names of modules"),
    "targets that are numbers": ({"target_modules": 5}, "field 'target_modules': expected names of modules"),
    "modules that are no names": ({"modules_to_save": [".*"]}, "field 'modules_to_save': expected names"),
    "modules as an object": ({"modules_to_save": {"a": 1}}, "field 'modules_to_save': expected names"),
    "layers that are no numbers": ({"layers_to_transform": ["0"]}, "field 'layers_to_transform': expected numbers"),
    "layers by a pattern": ({"layers_to_transform": 0, "layers_pattern": "(a+)+"}, "field 'layers_pattern'"),
    "a flag that is none": ({"use_dora": "yes"}, "field 'use_dora': expected true or false"),
    "another kind": ({"peft_type": "LOHA"}, "field 'peft_type': expected LORA, got 'LOHA'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_config_that_is_not_that_of_its_weights_is_one_line(name: str, base: Any, tmp_path: Path) -> None:
    config, expected = REFUSED[name]
    with pytest.raises(SftscopeError, match=expected) as refused:
        read_adapter(adapter(tmp_path / "a", base, config))
    assert str(tmp_path / "a") in str(refused.value)
    assert len(str(refused.value)) < 500


def test_weights_that_fit_no_place_of_the_base_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    base = toy_model("llama").eval()
    folder = adapter(tmp_path / "a", base, {})
    tensors = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": np.zeros((10**6, 1), np.int8)}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, "r": 10**6, "target_modules": "x"}))
    with pytest.raises(SftscopeError, match=r"has the shape \(1000000, 1\), expected \(1000000, 32\)"):
        AdapterSlot(base).load(folder)
    save_file({"base_model.model.nowhere.lora_A.weight": np.zeros((4, 1))}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, "target_modules": "x"}))
    with pytest.raises(SftscopeError, match=r"the base model has no place for base_model\.model\.nowhere"):
        AdapterSlot(base).load(folder)


def test_modules_to_save_must_be_in_the_weights(base: Any, tmp_path: Path) -> None:
    for modules, expected in ((["lm_head"], "the adapter lacks base_model.model.lm_head.weight"), (["head"], "whole")):
        with pytest.raises(SftscopeError, match=expected):
            AdapterSlot(base).load(adapter(tmp_path / "a", base, {"modules_to_save": modules}))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "no object"])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_files_of_an_adapter_that_are_no_files_are_one_line(name: str, kind: str, base: Any, tmp_path: Path) -> None:
    import os

    file = adapter(tmp_path / "a", base, {}) / name
    file.unlink()
    make = {
        "pipe": lambda: os.mkfifo(file),
        "device": lambda: file.symlink_to("/dev/zero"),
        "folder": file.mkdir,
        "no object": lambda: file.write_text("[]"),
    }
    make[kind]()
    with pytest.raises(SftscopeError, match=name):
        read_adapter(file.parent)


def test_a_step_of_another_scaling_is_another_training(tmp_path: Path) -> None:
    base = toy_model("llama").eval()
    slot = AdapterSlot(base)
    slot.load(adapter(tmp_path / "a", base, {}))
    slot.load(adapter(tmp_path / "b", base, {"target_modules": ["v_proj", "q_proj"], "peft_version": "1"}))
    with pytest.raises(SftscopeError, match="another configuration than the steps before"):
        slot.load(adapter(tmp_path / "c", base, {"lora_alpha": 16}))
    assert torch.isfinite(base.lm_head.weight).all()
