"""Which weights a step has, by their content: steps of equal content give equal scores, and are scored once.

Only what a forward pass depends on counts. A LoRA pair whose B is zero, as a fresh adapter's and one that was trained
with learning rate 0, changes nothing, whatever its A is: the step has the weights of the base.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import torch

from sftscope.llm.weights.adapter_config import PREFIX

BASE = ""  # content of the base model's own weights
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)(\.weight|\.bias)?")
_WRAPPED = re.compile(r"\.(base_layer|original_module)(?=\.)")


def adapter_content(state: Mapping[str, torch.Tensor], base: Any) -> str:
    """sha256 of what an adapter changes of `base`; `BASE` where that is nothing.

    state: its tensors by PEFT's names. base: the model, wrapped or not, with its own weights. All steps of a run share
    ranks and scalings, so these are no part of it.
    """
    own = {_WRAPPED.sub("", name): value for name, value in base.named_parameters() if ".lora_" not in name}
    idle = _idle_modules(state, own)
    changed = {
        name: value
        for name, value in state.items()
        if not ((match := _LORA.fullmatch(name)) and match["module"] in idle) and not _is_own(name, value, own)
    }
    return tensors_content(changed)


def tensors_content(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of tensors, name after name; `BASE` of none."""
    if not tensors:
        return BASE
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        plain = value.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()


def _idle_modules(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> set[str]:
    """The modules whose LoRA changes nothing: B is zero, and with DoRA the magnitude is that of the base weight."""
    idle: set[str] = set()
    busy: set[str] = set()
    for name, value in state.items():
        match = _LORA.fullmatch(name)
        if match is None:
            continue
        if match["part"] in ("B", "embedding_B"):
            (busy if bool(value.any()) else idle).add(match["module"])
        elif match["part"] == "magnitude_vector" and not _is_norm(value, own.get(_plain(f"{match['module']}.weight"))):
            busy.add(match["module"])
    return idle - busy


def _is_norm(magnitude: torch.Tensor, weight: torch.Tensor | None) -> bool:
    """Whether a magnitude of DoRA is the norm of each row of the weight, as it is at the start."""
    if weight is None or weight.ndim != 2 or not weight.is_floating_point() or magnitude.numel() != len(weight):
        return False
    norm = torch.linalg.norm(weight.detach().to(magnitude.dtype), dim=1).to(magnitude.device)
    return torch.equal(norm, magnitude.reshape(-1))


def _is_own(name: str, value: torch.Tensor, own: Mapping[str, torch.Tensor]) -> bool:
    """Whether a whole layer that an adapter brings is that of the base."""
    there = own.get(_plain(name))
    return there is not None and there.shape == value.shape and torch.equal(value, there.detach().to(value))


def _plain(name: str) -> str:
    return name.removeprefix(PREFIX)
