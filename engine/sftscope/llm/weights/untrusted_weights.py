"""Models of unknown origin, looked at before a library reads them: plain files, intact, with sizes that fit them.

A GGUF file is walked from its magic to its last tensor; of safetensors the headers are read, and config.json is
compared with them. Nothing is loaded, and pickled weights are refused: to read them is to run what is in them.
"""

import mmap
import re
import struct
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from sftscope.files.folders import check_files
from sftscope.files.json_text import read_json_object
from sftscope.files.opening import is_plain, opened
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.model_config import CONFIG, FEW_LAYERS, FEW_OTHERS, INDEX, check_config, check_index, weights_sizes
from sftscope.llm.weights.adapter_config import CONFIG as ADAPTER_CONFIG
from sftscope.llm.weights.adapter_config import WEIGHTS as ADAPTER_WEIGHTS

_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes by type
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_NAME = 1024
_ALIGNMENT = 32
_DECLARES = re.compile(rb"(_count|(?<!context)_length|\.vocab_size)$")  # nothing is made of a context's length
_BLOCK = re.compile(rb"blk\.(\d{1,6})\.")
_PACKED = 8  # numbers in one of a packed format: 4 bits in 32
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def check_weights(path: Path) -> None:
    """SftscopeError for a model folder or GGUF file that is damaged, pickled, or declares more than it holds.

    A hub name passes.
    """
    if not path.exists():
        return
    refuse_adapter_as_base(path if path.is_dir() else path.parent)
    if not path.is_dir():
        if not is_plain(path):
            raise SftscopeError(f"{path}: not a regular file; give a model folder or a GGUF file")
        _check_gguf_file(path)
        return
    check_files(path)
    ggufs = sorted(path.glob("*.gguf"))
    for file in ggufs:
        _check_gguf_file(file)
    try:
        sizes = weights_sizes(path)
        check_index(path / INDEX)
        if (path / CONFIG).exists():
            check_config(path / CONFIG, sizes)
    except OSError as error:
        raise SftscopeError(f"{error.filename or path}: cannot be read: {error.strerror}") from None
    if not ggufs and sizes is None and (pickled := [file.name for each in _PICKLED for file in path.glob(each)]):
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
            f"{folder}: holds an adapter ({adapter}) next to the model ({model[0]}), and the base model must be "
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


def numbers_in(path: Path) -> int:
    """How many numbers the safetensors weights of a folder hold at most, unpacked; 0 where there are none."""
    sizes = weights_sizes(path) if path.is_dir() else None
    return 0 if sizes is None else sizes.numbers * (_PACKED if sizes.packed else 1)


def _check_gguf_file(file: Path) -> None:
    if file.suffix == ".gguf":
        status = file.stat()
        _check_gguf(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _check_gguf(file: Path, size: int, changed: int) -> None:
    """Walk a GGUF file; `changed` tells its versions apart, each is walked once."""
    try:
        with opened(file) as plain, mmap.mmap(plain.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(data).all()
    except (ValueError, struct.error, OSError) as error:
        reason = safe_text(str(error), max_length=200)
        raise SftscopeError(f"{file}: damaged GGUF file: {reason}; get it again") from None


class _Walk:
    """A place in a GGUF file that moves forward; ValueError or struct.error where the file ends or makes no sense."""

    def __init__(self, data: Any) -> None:
        self._data, self._at, self._alignment = data, 0, _ALIGNMENT
        self._layers = self._widest = 0  # of the tensors
        self._declared: dict[str, int] = {}  # counts and lengths among the settings

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
        for name, value in self._declared.items():
            is_layers = name.endswith("block_count")
            if value > (max(self._layers, FEW_LAYERS) if is_layers else max(self._widest, FEW_OTHERS)):
                raise ValueError(f"it declares {name} = {value}, which is more than its tensors hold")

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
        if kind in (4, 5) and _DECLARES.search(name):
            self._declared[name.decode(errors="replace")] = struct.unpack_from("<I", self._data, begin)[0]
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
        self._widest = max(self._widest, *shape)
        if match := _BLOCK.match(name):
            self._layers = max(self._layers, int(match[1]) + 1)
        return offset + prod(shape) // block * size
