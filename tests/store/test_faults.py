"""Every file operation of the store fails once, in every way; and the power goes out after each of them."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from faults import Fault, PowerLoss, all_faults
from sample_history import write_sample_run
from sftscope.files.atomic import append_line
from sftscope.files.claims import claimed
from sftscope.foundation.errors import SftscopeError
from sftscope.store import RunFolder, write_atomically
from sftscope.store.steps.step_file import to_bytes
from step_records import record

OLD, NEW = record(3), record(3, seed=1)


def write_over(folder: RunFolder) -> None:
    folder.write_step(NEW)


def write_new(folder: RunFolder) -> None:
    folder.write_placebo(NEW)


def write_claimed(folder: RunFolder) -> None:
    with claimed(folder.steps_folder, "step-8"):
        folder.write_step(NEW)


def begin(folder: RunFolder) -> None:
    write_atomically(folder.probes_file, b"probes")
    folder.write_run({"format": 1})


# what is done, and the file that must be old or new then: (its content before, None where there is none; after)
WRITES: dict[str, tuple[Callable[[RunFolder], None], Callable[[RunFolder], Path], bytes | None, bytes]] = {
    "a step over an old one, with a draft": (write_over, lambda f: f.step_file(8), to_bytes(OLD), to_bytes(NEW)),
    "the first file of a folder": (write_new, lambda f: f.placebo_file(8), None, to_bytes(NEW)),
    "a step that is claimed": (write_claimed, lambda f: f.step_file(8), to_bytes(OLD), to_bytes(NEW)),
    "a run that begins": (begin, lambda f: f.run_file, None, b"format = 1\n"),
}


def prepared(path: Path, write: str) -> RunFolder:
    """A fresh run folder in the state before a write."""
    shutil.rmtree(path, ignore_errors=True)
    folder = RunFolder(path)
    folder.steps_folder.mkdir(parents=True)
    _, target, before, _ = WRITES[write]
    if before is not None:
        target(folder).write_bytes(before)
        folder.draft_file(8).write_bytes(to_bytes(replace(OLD, effects=None)))
    return folder


@pytest.mark.parametrize("name", WRITES)
def test_a_write_that_fails_leaves_the_old_state_or_the_new_one(name: str, tmp_path: Path) -> None:
    """Whatever goes wrong where: one clear line, no torn file, and the same command again makes it whole."""
    write, target, before, after = WRITES[name]
    folder = RunFolder(tmp_path / "run")

    def check(fault: Fault, raised: BaseException | None) -> None:
        file = target(folder)
        assert raised is None or isinstance(raised, SftscopeError), (fault, raised)
        now = file.read_bytes() if file.exists() else None
        assert now == after if raised is None else now in (before, after), (fault, raised)
        if raised is not None:
            assert os.strerror(fault.error) in str(raised)
            assert str(folder.path) in str(raised)
        write(folder)
        folder.sweep()
        assert file.read_bytes() == after
        left = [each.name for each in folder.path.rglob(".sftscope*")]
        # only what could not be removed, or a claim that nobody knows of, or whose owner could not be read: it expires
        unread = fault.fired in ("open", "fstat") and all("-claim-" in each for each in left)
        assert not left or unread or fault.fired in ("unlink", "close", "stat") or fault.done_first, (fault, left)

    met = all_faults(lambda: write(folder), lambda: prepared(folder.path, name) and None, check)
    assert met >= 60


@pytest.mark.parametrize("name", WRITES)
def test_the_power_goes_out_after_any_operation(name: str, tmp_path: Path) -> None:
    """What may be on the disk then is old or new, never torn; once the write has returned it is new."""
    write, target, before, after = WRITES[name]
    folder = prepared(tmp_path / "run", name)
    disk = PowerLoss(tmp_path)
    with disk.watching():
        write(folder)
    seen = 0
    for outcome in [each for moment in disk.moments for each in moment]:
        assert outcome.get(target(folder)) in (before, after)
        for path, content in outcome.items():
            if path.suffix in (".h5", ".toml", ".jsonl") and not path.name.startswith("."):
                assert content in (to_bytes(OLD), to_bytes(NEW), to_bytes(replace(OLD, effects=None)), after, b"probes")
        seen += 1
    assert all(outcome.get(target(folder)) == after for outcome in disk.outcomes())
    assert seen >= 40


def test_the_model_of_power_loss_finds_what_is_not_synced(tmp_path: Path) -> None:
    """Without fsync of the file, of its folder, or of the folder above a new one, it tells of torn or lost content."""

    def unsafe(path: Path, *, sync_file: bool, sync_folder: bool) -> list[bytes | None]:
        path.parent.mkdir()
        disk = PowerLoss(tmp_path)
        with disk.watching():
            descriptor = os.open(path.with_name("t"), os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, b"whole")
            if sync_file:
                os.fsync(descriptor)
            path.with_name("t").replace(path)
            if sync_folder:
                os.fsync(os.open(path.parent, os.O_RDONLY))
        return [outcome.get(path) for outcome in disk.outcomes()]

    assert set(unsafe(tmp_path / "a" / "x", sync_file=True, sync_folder=True)) == {b"whole"}
    assert None in unsafe(tmp_path / "b" / "x", sync_file=True, sync_folder=False)
    assert {b"", b"wh", bytes(5)} < set(unsafe(tmp_path / "c" / "x", sync_file=False, sync_folder=True))


READS: dict[str, Callable[[RunFolder], Any]] = {
    "step": lambda folder: folder.read_step(0).scores.tolist(),
    "run": lambda folder: folder.read_run(),
    "probes": lambda folder: folder.read_probes(),
    "log": lambda folder: folder.read_log(),
    "precision": lambda folder: folder.read_precision(),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_that_fails_is_an_error_never_a_wrong_value(name: str, tmp_path: Path) -> None:
    folder = RunFolder(write_sample_run(tmp_path / "run", n_steps=1, n_probes=1, n=3))
    folder.training_log.write_text('{"step": 1}\n')
    folder.precision_file.write_text('{"taken": "float32"}')
    right = READS[name](folder)
    found: list[Any] = []

    def read() -> None:
        found[:] = [READS[name](folder)]

    def check(fault: Fault, raised: BaseException | None) -> None:
        assert isinstance(raised, SftscopeError) if raised is not None else found == [right], (fault, raised)
        assert READS[name](folder) == right

    assert all_faults(read, lambda: None, check) >= 9


def test_a_line_of_the_log_is_never_glued_to_a_torn_one(tmp_path: Path) -> None:
    """Killed in the middle of a line, or failing at any operation: the lines before and after it are whole."""
    folder = RunFolder(tmp_path)

    def check(fault: Fault, raised: BaseException | None) -> None:
        append_line(folder.training_log, json.dumps({"step": 3}))
        steps = [row["step"] for row in folder.read_log()]
        assert steps[0] == 1
        assert steps[-1] == 3
        assert raised is not None or 2 in steps

    met = all_faults(
        lambda: append_line(folder.training_log, json.dumps({"step": 2})),
        lambda: folder.training_log.write_bytes(b'{"step": 1}\n{"st') and None,
        check,
    )
    assert met >= 20
