"""A model's `config.json`, compared with the header of its weights before a library builds what it describes.

A config is a few lines that can declare 200,000 layers, or name code to download; the weights are what is there. Knows
no PyTorch.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sftscope.files.json_text import read_json_object
from sftscope.files.safetensors_header import read_header
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
_MAX_BYTES = 2**24
_LAYERS = re.compile(r"(num_|n_).*(layer|block|expert)s?.*|n_layers?")
_COUNTS = re.compile(r"(num|n)_.*")
_POSITIONS = ("n_positions", "n_ctx")  # nothing is made of that many
FEW_LAYERS, FEW_OTHERS = 512, 65_536  # layers, and other counts, that any config may have
_DEPTH = 6
_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")


@dataclass(frozen=True)
class Sizes:
    """What the weights of a folder hold. layers: at most that many of anything that is numbered in their names."""

    layers: int
    widest: int
    numbers: int
    packed: bool


def weights_sizes(folder: Path) -> Sizes | None:
    """The sizes of the safetensors weights in a folder, from their headers; None where there are none."""
    layers = widest = numbers = 0
    packed, files = False, sorted(folder.glob("*.safetensors"))
    for file in files:
        for name, entry in read_header(file).items():
            layers = max([layers, *(int(part) + 1 for part in name.split(".") if part.isdecimal() and len(part) < 7)])
            widest = max([widest, *entry.shape])
            numbers += prod(entry.shape)
            packed = packed or entry.dtype in ("U8", "I8", "I32", "F4", "F6_E2M3", "F6_E3M2")
    return Sizes(layers, widest, numbers, packed) if files else None


def check_config(path: Path, sizes: Sizes | None = None) -> None:
    """SftscopeError where a config.json declares more than the weights hold, or names code or files elsewhere.

    sizes: of the weights, where they are there to compare with.
    """
    config = read_json_object(path, _MAX_BYTES)
    layers = max(FEW_LAYERS, sizes.layers if sizes else 0)
    most = max(FEW_OTHERS, sizes.widest if sizes else 0)
    for name, value in _fields(config):
        shown = safe_text(name, max_length=60)
        if name.lstrip("_").removesuffix("_internal") in _IMPLEMENTATIONS and "/" in str(value):
            raise SftscopeError(
                f"{path}: field {shown!r}: names code of the hub, {safe_text(str(value), max_length=80)}; code that a "
                "model names is never run: remove the field"
            )
        if type(value) is int and name not in _POSITIONS and _COUNTS.fullmatch(name):
            limit = layers if _LAYERS.fullmatch(name) else most
            if value > limit:
                raise SftscopeError(
                    f"{path}: field {shown!r}: {value} is more than the weights hold, and more than {limit}; "
                    "get the model again"
                )
    named = config.get("transformers_weights")
    _check_names(path, [named] if named else [])


def check_index(path: Path) -> None:
    """SftscopeError where the index of a model in several files names a file that is not next to it, or is pickled."""
    try:
        named = read_json_object(path).get("weight_map")
    except FileNotFoundError:
        return
    if named is not None and not isinstance(named, dict):
        raise SftscopeError(f"{path}: field 'weight_map': expected names of files by tensors; get it again")
    _check_names(path, {str(each) for each in (named or {}).values()})


def _check_names(path: Path, names: Collection[Any]) -> None:
    for name in sorted(names, key=str):
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            shown = safe_text(repr(name), max_length=80)
            raise SftscopeError(f"{path}: expected names of safetensors files next to it, got {shown}; get it again")


def _fields(config: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(name, value) of all fields, those of tables within included, however a field of one is called."""
    for name, value in config.items():
        yield name, value
        if isinstance(value, dict) and depth < _DEPTH:
            yield from _fields(value, depth + 1)
