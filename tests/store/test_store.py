"""The store: what is written is read back, what is damaged or hostile is refused, old state survives failures."""

import os
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_steps import HOSTILE, forged
from sample_history import write_sample_run
from sftscope.files.atomic import sweep_orphans
from sftscope.foundation.errors import SftscopeError
from sftscope.store import (
    Effects,
    RunFolder,
    StepFileError,
    read_step_file,
    write_atomically,
)
from sftscope.store.steps.step_file import USER_BLOCK, from_bytes, to_bytes
from sftscope.store.steps.step_record import columns_of
from step_records import record, same, sampled_record, sealed


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
