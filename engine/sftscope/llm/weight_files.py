"""Weight files of unknown origin, looked at before a library reads them: whole, and with sizes that fit the file.

A GGUF file is walked from its magic to its last tensor; of safetensors the size is checked. Nothing is loaded, and
pickled weights are refused: to read them is to run what is in them.
"""

import mmap
import struct
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from sftscope.errors import SftscopeError
from sftscope.files.json_text import read_json_object
from sftscope.files.safetensors_header import is_whole
from sftscope.text import safe_text

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes by type
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_NAME = 1024
_ALIGNMENT = 32
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check_weights(path: Path) -> None:
    """SftscopeError for a model folder or GGUF file whose weights are damaged or pickled; a hub name passes."""
    refuse_adapter_as_base(path.parent if path.is_file() else path)
    files = [path] if path.is_file() else sorted([*path.glob("*.gguf"), *path.glob("*.safetensors")])
    for file in files:
        if file.suffix == ".gguf":
            status = file.stat()
            _check_gguf(file, status.st_size, status.st_mtime_ns)
        elif file.suffix == ".safetensors" and not is_whole(file):
            raise SftscopeError(f"{file}: damaged safetensors file: its size is not what its header says; get it again")
    if not files and path.is_dir() and (pickled := [file.name for each in _PICKLED for file in path.glob(each)]):
        raise SftscopeError(
            f"{path}: its weights are pickled ({safe_text(pickled[0])}), and code from a model folder is never run; "
            "convert them to safetensors"
        )


def refuse_adapter_as_base(folder: Path) -> None:
    """SftscopeError for a model folder with an adapter in it: transformers would silently load that too, or instead."""
    config = folder / ADAPTER_CONFIG
    if not config.exists():
        return
    adapter = " and ".join(name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if (folder / name).exists())
    if model := [*_names(folder, "*.gguf"), *whole_weights(folder)]:
        raise SftscopeError(
            f"{folder}: holds an adapter ({adapter}) beside the model ({model[0]}), and the base model must be "
            "without one; move the adapter to a folder of its own"
        )
    try:
        named = read_json_object(config).get("base_model_name_or_path")
    except (OSError, SftscopeError):
        named = None
    base = f", {safe_text(named, max_length=200)}" if isinstance(named, str) and named else ""
    raise SftscopeError(f"{folder}: holds an adapter only ({adapter}), no base model; give its base model{base}")


def refuse_adapter_and_model(folder: Path) -> None:
    """SftscopeError for a checkpoint that holds both an adapter and a whole model: which was trained is not known."""
    adapter = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if (folder / name).exists()]
    if adapter and (model := whole_weights(folder)):
        raise SftscopeError(
            f"{folder}: holds both an adapter ({adapter[-1]}) and a whole model ({model[0]}), and which of them was "
            "trained is not known; move the other one away"
        )


def whole_weights(folder: Path) -> list[str]:
    """The names of the safetensors files of a whole model in `folder`, those of an adapter left out."""
    return [name for name in _names(folder, "*.safetensors") if not name.startswith("adapter_")]


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(safe_text(file.name, max_length=80) for file in folder.glob(pattern))


@lru_cache(maxsize=16)
def _check_gguf(file: Path, size: int, changed: int) -> None:
    """Walk a GGUF file; `changed` tells its versions apart, each is walked once."""
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(data).all()
    except (ValueError, struct.error, OSError) as error:
        reason = safe_text(str(error), max_length=200)
        raise SftscopeError(f"{file}: damaged GGUF file: {reason}; get it again") from None


class _Walk:
    """A place in a GGUF file that moves forward; ValueError or struct.error where the file ends or makes no sense."""

    def __init__(self, data: Any) -> None:
        self._data, self._at, self._alignment = data, 0, _ALIGNMENT

    def all(self) -> None:
        if self._data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self._at = 4
        if (version := self._number("<I")) not in (2, 3):
            raise ValueError(f"expected version 2 or 3, got {version}")
        tensors, settings = self._number("<Q"), self._number("<Q")
        self._fits(tensors, 24, "tensors")
        self._fits(settings, 13, "settings")
        for _ in range(settings):
            self._setting()
        ends = [self._tensor() for _ in range(tensors)]
        start = -(-self._at // self._alignment) * self._alignment
        if ends and start + max(ends) > len(self._data):
            raise ValueError(f"it ends {start + max(ends) - len(self._data)} bytes before its last tensor does")

    def _number(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def _skip(self, size: int) -> None:
        if size > len(self._data) - self._at:
            raise ValueError(f"it ends within {size} bytes that it declares at {self._at}")
        self._at += size

    def _fits(self, count: int, least: int, what: str) -> None:
        """ValueError where `count` things of at least `least` bytes are more than the file has room for."""
        if count * least > len(self._data) - self._at:
            raise ValueError(f"{count} {what} are more than it has room for")

    def _name(self) -> bytes:
        length = self._number("<Q")
        if length > _MAX_NAME:
            raise ValueError(f"a name of {length} bytes")
        begin = self._at
        self._skip(length)
        return bytes(self._data[begin : self._at])

    def _setting(self) -> None:
        name, kind = self._name(), self._number("<I")
        begin = self._at
        self._value(kind)
        if name == b"general.alignment" and kind in (4, 5):
            (self._alignment,) = struct.unpack_from("<I", self._data, begin)
            if self._alignment not in (2**power for power in range(3, 17)):
                raise ValueError(f"an alignment of {self._alignment}")

    def _value(self, kind: int) -> None:
        if kind in _SCALARS:
            self._skip(_SCALARS[kind])
        elif kind == _STRING:
            self._skip(self._number("<Q"))
        elif kind == _ARRAY:
            self._array()
        else:
            raise ValueError(f"a setting of the unknown type {kind}")

    def _array(self) -> None:
        kind, count = self._number("<I"), self._number("<Q")
        if kind in _SCALARS:
            self._skip(_SCALARS[kind] * count)
        elif kind == _STRING:
            self._fits(count, 8, "strings")
            for _ in range(count):
                self._skip(self._number("<Q"))
        else:
            raise ValueError(f"an array of the type {kind}")

    def _tensor(self) -> int:
        """Where a tensor ends, in bytes from the first one."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        name, dimensions = self._name(), self._number("<I")
        if not 0 < dimensions <= _MAX_DIMENSIONS:
            raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
        shape = [self._number("<Q") for _ in range(dimensions)]
        kind, offset = self._number("<I"), self._number("<Q")
        if kind not in (each.value for each in GGMLQuantizationType):
            raise ValueError(f"tensor {name!r} is of the unknown type {kind}")
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        if not all(0 < edge < 2**40 for edge in shape) or shape[0] % block or prod(shape) > 2**44:
            raise ValueError(f"tensor {name!r} has the shape {shape}")
        return offset + prod(shape) // block * size
