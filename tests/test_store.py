"""The store: what is written is read back, what is damaged or hostile is refused, old state survives failures."""

import hashlib
import io
import os
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sample_history import sample_record, write_sample_run
from sftscope.files.atomic import sweep_orphans
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.masked_states import every_state, sample_states
from sftscope.store import (
    Effects,
    RunFolder,
    Sample,
    SparseEffects,
    StepFileError,
    StepRecord,
    read_step_file,
    write_atomically,
)
from sftscope.store.steps.step_file import USER_BLOCK, from_bytes, to_bytes
from sftscope.store.steps.step_record import columns_of


def record(*sizes: int, step: int = 8, seed: int = 0, losses: dict[str, float] | None = None) -> StepRecord:
    rng = np.random.default_rng(seed)
    effects = [rng.normal(size=(2, 1 << n)) * (np.arange(1 << n) > 0) for n in sizes]
    return sample_record(step, effects, rng, losses={"train": 1.5, "eval": 2.5} if losses is None else losses)


def sampled_record(*sizes: int, states: int = 20, replicates: int = 2, seed: int = 0) -> StepRecord:
    """A step of sampled masked states; of probes of few words all are there."""
    rng = np.random.default_rng(seed)
    parts = [every_state(n) if 1 << n <= states else sample_states(n, states, seed) for n in sizes]
    counts = rng.integers(0, 5, len(sizes) * (1 + replicates))
    words = np.repeat(np.array(sizes), 1 + replicates).repeat(counts)
    subsets = [int(rng.integers(1, 1 << min(n, 62))) for n in words.tolist()]
    columns = [rng.normal(size=len(sizes)) ** 2 for _ in range(3)]
    return StepRecord(
        step=8,
        n_variables=np.array(sizes, dtype=np.int32),
        target=rng.integers(0, 1000, len(sizes)),
        scores=rng.normal(size=sum(part.subset.size for part in parts)),
        noise=np.full(len(sizes), 1e-6),
        effects=SparseEffects(
            counts,
            rng.integers(0, 2, counts.sum()).astype(np.uint8),
            np.array(subsets, dtype=np.uint64),
            rng.normal(size=counts.sum()),
            *columns,
        ),
        losses={"train": 1.5},
        sample=Sample.of(parts),
    )


@pytest.mark.parametrize("sizes", [(18,), (64, 3, 20), (40, 40)])
def test_a_sampled_record_is_read_back_as_it_was(sizes: tuple[int, ...]) -> None:
    given_record = sampled_record(*sizes)
    data = to_bytes(given_record)
    read = from_bytes(data, source="x")
    for name, column in columns_of(given_record).items():
        assert np.array_equal(columns_of(read)[name], column), name
    assert to_bytes(read) == data
    for p in range(len(sizes)):
        assert np.array_equal(read.states_of(p).subset, given_record.states_of(p).subset)
        blocks = [read.pairs_of(p, replicate).effect.size for replicate in range(3)]
        assert blocks == given_record.effects.n_effects[3 * p : 3 * p + 3].tolist()  # type: ignore[union-attr]


def same(left: StepRecord, right: StepRecord) -> bool:
    names = ("n_variables", "target", "scores", "noise")
    equal = all(np.array_equal(getattr(left, n), getattr(right, n), equal_nan=True) for n in names)
    if left.effects is None or right.effects is None:
        return equal and left.effects is right.effects
    fields = ("and_effects", "or_effects", "zeta", "gap", "objective")
    return equal and all(np.array_equal(getattr(left.effects, n), getattr(right.effects, n)) for n in fields)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 10**11), st.booleans())
def test_a_record_is_read_back_as_it_was(sizes: list[int], step: int, draft: bool) -> None:
    given_record = record(*sizes, step=step)
    if draft:
        given_record = replace(given_record, effects=None)
    read = from_bytes(to_bytes(given_record), source="x")
    assert same(given_record, read)
    assert (read.step, read.losses, read.provenance) == (step, given_record.losses, given_record.provenance)


def test_large_columns_are_packed_and_read_back() -> None:
    big = record(11, 12)
    assert same(big, from_bytes(to_bytes(big), source="x"))


def test_equal_records_give_equal_bytes() -> None:
    assert to_bytes(record(4, 11)) == to_bytes(record(4, 11))
    assert to_bytes(record(4)) != to_bytes(record(4, seed=1))


def test_a_diverged_loss_is_undefined_not_fatal() -> None:
    read = from_bytes(to_bytes(record(3, losses={"train": float("nan"), "eval": float("inf")})), source="x")
    assert all(np.isnan(value) for value in read.losses.values())


def test_noise_may_be_unmeasured_but_scores_must_be_finite() -> None:
    whole = record(3)
    unmeasured = replace(whole, noise=np.full(1, np.nan))
    assert np.isnan(from_bytes(to_bytes(unmeasured), source="x").noise).all()
    with pytest.raises(SftscopeError, match="not finite"):
        to_bytes(replace(whole, scores=np.full(8, np.nan)))


@pytest.mark.parametrize("change", [{"scores": np.zeros(7)}, {"target": np.zeros(2, np.int64)}])
def test_columns_that_do_not_fit_are_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected shape"):
        to_bytes(replace(record(3), **change))


def test_every_flipped_bit_is_detected() -> None:
    data = to_bytes(record(3, 11))
    rng = np.random.default_rng(0)
    positions = np.unique(np.r_[0:120, USER_BLOCK - 4 : USER_BLOCK + 100, rng.integers(0, len(data), 300)])
    for position in positions:
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(StepFileError):
            from_bytes(bytes(flipped), source="x")


def test_every_truncation_is_detected() -> None:
    data = to_bytes(record(3, 11))
    for length in [0, 1, 15, USER_BLOCK - 1, USER_BLOCK, USER_BLOCK + 1, len(data) // 2, len(data) - 1]:
        with pytest.raises(StepFileError):
            from_bytes(data[:length], source="x")
    with pytest.raises(StepFileError):
        from_bytes(data + b"\0", source="x")


def test_a_newer_version_is_refused_by_name() -> None:
    data = to_bytes(record(3))
    with pytest.raises(StepFileError, match="version 3 is newer"):
        from_bytes(data.replace(b"sftscope-step 1", b"sftscope-step 3", 1), source="x")


# Hostile files: valid user block and hash, HDF5 of someone else's making.


def sealed(body: bytes) -> bytes:
    block = f"sftscope-step 1\nsha256 {hashlib.sha256(body).hexdigest()}\n".encode()
    return block.ljust(USER_BLOCK, b"\n") + body


def forged(change: Callable[[Any], None]) -> bytes:
    """A valid step file of two probes, changed by `change(file)`, with the hash made anew."""
    buffer = io.BytesIO(to_bytes(record(3, 11)))
    with h5py.File(buffer, "r+") as file:
        change(file)
    return sealed(buffer.getvalue()[USER_BLOCK:])


def put(file: Any, name: str, data: Any = None, **options: Any) -> None:
    del file[name]
    file.create_dataset(name, data=data, **{"chunks": True, "fletcher32": True, **options})


def soft_link(file: Any) -> None:
    del file["zeta"]
    file["zeta"] = h5py.SoftLink("/gap")


def external_link(file: Any) -> None:
    del file["zeta"]
    file["zeta"] = h5py.ExternalLink("/etc/hostname", "/zeta")


def soft_link_to_external(file: Any) -> None:
    del file["scores"]
    file["scores"] = h5py.SoftLink("/elsewhere/scores")


def virtual_dataset(file: Any) -> None:
    layout = h5py.VirtualLayout(shape=(2,), dtype="<f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(2,))
    del file["zeta"]
    file.create_virtual_dataset("zeta", layout)


def external_storage(file: Any) -> None:
    del file["zeta"]
    file.create_dataset("zeta", shape=(2,), dtype="<f8", external=[("/etc/passwd", 0, 16)])


def huge_declared(name: str, dtype: str, size: int) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        put(file, name, shape=(size,), dtype=dtype, chunks=(65_536,))

    return change


def missing_chunks(file: Any) -> None:
    put(file, "scores", shape=(8 + 2048,), dtype="<f8", chunks=(1024,))


def inflating_chunk(file: Any) -> None:
    """A chunk that says 16 bytes and inflates to 64 MiB."""
    put(file, "zeta", data=np.zeros(2), chunks=(2,), compression="gzip", shuffle=True)
    bomb = zlib.compress(bytes(64 * 2**20), 9) + b"\0\0\0\0"
    file["zeta"].id.write_direct_chunk((0,), bomb)


def small_inflating_chunk(file: Any) -> None:
    put(file, "zeta", data=np.zeros(2), chunks=(2,), compression="gzip", shuffle=True)
    file["zeta"].id.write_direct_chunk((0,), zlib.compress(bytes(17), 9) + b"\0\0\0\0")


def huge_chunk(file: Any) -> None:
    put(file, "zeta", data=np.zeros(2), maxshape=(None,), chunks=(2**20,))


def cyclic_group(file: Any) -> None:
    del file["zeta"]
    group = file.create_group("zeta")
    group["again"] = file["/"]


def many_names(file: Any) -> None:
    for number in range(500):
        file.create_group(f"g{number}")


def meta(text: bytes) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        put(file, "meta", data=np.frombuffer(text, dtype="|u1"))

    return change


def values(name: str, change_values: Callable[[Any], Any], **options: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        put(file, name, data=change_values(file[name][...]), **options)

    return change


def with_nan(array: Any) -> Any:
    array[3 % array.size] = np.nan
    return array


def at_empty_set(array: Any) -> Any:
    array[0] = 1.0
    return array


GOOD_META = b'"losses": {}, "provenance": {}, "stage": "decomposed"'
HOSTILE: dict[str, Callable[[Any], None]] = {
    "soft link": soft_link,
    "external link": external_link,
    "dangling soft link": soft_link_to_external,
    "virtual dataset": virtual_dataset,
    "external storage": external_storage,
    "group for a dataset": cyclic_group,
    "unknown name": lambda file: file.create_dataset("more", data=[1]),
    "missing name": lambda file: file.__delitem__("noise"),
    "many names": many_names,
    "float32": values("scores", lambda a: a.astype("<f4")),
    "big-endian": values("scores", lambda a: a.astype(">f8")),
    "text": values("zeta", lambda a: [b"a", b"b"], fletcher32=False),
    "rank 2": values("scores", lambda a: a.reshape(-1, 8)),
    "scalar": lambda file: put(file, "zeta", data=1.0, chunks=None, fletcher32=False),
    "null space": lambda file: put(file, "zeta", data=h5py.Empty("<f8"), chunks=None, fletcher32=False),
    "too long": values("scores", lambda a: np.r_[a, 0.0]),
    "too short": values("scores", lambda a: a[:-1]),
    "wrong offsets": values("offsets", lambda a: a + 1),
    "n of zero": values("n_variables", lambda a: a * 0),
    "negative n": values("n_variables", lambda a: -a),
    "n of a thousand": values("n_variables", lambda a: a + 1000),
    "no probes": lambda file: put(file, "n_variables", shape=(0,), dtype="<i4", maxshape=(None,)),
    "huge scores": huge_declared("scores", "<f8", 2**40),
    "huge n_variables": huge_declared("n_variables", "<i4", 2**26),
    "huge meta": huge_declared("meta", "|u1", 2**33),
    "missing chunks": missing_chunks,
    "inflating chunk": inflating_chunk,
    "slightly inflating chunk": small_inflating_chunk,
    "huge chunk": huge_chunk,
    "contiguous": lambda file: put(file, "zeta", data=np.zeros(2), chunks=None, fletcher32=False),
    "no checksum": values("zeta", lambda a: a, fletcher32=False),
    "other filter": values("zeta", lambda a: a, compression="lzf"),
    "gzip without shuffle": values("zeta", lambda a: a, compression="gzip"),
    "NaN scores": values("scores", with_nan),
    "NaN effects": values("and_effects", with_nan),
    "infinite zeta": values("zeta", lambda a: a + np.inf),
    "effect at the empty set": values("or_effects", at_empty_set),
    "meta no JSON": meta(b"{"),
    "meta not UTF-8": meta(b"\xff\xfe"),
    "meta a list": meta(b"[]"),
    "meta deep": meta(b"[" * 100_000),
    "meta huge number": meta(b'{"step": ' + b"9" * 5000 + b", " + GOOD_META + b"}"),
    "meta step too big": meta(b'{"step": ' + b"9" * 30 + b", " + GOOD_META + b"}"),
    "meta negative step": meta(b'{"step": -1, ' + GOOD_META + b"}"),
    "meta step true": meta(b'{"step": true, ' + GOOD_META + b"}"),
    "meta losses text": meta(b'{"step": 1, "losses": {"a": "b"}, "provenance": {}, "stage": "decomposed"}'),
    "meta loss too big": meta(
        b'{"step": 1, "losses": {"a": 1' + b"0" * 400 + b'}, "provenance": {}, "stage": "decomposed"}'
    ),
    "meta other stage": meta(b'{"step": 1, "losses": {}, "provenance": {}, "stage": "x"}'),
    "draft with effects": meta(b'{"step": 1, "losses": {}, "provenance": {}, "stage": "scored"}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_without_large_allocation(name: str, tmp_path: Path) -> None:
    path = tmp_path / "step_00000008.h5"
    path.write_bytes(forged(HOSTILE[name]))
    tracemalloc.start()
    try:
        with pytest.raises(StepFileError, match=r"step_00000008\.h5: ") as error:
            read_step_file(path)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert str(error.value).isprintable()


def test_an_unchanged_forgery_is_read() -> None:
    assert same(from_bytes(forged(lambda file: None), source="x"), record(3, 11))


def test_mutants_with_a_valid_hash_raise_or_read(tmp_path: Path) -> None:
    body = to_bytes(record(3))[USER_BLOCK:]
    rng = np.random.default_rng(1)
    for _ in range(100):
        mutant = bytearray(body)
        for position in rng.integers(0, len(body), 3):
            mutant[position] = int(rng.integers(256))
        try:
            from_bytes(sealed(bytes(mutant)), source="x")
        except StepFileError:
            continue


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe.h5", tmp_path / "folder.h5"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder, tmp_path / "none.h5", Path("/dev/zero")):
        with pytest.raises(StepFileError, match=path.name):
            read_step_file(path)


# Atomic writes.


def test_a_write_replaces_the_old_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "open", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_write_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises((SftscopeError, KeyboardInterrupt)) as caught:
            write_atomically(path, b"new")
    if isinstance(error, OSError):
        assert str(path) in str(caught.value)
        assert "No space left" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_orphans_of_dead_writers_are_swept_and_live_ones_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def abandoned(pid: int) -> Path:
        """What a writer with this process number leaves when it is killed before the rename."""
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: pid)
            patch.setattr(os, "replace", lambda source, target: (_ for _ in ()).throw(OSError(5, "killed")))
            patch.setattr(os, "unlink", lambda path: None)
            with pytest.raises(SftscopeError):
                write_atomically(tmp_path / "file", b"half")
        (made,) = [p for p in tmp_path.iterdir() if f"-{pid}-" in p.name]
        return made

    dead, alive = abandoned(2**22 + 1), abandoned(os.getpid())
    host = dead.name.removeprefix(".sftscope-tmp-").partition("-")[0]
    elsewhere = tmp_path / dead.name.replace(host, "0" * 8)
    elsewhere.touch()
    old = tmp_path / dead.name.replace(host, "1" * 8)
    old.touch()
    os.utime(old, (time.time() - 10**6,) * 2)
    result = tmp_path / "step_00000001.h5"
    result.touch()
    assert sweep_orphans(tmp_path) == 2
    assert set(tmp_path.iterdir()) == {alive, elsewhere, result}


# The run folder.


def test_a_run_lists_its_steps_and_reads_them(tmp_path: Path) -> None:
    folder = RunFolder(write_sample_run(tmp_path / "run", n_steps=3, n_probes=2, n=3))
    for name in ("step_00000004.scores.h5", "step_4.h5", "step_000000002.h5", "step_０００００００５.h5", "x", ".tmp"):
        (folder.steps_folder / name).touch()
    assert folder.steps() == (0, 1, 2)
    assert folder.read_step(2).step == 2
    assert folder.exists()
    assert [probe.id for probe in folder.read_probes()] == ["p00", "p01"]
    assert folder.read_targets() == ({"id": 5, "text": "bad"},) * 2


def test_a_step_under_another_name_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(write_sample_run(tmp_path / "run", n_steps=2, n_probes=1, n=2))
    folder.step_file(0).rename(folder.step_file(7))
    with pytest.raises(StepFileError, match="step 7"):
        folder.read_step(7)


def test_a_draft_goes_when_its_result_comes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    result = record(3)
    folder.write_draft(replace(result, effects=None))
    assert folder.read_draft(8).effects is None
    assert folder.steps() == ()
    folder.write_step(result)
    assert not folder.draft_file(8).exists()
    assert same(folder.read_step(8), result)


def test_a_draft_is_no_result_and_a_result_no_draft(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_atomically(folder.step_file(8), to_bytes(replace(record(3), effects=None)))
    write_atomically(folder.draft_file(8), to_bytes(record(3)))
    with pytest.raises(StepFileError, match="results of step 8"):
        folder.read_step(8)
    with pytest.raises(StepFileError, match="raw scores of step 8"):
        folder.read_draft(8)


@pytest.mark.parametrize("content", [None, b"a = [", b"\xff", b"a = " + b"[" * 5000, b"a = " + b"1" * 5000])
def test_a_folder_without_a_readable_run_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(SftscopeError, match=r"not a run folder|cannot be read|not valid TOML"):
        RunFolder(tmp_path).read_run()


def test_the_log_skips_what_is_torn(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_log() == ()
    folder.training_log.write_bytes(
        b'{"step": 1, "loss": 2}\n[]\n{"step": true}\n\xff\n' + b"[" * 5000 + b'\n{"step": 2}\n{"step": 3'
    )
    assert [row["step"] for row in folder.read_log()] == [1, 2]


def test_targets_of_the_wrong_kind_are_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.probes_file.write_text('{"target": {"id": "x"}}\n{"target": {"id": 1, "text": 2}}\n[]\n{"target": 3}\n')
    assert folder.read_targets() == ({}, {}, {}, {})


def test_a_pipe_in_place_of_the_probes_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "probes.jsonl")
    with pytest.raises(SftscopeError, match="not a regular file"):
        RunFolder(tmp_path).read_probes()


def test_effects_are_kept_apart_from_drafts() -> None:
    assert isinstance(from_bytes(to_bytes(record(2)), source="x").effects, Effects)
