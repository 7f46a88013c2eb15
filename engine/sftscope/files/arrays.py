"""Arrays in NumPy's files that others wrote: nothing is unpickled, and no more memory is taken than the file has."""

import io
import zlib
from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from sftscope.files.opening import read_plain

Array = np.ndarray[Any, np.dtype[Any]]


def read_npy(path: Path, limit: int) -> Array:
    """The array in a .npy file of at most `limit` bytes; ValueError where it holds none, errors as `read_plain`."""
    return parse_npy(read_plain(path, limit))


def read_npz(path: Path, limit: int) -> dict[str, Array]:
    """The arrays in a .npz file by name, at most `limit` bytes packed and unpacked; errors as `read_npy`."""
    data = read_plain(path, limit)
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if any(member.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for member in members):
                raise ValueError("packed in a way that NumPy does not write")
            if sum(member.file_size for member in members) > limit:
                raise ValueError(f"unpacks to more than {limit} bytes")
            return {member.filename.removesuffix(".npy"): parse_npy(archive.read(member)) for member in members}
    except (BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:  # damaged, or encrypted
        raise ValueError(str(error) or type(error).__name__) from None


def parse_npy(data: bytes) -> Array:
    """The array in the bytes of a .npy file; ValueError where they hold none, or less than their header declares."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"version {version[0]}.{version[1]}")
        shape, _, dtype = read(file)
        if dtype.hasobject or not all(edge >= 0 for edge in shape):
            raise ValueError("not numbers")
        if prod(shape) * max(dtype.itemsize, 1) > len(data) - file.tell():
            raise ValueError(f"declares {shape} of {dtype}, which is more than it has")
        array: Array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy evaluates the header: hostile bytes make it raise almost anything
        raise ValueError(f"not an array: {error}") from None
    return array
