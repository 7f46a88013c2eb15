"""Files of unknown origin: opened only where they are what they should be, parsed to checked values or to one line."""

import json
import os
import stat
import struct
import tomllib
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from sftscope.files.arrays import read_npy, read_npz
from sftscope.files.atomic import append_line, write_atomically
from sftscope.files.folders import check_files
from sftscope.files.json_text import json_object, parse_json, read_json_object
from sftscope.files.opening import copy_plain, open_to_append, opened, private_folder, read_plain
from sftscope.files.safetensors_header import is_whole, read_header
from sftscope.files.toml_text import parse_toml
from sftscope.foundation.errors import SftscopeError


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


def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process is somebody else, as far as it can tell."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_is_obeyed_is_written_by_its_owner_alone(tmp_path: Path, mode: int, monkeypatch) -> None:
    path = tmp_path / "x"
    append_line(path, "mine", owned=True)
    with opened(path, owned=True) as file:
        assert file.read() == b"mine\n"
    path.chmod(mode)
    for act in (lambda: append_line(path, "more", owned=True), lambda: opened(path, owned=True).__enter__()):
        with pytest.raises(SftscopeError, match="others may write to it, and what it says would be obeyed"):
            act()
    path.chmod(0o644)
    stranger(monkeypatch)
    for act in (lambda: append_line(path, "more", owned=True), lambda: opened(path, owned=True).__enter__()):
        with pytest.raises(SftscopeError, match="belongs to another user"):
            act()
    assert path.read_text() == "mine\n"


def test_what_is_obeyed_has_one_name_and_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("stop")
    (tmp_path / "soft").symlink_to("other")
    (tmp_path / "hard").hardlink_to(tmp_path / "other")
    for name in ("soft", "hard"):
        with pytest.raises((SftscopeError, OSError)), opened(tmp_path / name, owned=True):
            pass


@pytest.mark.parametrize("mask", [0, 0o002, 0o077])
def test_what_is_made_is_never_writable_by_all(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "run" / "steps" / "x", b"1")
        append_line(tmp_path / "run" / "log", "1")
        append_line(tmp_path / "run" / "headlines", "1", owned=True)
        private_folder(tmp_path / "run" / "cluster")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    for path in (tmp_path / "run").rglob("*"):
        assert not path.stat().st_mode & 0o002, path
        assert not path.stat().st_mode & 0o777 & mask, path
    assert (tmp_path / "run" / "cluster").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "run" / "headlines").stat().st_mode & 0o022


def test_a_private_folder_is_ones_own(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to("mine")
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o775)
    for name, expected in (
        ("link", "not a folder of its own"),
        ("file", "not a folder of its own"),
        ("open", "others may write to it"),
    ):
        with pytest.raises(SftscopeError, match=expected):
            private_folder(tmp_path / name)
    private_folder(tmp_path / "mine")
    stranger(monkeypatch)
    with pytest.raises(SftscopeError, match="belongs to another user"):
        private_folder(tmp_path / "mine")


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 50_000 + " = 1",
        "[" + "a" + " . a" * 50_000 + "]",
        '"a"' + "."'"a"' * 50_000 + " = 1",
        "x = " + "[" * 100_000,
        "x = " + "{a=" * 100_000,
        "x = [\n" + "[\n" * 100,
        "a = '" + "x" * 2**20 + "'",
        "a = 1" + "1" * 10_000,
        "=",
    ],
)  # fmt: skip
def test_toml_that_no_config_needs_is_refused_before_it_is_parsed(text: str) -> None:
    with pytest.raises(ValueError, match=r"too many parts|nested too deep|MiB|digits|Invalid"):
        parse_toml(text)


@given(st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=9)
    | st.just("a.b" * 60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=12,
))  # fmt: skip
def test_toml_that_a_writer_made_is_read_as_tomllib_reads_it(value) -> None:
    text = tomli_w.dumps({"x": value})
    assert parse_toml(text) == tomllib.loads(text)


def declared(shape: str) -> bytes:
    """A .npy file whose header declares a shape that it does not have."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"\0" * 64


@pytest.mark.parametrize(
    "data", [declared("(1099511627776,)"), declared("(8, 2)"), declared("('a',)"), declared("(-1,)"), b"", b"\x93NUMPY"]
)
def test_an_array_that_is_larger_than_its_file_is_not_made(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(ValueError, match=r"declares|array|magic|not numbers|not valid"):
        read_npy(tmp_path / "x.npy", 2**20)
    with ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", data)
    with pytest.raises(ValueError, match=r"declares|array|magic|not numbers|not valid"):
        read_npz(tmp_path / "x.npz", 2**20)


def test_an_archive_that_unpacks_to_more_than_allowed_is_not_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(2**20))
    with pytest.raises(ValueError, match="unpacks to more than"):
        read_npz(tmp_path / "x.npz", 2**20)
    assert read_npz(tmp_path / "x.npz", 2**24)["a"].size == 2**20


def test_a_folder_that_a_library_reads_holds_nothing_that_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "in").mkdir()
    check_files(tmp_path, deep=True)
    pipe(tmp_path / "in" / "x.jsonl")
    check_files(tmp_path)
    with pytest.raises(SftscopeError, match=r"x\.jsonl: not a regular file"):
        check_files(tmp_path, deep=True)
    link_to_zero(tmp_path / "b.json")
    with pytest.raises(SftscopeError, match=r"b\.json: not a regular file"):
        check_files(tmp_path)
