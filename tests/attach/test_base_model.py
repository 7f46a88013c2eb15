"""Whether an adapter belongs to a base: what it names is compared, and never read without end."""

import json
import os
from pathlib import Path

import pytest

from sftscope.attach.base_model import _same_weights, refuse_another_base, remark_on_base
from sftscope.foundation.errors import SftscopeError
from sftscope.store.checkpoints import Checkpoint


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


def adapter_of(folder: Path, **config: str) -> Checkpoint:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return Checkpoint(2, folder)


def test_two_folders_of_one_name_are_one_base_only_by_their_weights(tmp_path: Path) -> None:
    for place in ("a", "b", "c"):
        (tmp_path / place).mkdir()
    base = weights(tmp_path / "a" / "checkpoint-500", b"12345678")
    other = weights(tmp_path / "b" / "checkpoint-500", b"12345679")
    same = weights(tmp_path / "c" / "checkpoint-500", b"12345678")
    adapter = adapter_of(tmp_path / "checkpoint-2", base_model_name_or_path=base)
    refuse_another_base(adapter, base, trusted=False)
    refuse_another_base(adapter, same, trusted=False)
    with pytest.raises(SftscopeError, match="give that base, or --same-base"):
        refuse_another_base(adapter, other, trusted=False)
    gone = adapter_of(tmp_path / "gone", base_model_name_or_path="/elsewhere/checkpoint-500")
    refuse_another_base(gone, other, trusted=False)  # all there is to compare is its name


def test_what_is_taken_on_trust_of_a_base_is_said(tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path / "one", base_model_name_or_path="org/toy")
    assert remark_on_base(adapter, "org/toy") == ""
    assert remark_on_base(adapter, "mirror/toy").endswith(
        "name the base model org/toy; mirror/toy is taken for the same"
    )
    pinned = adapter_of(tmp_path / "two", base_model_name_or_path="org/toy", revision="v1")
    assert "name revision v1 of their base model" in remark_on_base(pinned, "org/toy")
