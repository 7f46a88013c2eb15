"""Whether an adapter belongs to a base: what it names is compared, and never read without end."""

import os
from pathlib import Path

import pytest

from sftscope.attach.base_model import _same_weights


def weights(folder: Path, content: bytes) -> str:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    return str(folder)


def test_equal_weights_are_of_one_base_and_others_are_not(tmp_path: Path) -> None:
    base = weights(tmp_path / "base", b"12345678")
    assert _same_weights(weights(tmp_path / "same", b"12345678"), base)
    assert not _same_weights(weights(tmp_path / "other", b"12345679"), base)
    assert not _same_weights(str(tmp_path / "none"), base)
    (tmp_path / "empty").mkdir()
    assert not _same_weights(str(tmp_path / "empty"), str(tmp_path / "empty"))


def test_a_file_that_an_adapter_names_is_hashed_only_if_it_is_as_large_as_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a sparse file of terabytes, a device or a pipe."""
    base = weights(tmp_path / "base", b"12345678")
    monkeypatch.setattr("sftscope.attach.base_model.file_sha256", lambda file: pytest.fail(f"{file} was read"))
    huge = tmp_path / "huge.gguf"
    huge.touch()
    os.truncate(huge, 2**40)
    os.mkfifo(tmp_path / "pipe.gguf")
    for named in (str(huge), "/dev/zero", "/proc/self/pagemap", str(tmp_path / "pipe.gguf")):
        assert not _same_weights(named, base)
