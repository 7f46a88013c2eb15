"""Names of tensors as the model itself has them, without what a wrapper put before them when it was saved.

`torch.compile` names a module `_orig_mod` in its wrapper, wherever that is in the model; DataParallel and
DistributedDataParallel name the whole model `module`. Knows no PyTorch.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

COMPILED, PARALLEL = "_orig_mod.", "module."
WRAPPERS = {r"^(?:_orig_mod\.|module\.)+": "", r"(?<=\.)_orig_mod\.": ""}  # as transformers' key_mapping takes them
_OUTER, _INNER = map(re.compile, WRAPPERS)
_IN_PEFT = "base_model.model."
_Value = TypeVar("_Value")


def plain_name(key: str) -> str:
    """The name of a tensor without wrappers."""
    key = _OUTER.sub("", key)
    adapted = _IN_PEFT if key.startswith(_IN_PEFT) else ""
    return adapted + _INNER.sub("", _OUTER.sub("", key.removeprefix(adapted)))


def without_wrappers(tensors: Mapping[str, _Value], place: Path) -> dict[str, _Value]:
    """What is known of tensors, by plain names. SftscopeError where two of them, at `place`, have one name then."""
    found: dict[str, _Value] = {}
    for key, value in tensors.items():
        if (name := plain_name(key)) in found:
            shown = safe_text(name, max_length=120)
            raise SftscopeError(f"{place}: holds {shown} with and without the prefix of a wrapper; save it again")
        found[name] = value
    return found


def wrapper_of(keys: Iterable[str]) -> str:
    """The prefix of a wrapper in the names of tensors; empty where there is none."""
    for key in keys:
        if plain_name(key) != key:
            return COMPILED if COMPILED in key else PARALLEL
    return ""
