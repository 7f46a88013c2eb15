"""sha256 of what step files name by it: a checkpoint's weights, the baseline vector."""

import hashlib
import io
from pathlib import Path

import numpy as np

from sftscope.errors import SftscopeError
from sftscope.files.opening import failed_to_read, read_plain

MAX_VECTOR_BYTES = 2**22  # a vector of a million numbers


def file_sha256(path: Path) -> str:
    """Of a file's bytes, however large."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_sha256(path: Path) -> str:
    """Of the numbers in a small .npy file; SftscopeError where it is none."""
    try:
        vector = np.load(io.BytesIO(read_plain(path, MAX_VECTOR_BYTES)), allow_pickle=False)
    except OSError as error:
        raise failed_to_read(path, error) from None
    except (ValueError, EOFError):
        raise SftscopeError(f"{path}: cannot be read: not a .npy file of numbers") from None
    if not isinstance(vector, np.ndarray):
        raise SftscopeError(f"{path}: expected a .npy file, got an archive")
    return hashlib.sha256(vector.tobytes()).hexdigest()
