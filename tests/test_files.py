"""Files of unknown origin: opened only where they are what they should be, parsed to checked values or to one line."""

import json
import os
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sftscope.errors import SftscopeError
from sftscope.files.json_text import json_object, parse_json, read_json_object
from sftscope.files.opening import copy_plain, open_to_append, opened, read_plain
from sftscope.files.safetensors_header import is_whole, read_header
from sftscope.store.atomic import append_line


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def link_to_zero(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("make", [pipe, folder, link_to_zero])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, make) -> None:
    path = make(tmp_path / "x")
    with pytest.raises((SftscopeError, IsADirectoryError)):
        read_plain(path)
    with pytest.raises((SftscopeError, IsADirectoryError)):
        copy_plain(path, tmp_path / "copy")
    with pytest.raises((SftscopeError, OSError)):
        append_line(path, "more")
    assert not (tmp_path / "copy").exists()
    assert not is_whole(path)


def test_a_file_larger_than_allowed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0" * 101)
    with pytest.raises(SftscopeError, match="101 bytes, more than the 100"):
        read_plain(tmp_path / "x", 100)
    assert read_plain(tmp_path / "x", 101) == b"0" * 101


def test_a_link_may_not_lead_out_of_the_folder_that_was_named(tmp_path: Path) -> None:
    secret, inside = tmp_path / "secret", tmp_path / "given"
    inside.mkdir()
    secret.write_text("mine")
    (inside / "own").write_text("own")
    (inside / "out").symlink_to(secret)
    (inside / "in").symlink_to("own")
    assert read_plain(inside / "in", within=inside) == b"own"
    for read in (read_plain, lambda path, within: copy_plain(path, tmp_path / "copy", within=within)):
        with pytest.raises(SftscopeError, match="a link that leads out of"):
            read(inside / "out", within=inside)
    assert not (tmp_path / "copy").exists()


def test_links_of_a_snapshot_in_the_hubs_cache_lead_to_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "models--a--b"
    snapshot = repository / "snapshots" / "123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "abc").write_text("weights")
    (snapshot / "x").symlink_to("../../blobs/abc")
    assert read_plain(snapshot / "x", within=snapshot) == b"weights"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_copy_is_readable_by_no_one_who_could_not_read_the_file(tmp_path: Path, mode: int) -> None:
    (tmp_path / "x").write_text("mine")
    (tmp_path / "x").chmod(mode)
    copy_plain(tmp_path / "x", tmp_path / "copy")
    assert not stat.S_IMODE((tmp_path / "copy").stat().st_mode) & ~mode
    assert (tmp_path / "copy").read_text() == "mine"


def test_a_log_is_never_appended_to_through_a_link(tmp_path: Path) -> None:
    """`training_log.jsonl` as a link, or as a second name, of the user's `.bashrc`."""
    (tmp_path / "bashrc").write_text("mine\n")
    (tmp_path / "soft").symlink_to("bashrc")
    (tmp_path / "hard").hardlink_to(tmp_path / "bashrc")
    for name in ("soft", "hard"):
        with pytest.raises((OSError, SftscopeError)):
            append_line(tmp_path / name, "more")
    assert (tmp_path / "bashrc").read_text() == "mine\n"
    os.close(open_to_append(tmp_path / "new"))
    append_line(tmp_path / "new", "a")
    assert (tmp_path / "new").read_text() == "a\n"


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 400, '{"a": ' + "1" * 400 + "}", "{", "\x00", b"\xff"])
def test_json_that_no_reader_should_meet_is_one_error(text) -> None:
    with pytest.raises(ValueError, match=r"nested too deep|digits|Expecting|codec"):
        parse_json(text)


@pytest.mark.parametrize("text", ["[]", "1", '"a"', "null", "true"])
def test_json_of_another_kind_is_no_object(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a JSON object"):
        json_object(text)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SftscopeError, match=r"x\.json: not valid JSON: expected a JSON object"):
        read_json_object(tmp_path / "x.json")


def test_numbers_that_fit_are_kept() -> None:
    assert parse_json('[1, -123456789012345678, 1.5, 1e300, "x"]') == [1, -123456789012345678, 1.5, 1e300, "x"]


def weights(path: Path, header: object, size: int = 8) -> Path:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data + b"\0" * size)
    return path


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        [],
        {"a": []},
        {"a": {}},
        {"a": {**GOOD, "data_offsets": [0, "8"]}},
        {"a": {**GOOD, "data_offsets": 8}},
        {"a": {**GOOD, "data_offsets": [8, 0]}},
        {"a": {**GOOD, "data_offsets": [0, 8, 8]}},
        {"a": {**GOOD, "shape": ["2"]}},
        {"a": {**GOOD, "shape": [-2]}},
        {"a": {**GOOD, "shape": 2}},
        {"a": {**GOOD, "shape": [3]}},
        {"a": {**GOOD, "shape": [2**40] * 16}},
        {"a": {**GOOD, "shape": [1] * 17}},
        {"a": {**GOOD, "dtype": 1}},
        {"a": {"dtype": "F32", "shape": [2]}},
    ],
)
def test_a_header_of_wrong_types_is_one_line(tmp_path: Path, header) -> None:
    path = weights(tmp_path / "x.safetensors", header)
    with pytest.raises(SftscopeError, match=r"x\.safetensors: damaged safetensors file: .*get it again") as refused:
        read_header(path)
    assert len(str(refused.value)) < 500
    assert not is_whole(path)


def test_a_header_is_what_the_library_wrote(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros((0, 4), np.float16)}, path, metadata={"format": "pt"})
    found = read_header(path)
    assert {name: entry.shape for name, entry in found.items()} == {"a": (2, 3), "b": (0, 4)}
    assert is_whole(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_whole(path)


@pytest.mark.parametrize("data", [b"", b"1234567", struct.pack("<Q", 2**63), struct.pack("<Q", 0)])
def test_a_file_too_short_for_its_header_is_not_whole(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    assert not is_whole(tmp_path / "x.safetensors")


def test_a_pipe_that_takes_a_files_place_blocks_nobody(tmp_path: Path) -> None:
    path = pipe(tmp_path / "x")
    with pytest.raises(SftscopeError, match="not a regular file"), opened(path):
        pass
