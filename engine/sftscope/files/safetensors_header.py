"""The header of a safetensors file: 8 bytes that say how long it is, then JSON that names every tensor.

Format: https://huggingface.co/docs/safetensors. Only the header is read; what it says about the rest of the file is
checked against the file's size.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sftscope.files.json_text import json_object
from sftscope.files.opening import opened, raise_if_not_read
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

MAX_HEADER_BYTES = 100 * 2**20  # as in the safetensors library
_MAX_DIMENSIONS = 16
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
_BITS |= {"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
_BITS |= {"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


@dataclass(frozen=True)
class TensorEntry:
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path, *, within: Path | None = None) -> Mapping[str, TensorEntry]:
    """The tensors of a safetensors file by name.

    SftscopeError where the header is damaged or does not fit the file's size; OSError as `open` raises it.
    """
    with opened(path, within=within) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
            raise _damaged(path, f"it has {size} bytes and declares a header of {length}")
        data = file.read(length)
    try:
        entries = {name: _entry(value) for name, value in json_object(data).items() if name != "__metadata__"}
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    end = max((entry.end for entry in entries.values()), default=0)
    if size != 8 + length + end:
        raise _damaged(path, f"it has {size} bytes, its header declares {8 + length + end}")
    return entries


def is_whole(path: Path) -> bool:
    """Whether there is a safetensors file at `path` that has the size that its header declares.

    NotReadError where that cannot be determined now.
    """
    try:
        read_header(path)
    except (OSError, MemoryError, ValueError, SftscopeError) as error:
        raise_if_not_read(path, error)
        return False
    return True


def _entry(value: Any) -> TensorEntry:
    """ValueError where a value of the header is not the description of a tensor."""
    if not isinstance(value, dict):
        raise ValueError("expected an object for each tensor")
    dtype, shape, offsets = value.get("dtype"), _sizes(value.get("shape")), _sizes(value.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError("expected dtype, shape and data_offsets for each tensor")
    bits = _BITS.get(dtype)
    if bits is not None and 8 * (offsets[1] - offsets[0]) != prod(shape) * bits:
        raise ValueError(f"{8 * (offsets[1] - offsets[0])} bits for the shape {shape} of {dtype}")
    return TensorEntry(dtype, shape, *offsets)


def _sizes(value: Any) -> tuple[int, ...] | None:
    """A short list of whole numbers ≥ 0 as a tuple; None for anything else."""
    fits = isinstance(value, list) and len(value) <= _MAX_DIMENSIONS
    return tuple(value) if fits and all(type(item) is int and item >= 0 for item in value) else None


def _damaged(path: Path, reason: str) -> SftscopeError:
    return SftscopeError(f"{path}: damaged safetensors file: {safe_text(reason, max_length=200)}; get it again")
