"""Step files are read in a process of their own: what crashes, hangs or fills memory there is one refused file."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from breaking_readers import breaking
from hostile_steps import HOSTILE, forged
from sample_history import write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.foundation.errors import NotReadError
from sftscope.store import RunFolder, StepFileError, TooSlowError, read_step_file
from sftscope.store.steps import sandboxed_reader
from sftscope.store.steps.sandboxed_reader import read_apart
from sftscope.store.steps.step_file import USER_BLOCK, from_bytes, to_bytes
from sftscope.verification.verify import verify
from step_records import GOOD, record, same, sealed

MUTANTS = int(os.environ.get("SFTSCOPE_MUTANTS", "150"))
FLIPS = int(os.environ.get("SFTSCOPE_FLIPS", "2000"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import ctypes; ctypes.string_at(0)", r"ended its process \(signal 11\)"),
        ("import os; os.abort()", r"ended its process \(signal 6\)"),
        ("import os; os.write(1, b'{}' + bytes([10]))", "gave an answer that is none"),
        ("bytearray(2**31)", "more memory"),
        ("x = []\n        while True: x.append(bytearray(2**20))", "more memory"),
    ],
)
def test_a_file_that_breaks_its_reader_is_refused_and_the_next_one_read(fresh_reader, monkeypatch, body, says) -> None:
    breaking(monkeypatch, body)
    assert same(read_apart(GOOD, source="x"), record(3, 11))
    began = time.monotonic()
    with pytest.raises(StepFileError, match=f"bad.h5: .*{says}"):
        read_apart(b"bad", source="bad.h5")
    assert time.monotonic() - began < 30
    assert same(read_apart(GOOD, source="x"), record(3, 11))


def test_a_folder_of_files_that_hang_costs_less_and_less(fresh_reader, monkeypatch) -> None:
    """Each gets half of the one before, the first two a second try with three times as much, none is called damaged."""
    breaking(monkeypatch, "while True: pass")
    monkeypatch.setattr(sandboxed_reader, "SECONDS", 0.2)
    monkeypatch.setattr(sandboxed_reader, "LEAST_SECONDS", 0.02)
    told = []
    for _ in range(5):
        with pytest.raises(TooSlowError, match=r"bad\.h5: not read") as refused:
            read_apart(b"bad", source="bad.h5")
        told.append(str(refused.value).partition("over ")[2].partition(" s of")[0])
    assert told == ["0.6", "0.3", "0.05", "0.025", "0.02"]
    fresh_reader.late = 5000
    monkeypatch.setattr(sandboxed_reader, "LEAST_SECONDS", 5.0)
    assert same(read_apart(GOOD, source="x"), record(3, 11))


@pytest.mark.parametrize(
    "body",
    [
        "open('/etc/hostname').read()",
        "open('made', 'w')",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
        "import os; os.pipe()",
    ],
)
def test_the_reader_reaches_nothing_outside(fresh_reader, monkeypatch, tmp_path, body) -> None:
    """No file, no process, no network, even for code that runs inside it: it ends with an error."""
    monkeypatch.chdir(tmp_path)
    breaking(monkeypatch, body)
    with pytest.raises(StepFileError, match=r"ended its process \(exit code 1\)"):
        read_apart(b"bad", source="x")
    assert not list(tmp_path.iterdir())


def test_what_does_not_break_the_reader_is_told_from_what_does(fresh_reader, monkeypatch) -> None:
    """The tests above can fail: a reader that is not broken says something else."""
    breaking(monkeypatch, "pass")
    with pytest.raises(StepFileError, match="damaged HDF5"):
        read_apart(b"bad", source="x")


def test_modules_in_the_working_folder_are_not_run(fresh_reader, monkeypatch, tmp_path) -> None:
    """A run folder from elsewhere may hold a numpy.py; whoever stands in it runs ours."""
    for name in ("numpy", "h5py", "json", "engine", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", ".", *sys.path])
    assert same(read_apart(GOOD, source="x"), record(3, 11))
    assert not (tmp_path / "ran").exists()


def test_the_reader_ends_with_its_parent(tmp_path: Path) -> None:
    """Killed with SIGKILL the parent leaves no reader behind."""
    (tmp_path / "x.h5").write_bytes(GOOD)
    code = (
        "import sys, time; from pathlib import Path; from sftscope.store import read_step_file;"
        "from sftscope.store.steps import sandboxed_reader;"
        "read_step_file(Path(sys.argv[1])); print(sandboxed_reader._READER._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x.h5")], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    os.kill(child, 0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            break
        if state == "Z":  # ended, and not yet waited for by whoever adopted it
            break
        time.sleep(0.02)
    else:
        pytest.fail("the reader outlived its parent")


def test_a_fork_has_a_reader_of_its_own(fresh_reader, tmp_path: Path) -> None:
    """A process that was forked neither uses nor ends its parent's reader."""
    read_apart(GOOD, source="x")
    pid = fresh_reader._process.pid
    child = os.fork()
    if not child:
        ok = same(read_apart(GOOD, source="x"), record(3, 11)) and fresh_reader._process.pid != pid
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert same(read_apart(GOOD, source="x"), record(3, 11))
    assert fresh_reader._process.pid == pid


def test_threads_share_a_reader(fresh_reader) -> None:
    """Many threads, each gets its own file's content."""
    files = [(seed, to_bytes(record(4, seed=seed))) for seed in range(8)]
    wrong: list[int] = []

    def read(seed: int, data: bytes) -> None:
        for _ in range(10):
            if not same(read_apart(data, source="x"), record(4, seed=seed)):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=each) for each in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_leave_the_reader_alive(name: str, tmp_path: Path) -> None:
    """Refused by the schema, in the sandbox, which reads the next one."""
    path = tmp_path / "step_00000008.h5"
    path.write_bytes(forged(HOSTILE[name]))
    with pytest.raises(StepFileError, match=r"step_00000008\.h5: "):
        read_step_file(path)
    assert same(read_apart(GOOD, source="x"), record(3, 11))


def mutants(count: int, seed: int):
    """Changed bytes, cut and grown bodies, spliced from two files; each under a valid hash."""
    rng = np.random.default_rng(seed)
    bodies = [to_bytes(record(*sizes))[USER_BLOCK:] for sizes in ((3,), (3, 11), (1, 2))]
    for _ in range(count):
        body = bytearray(bodies[rng.integers(len(bodies))])
        match int(rng.integers(5)):
            case 0:
                for position in rng.integers(0, len(body), int(rng.integers(1, 8))):
                    body[position] = int(rng.integers(256))
            case 1:  # the superblock and the root's header, where everything else hangs
                for position in rng.integers(0, min(2048, len(body)), int(rng.integers(1, 4))):
                    body[position] = int(rng.integers(256))
            case 2:
                position = int(rng.integers(0, len(body) - 8))
                body[position : position + 8] = int(rng.integers(0, 2**63)).to_bytes(8, "little")
            case 3:
                del body[int(rng.integers(0, len(body))) :]
            case _:
                other = bodies[rng.integers(len(bodies))]
                start = int(rng.integers(0, min(len(other), len(body)) - 64))
                body[start : start + 64] = other[start : start + 64]
        yield sealed(bytes(body))


def test_mutants_with_a_valid_hash_are_refused_or_read() -> None:
    """No crash, no hang, and what is read keeps the schema; metadata is under HDF5's own checksums."""
    refusals = []
    for mutant in mutants(MUTANTS, seed=7):
        try:
            found = read_apart(mutant, source="x")
        except StepFileError as error:
            refusals.append(str(error))
            continue
        assert np.isfinite(found.scores).all()
        to_bytes(found)
    assert 0 < len(refusals) < MUTANTS
    assert not [said for said in refusals if "its process" in said]


def test_every_flipped_bit_is_detected_or_harmless() -> None:
    """Under the hash every flip is found; under the checksums alone the salvaged scores are right or refused."""
    good, rng = from_bytes(GOOD, source="x"), np.random.default_rng(3)
    for number in range(FLIPS):
        flipped = bytearray(GOOD)
        flipped[int(rng.integers(len(GOOD)))] ^= 1 << int(rng.integers(8))
        with pytest.raises(StepFileError):
            from_bytes(bytes(flipped), source="x")
        if number % 10 == 0:
            try:
                draft = sandboxed_reader.salvage_apart(bytes(flipped), source="x")
            except StepFileError:
                continue
            assert draft.scores.tolist() == good.scores.tolist()
            assert draft.target.tolist() == good.target.tolist()
            assert draft.provenance == good.provenance


def test_a_reader_that_cannot_be_started_is_one_line(fresh_reader, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    folder = RunFolder(tmp_path)
    folder.steps_folder.mkdir()
    folder.step_file(8).write_bytes(GOOD)
    with pytest.raises(NotReadError, match=r"cannot be started: .*none: No such file"):
        folder.read_step(8)


def test_the_filters_of_the_library_are_not_loaded_from_outside(fresh_reader, monkeypatch, tmp_path) -> None:
    """A plugin path in the environment brings no code into the reader for a filter that a file asks for."""
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path))
    (tmp_path / "libh5evil.so").write_bytes(b"\x7fELF")

    def other_filter(file) -> None:
        del file["zeta"]
        space, kind = h5py.h5s.create_simple((2,)), h5py.h5t.IEEE_F64LE
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((2,))
        properties.set_filter(32_768, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(file.id, b"zeta", kind, space, dcpl=properties)

    with pytest.raises(StepFileError, match="unexpected filters"):
        read_apart(forged(other_filter), source="x")


HOSTILE_FILES = sorted((Path(__file__).parent / "hostile").glob("*.h5"))


@pytest.mark.parametrize("file", HOSTILE_FILES, ids=lambda file: file.stem)
def test_files_that_crash_hdf5_are_left_out_of_a_run(file: Path, tmp_path: Path) -> None:
    """Found by fuzzing: each ends a process that opens it with HDF5 2.0. The run's other steps are read."""
    folder = RunFolder(write_sample_run(tmp_path / "run", n_steps=3, n_probes=1, n=3))
    folder.step_file(1).write_bytes(file.read_bytes())
    history = load_history(folder.path)
    assert history.steps.tolist() == [0, 2]
    assert "step_00000001.h5" in history.left_out[0]
    assert verify(folder.path).damaged == ("run.toml", "steps/step_00000001.h5")  # the sample's run.toml is made up
