"""Arrays that others wrote: one ValueError, whatever they hold, and no more memory than they have."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sftscope.files.arrays import parse_npy, read_npz


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize("shape", [f"(0, {2**70})", f"({2**70},)", "(-1,)", "('a',)", "(1e9,)"])
def test_a_shape_that_no_array_has_is_one_error(shape: str) -> None:
    with pytest.raises(ValueError, match="not an array"):
        parse_npy(header(shape) + b"\0" * 8)


def archive(path: Path, kind: int) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(1000.0))
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("masks.npy", buffer.getvalue())
    return path


def test_an_archive_with_damaged_data_is_one_error(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[60:200] = b"\xff" * 140
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r".+"):
        read_npz(path, 2**20)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packers_that_numpy_does_not_use_are_refused(tmp_path: Path, kind: int) -> None:
    """A few bytes of theirs unpack to gigabytes, whatever size is declared."""
    with pytest.raises(ValueError, match="packed in a way"):
        read_npz(archive(tmp_path / "a.npz", kind), 2**20)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_numpy_writes_is_read(tmp_path: Path, kind: int) -> None:
    assert read_npz(archive(tmp_path / "a.npz", kind), 2**20)["masks"].tolist() == list(range(1000))
