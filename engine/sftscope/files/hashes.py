"""sha256 of what step files name by it: a checkpoint's weights, the baseline vector."""

import hashlib
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sftscope.files.arrays import read_npy
from sftscope.files.opening import failed_to_read, opened
from sftscope.foundation.errors import SftscopeError

MAX_VECTOR_BYTES = 2**22  # a vector of a million numbers


def file_sha256(path: Path) -> str:
    """Of a file's bytes, however large."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_sha256(path: Path) -> str:
    """Of the numbers in a small .npy file; SftscopeError where it is none."""
    return hashlib.sha256(read_numbers(path).tobytes()).hexdigest()


def read_numbers(path: Path) -> NDArray[Any]:
    """The array in a small .npy file; SftscopeError where it is none."""
    try:
        return read_npy(path, MAX_VECTOR_BYTES)
    except OSError as error:
        raise failed_to_read(path, error) from None
    except ValueError:
        raise SftscopeError(f"{path}: cannot be read: not a .npy file of numbers") from None
