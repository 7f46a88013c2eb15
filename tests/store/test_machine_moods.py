"""What the machine does while a file is read is never taken for damage: nothing intact is refused, redone or lost."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from breaking_readers import breaking
from damage import damage_scores
from sample_history import write_sample_run
from sftscope.analysis.run.read_run import GrowingHistory, load_history
from sftscope.extraction.blocks import BlockWorker
from sftscope.extraction.zeta import known_zeta
from sftscope.files import opening
from sftscope.files.opening import is_there
from sftscope.foundation import sandbox
from sftscope.foundation.errors import NotReadError
from sftscope.monitor.headline import make_headline
from sftscope.runs import pipeline
from sftscope.scoring.baseline import _read
from sftscope.store import RunFolder, StepFileError, TooSlowError, ownership
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, misnamed_checkpoints
from sftscope.store.steps import sandboxed_reader, step_file
from sftscope.store.steps.sandboxed_reader import read_apart
from sftscope.verification.damage import Finding, Verification
from sftscope.verification.repair import repair
from sftscope.verification.verify import verify
from sftscope_tui.cli import main
from sftscope_tui.contents.background import Done
from sftscope_tui.contents.derived import Derived
from step_records import GOOD, record, same

MOODS = (errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ENOMEM)


def reads(data: bytes = GOOD) -> bool:
    return same(read_apart(data, source="x"), record(3, 11))


def failing_reads(monkeypatch: pytest.MonkeyPatch, error: int, *names: str) -> None:
    """Opening a file with one of these names, or any step file, fails with an error of the system."""
    real = os.open

    def open_or_fail(path, *arguments, **options):
        name = Path(path).name if isinstance(path, (str, os.PathLike)) else ""
        if name in names or (not names and name.endswith(".h5")):
            raise OSError(error, os.strerror(error), str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(opening.os, "open", open_or_fail)


def state_of(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Every file below a folder with its bytes and its time."""
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


def ended_by(number: int) -> str:
    return f"import os; os.kill(os.getpid(), {number})"


def whenever_it_reads(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A reader that does `body` before it reads anything but the nothing that it warms up with."""
    change = f"""
def read_late(data, *, source):
    if data:
        {body}
    return read(data, source=source)
step_datasets.read_datasets = read_late
"""
    breaking(monkeypatch, "pass", at_start=change)


# how a reader fares that is not the file's doing; each with what the error says
def is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    whenever_it_reads(monkeypatch, ended_by(signal.SIGKILL))
    return "was ended by signal 9"


def is_stuck(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    whenever_it_reads(monkeypatch, "import time; time.sleep(1000)")
    monkeypatch.setattr(sandbox, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(sandbox, "STALLED_LOOKS", 4)
    return "neither computed nor answered"


def computes_slowly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    whenever_it_reads(monkeypatch, "sum(range(10**9))")
    monkeypatch.setattr(sandboxed_reader, "SECONDS", 0.05)
    monkeypatch.setattr(sandboxed_reader, "LEAST_SECONDS", 0.05)
    return "of computing"


def has_no_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    return "cannot be started: .*No such file"


def has_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "h5py.py").write_text("raise ImportError('libhdf5.so: \\x1b[2J cannot be mapped')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "path"), *sys.path])
    return "as it started: ImportError: libhdf5.so: .*cannot be mapped"


def cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    failing_reads(monkeypatch, errno.EIO)
    return "Input/output error"


KINDS = (is_killed, is_stuck, computes_slowly, has_no_python, has_no_library, cannot_be_opened)
WITHOUT_READER = (has_no_python, has_no_library)
Mood = Callable[[pytest.MonkeyPatch, Path], str]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(write_sample_run(tmp_path_factory.mktemp("sample") / "run", n_steps=3, n_probes=1, n=3))


@pytest.mark.parametrize("mood", KINDS)
def test_an_intact_run_stays_as_it_is_whatever_the_machine_does(
    mood: Mood, fresh_reader, monkeypatch, tmp_path
) -> None:
    """Whoever reads says "not read"; nothing is called damaged, no advice is given, no byte changes."""
    run = RunFolder(write_sample_run(tmp_path / "run", n_steps=1, n_probes=1, n=3))
    before = state_of(run.path)
    says = mood(monkeypatch, tmp_path)
    with pytest.raises(NotReadError, match=says) as said:
        load_history(run.path)
    assert str(said.value).isprintable()
    assert "sftscope" not in str(said.value)  # no command, least of all one that scores the step again
    if mood in WITHOUT_READER:
        with pytest.raises(NotReadError, match=says):
            verify(run.path)
    else:
        found = verify(run.path)
        assert found.damaged == ("run.toml",)  # the sample's is made up
        assert found.not_read == (f"steps/{run.step_file(0).name}",)
        assert not found.repairable
        assert all("not read: " in each.what and not each.remedy for each in found.findings if each.kind == "note")
    monkeypatch.undo()
    assert state_of(run.path) == before
    assert load_history(run.path).steps.size == 1


def test_zeta_is_not_measured_a_second_time(sample, monkeypatch) -> None:
    """Where a step that has it cannot be read; of another step it is the same."""
    with monkeypatch.context() as patch:
        failing_reads(patch, errno.EIO)
        with pytest.raises(NotReadError):
            known_zeta(sample, None)
    failing_reads(monkeypatch, errno.EIO, sample.step_file(0).name, sample.step_file(1).name)
    assert known_zeta(sample, None)[0] is not None  # of the third


@pytest.mark.parametrize("mood", [is_killed, cannot_be_opened])
def test_extraction_leaves_what_it_cannot_read(mood: Mood, fresh_reader, toy_run, monkeypatch, tmp_path) -> None:
    """Not one step is scored again, written, or dropped; nor its placebo."""
    run = RunFolder(toy_run(extracted=True)[1])
    before = state_of(run.path)
    says = mood(monkeypatch, tmp_path)
    fresh_reader.stop()
    for act in (pipeline.extract, pipeline.placebo):
        with pytest.raises(NotReadError, match=says):
            act(run.path)
    monkeypatch.undo()
    assert state_of(run.path) == before


def test_one_step_that_cannot_be_read_does_not_keep_others_from_being_made(toy_run, monkeypatch, capsys) -> None:
    """What is missing is made with the ζ of what can be read; the command ends with the one that is left."""
    run = RunFolder(toy_run(extracted=True)[1])
    _, second, *_, last = run.steps()
    content, before = run.step_file(last).read_bytes(), state_of(run.steps_folder)
    run.step_file(last).unlink()
    failing_reads(monkeypatch, errno.ESTALE, run.step_file(second).name)
    with pytest.raises(NotReadError, match=f"{run.step_file(second).name}: cannot be read now"):
        pipeline.extract(run.path)
    monkeypatch.undo()
    assert run.step_file(last).read_bytes() == content
    after = state_of(run.steps_folder)
    assert {file: after[file] for file in before if file != run.step_file(last)} == {
        file: before[file] for file in before if file != run.step_file(last)
    }


def test_exit_codes_tell_what_is_not_read_from_what_is_damaged(sample, tmp_path, monkeypatch, capsys) -> None:
    """verify: 0, 1 for damage, 3 where something was not read and nothing else is the matter."""
    codes = {}
    for name, damaged, unread in (("both", True, True), ("unread", False, True)):
        found = Verification(0, (Finding("a", "damaged", "x"),) if damaged else (), (), ("b",) if unread else ())
        monkeypatch.setattr("sftscope.verification.verify.verify", lambda path, found=found: found)
        monkeypatch.setattr(sys, "argv", ["sftscope", "verify", str(sample.path)])
        with pytest.raises(SystemExit) as ended:
            main()
        codes[name] = ended.value.code, capsys.readouterr().err
    assert codes["both"][0] == 1
    assert "1 damaged: a, and 1 not read" in codes["both"][1]
    assert codes["unread"][0] == 3
    assert "not read: b" in codes["unread"][1]


@pytest.mark.parametrize("error", MOODS)
def test_errors_of_the_system_are_no_damage(error: int, sample, monkeypatch) -> None:
    failing_reads(monkeypatch, error)
    with pytest.raises(NotReadError, match="cannot be read now"):
        sample.read_step(1)


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ELOOP, errno.ENXIO])
def test_what_is_no_file_is_refused_for_certain(error: int, sample, monkeypatch) -> None:
    failing_reads(monkeypatch, error)
    with pytest.raises(StepFileError, match="cannot be read"):
        sample.read_step(1)


def test_no_memory_in_this_process_is_no_damage(fresh_reader, sample, monkeypatch) -> None:
    def none(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(step_file, "read_plain", none)
        with pytest.raises(NotReadError, match="not enough memory"):
            sample.read_step(1)
    with monkeypatch.context() as patch:
        patch.setattr(sandboxed_reader, "from_columns", none)
        with pytest.raises(NotReadError, match="not enough memory"):
            sample.read_step(1)
    assert sample.read_step(1).step == 1


LIMITED = "import resource; used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
@pytest.mark.parametrize("wants", ["bytearray(2**26)", "raise step_datasets.StepFileError('unable to allocate')"])
def test_a_low_limit_on_memory_is_no_damage(fresh_reader, monkeypatch, wants: str) -> None:
    """What a file is due and the user's `ulimit -v` does not give, in the words of Python and of HDF5."""
    limit = f"{LIMITED}resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, used + 2**25))"
    breaking(monkeypatch, wants, at_start=limit)
    with pytest.raises(NotReadError, match="short of memory"):
        read_apart(b"bad", source="x")
    assert reads()


def test_a_slow_start_uses_up_nothing(fresh_reader, monkeypatch, tmp_path, capsys) -> None:
    """A library that takes long to be imported, as from a cold network disk; a line says what is waited for."""
    (tmp_path / "h5py.py").write_text(
        f"import sys, time; time.sleep(0.4); sys.path.remove({str(tmp_path)!r}); del sys.modules['h5py']; import h5py"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sandboxed_reader, "SECONDS", 0.1)
    monkeypatch.setattr(sandbox, "SLOW_SECONDS", 0.2)
    assert reads()
    assert "step files are read in a process of their own, which is still starting" in capsys.readouterr().err


def test_a_reader_that_is_stopped_is_waited_for(fresh_reader, monkeypatch) -> None:
    """Ctrl-Z, a debugger, a container that is paused: longer than any allowance, and no try is used up."""
    monkeypatch.setattr(sandboxed_reader, "SECONDS", 0.1)
    monkeypatch.setattr(sandbox, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(sandbox, "STALLED_LOOKS", 4)
    assert reads()
    process = fresh_reader._process
    process.send_signal(signal.SIGSTOP)
    threading.Timer(0.5, process.send_signal, [signal.SIGCONT]).start()
    assert reads()
    assert fresh_reader._process is process
    assert not fresh_reader.late


@pytest.mark.parametrize("body", [ended_by(9), ended_by(15), "import ctypes; ctypes.string_at(0)", "while True: pass"])
def test_what_happened_to_one_reader_is_tried_with_another(fresh_reader, monkeypatch, body: str) -> None:
    """Killed for want of memory, crashed by a bad moment, slow: the second reader has the word."""
    breaking(monkeypatch, body, children=1)
    monkeypatch.setattr(sandboxed_reader, "SECONDS", 0.2)
    with pytest.raises(StepFileError, match="damaged HDF5"):  # what an intact reader says of it
        read_apart(b"bad", source="x")
    assert not fresh_reader.late


def test_a_process_tells_what_it_does() -> None:
    """Asleep, and no more computed than before; None where there is none."""
    mine = sandbox.activity(os.getpid())
    assert mine is not None
    assert not mine.is_asleep
    assert sandbox.activity(2**22 + 1) is None


def test_a_run_that_is_open_shows_a_step_once_it_can_be_read(fresh_reader, sample, monkeypatch) -> None:
    """It is named meanwhile, never dropped in silence, and the rest is read once more only when it is back."""
    growing = GrowingHistory(sample.path)
    growing.look()
    with monkeypatch.context() as patch:
        failing_reads(patch, errno.EIO, sample.step_file(1).name)
        history = growing.read(60)
        assert history.steps.tolist() == [0, 2]
        assert history.not_read == history.left_out
        assert "step_00000001.h5: cannot be read now: Input/output error" in history.not_read[0]
        assert not any(growing.look() for _ in range(5))
        assert growing.refused == history.not_read
    assert any(growing.look() for _ in range(8))
    history = growing.read(60)
    assert history.steps.tolist() == [0, 1, 2]
    assert not history.left_out
    assert not any(growing.look() for _ in range(200))


def test_a_file_that_computes_for_ever_is_not_tried_at_every_look(sample, monkeypatch) -> None:
    growing = GrowingHistory(sample.path)
    real = RunFolder.read_step
    tried = []

    def read(folder, step):
        if step != 1:
            return real(folder, step)
        tried.append(step)
        raise TooSlowError("x.h5: not read: needs over 30 s of computing")

    monkeypatch.setattr(RunFolder, "read_step", read)
    growing.look()
    assert growing.read(60).not_read == ("x.h5: not read: needs over 30 s of computing",)
    assert not any(growing.look() for _ in range(100))
    os.utime(sample.step_file(2))  # all are read again, but for this one
    assert growing.look()
    assert growing.read(60).steps.tolist() == [0, 2]
    assert tried == [1]


def test_there_is_no_headline_of_curves_with_a_gap(sample, monkeypatch, capsys) -> None:
    failing_reads(monkeypatch, errno.EIO, sample.step_file(1).name)
    assert make_headline(sample) is None
    assert "no headline yet" in capsys.readouterr().err
    monkeypatch.undo()
    assert make_headline(sample) is not None


def test_repair_replaces_nothing_where_an_intact_step_may_be_there(toy_run, monkeypatch) -> None:
    """Without one the raw scores become a draft and the step file goes; that is only for a run that has none."""
    run = RunFolder(toy_run(extracted=True)[1])
    damage_scores_not(run.step_file(2))
    before = state_of(run.path)
    failing_reads(monkeypatch, errno.EIO, *(run.step_file(step).name for step in run.steps() if step != 2))
    with pytest.raises(NotReadError):
        repair(run.path)
    monkeypatch.undo()
    assert state_of(run.path) == before


def damage_scores_not(file: Path) -> None:
    """Flip a bit of the file's hash line: all datasets pass their checksums."""
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)


def test_what_is_known_to_be_damaged_gets_no_advice_before_all_of_it_is_known(toy_run, monkeypatch) -> None:
    run = RunFolder(toy_run(extracted=True)[1])
    damage_scores(run.step_file(2))
    monkeypatch.setattr(
        "sftscope.verification.step_checks.salvage_step_file", lambda file: (_ for _ in ()).throw(NotReadError("x"))
    )
    (found,) = verify(run.path).findings
    assert found.kind == "damaged"
    assert "verify again" in found.remedy


@pytest.mark.parametrize("name", ["run.toml", "probes.jsonl", "training_log.jsonl", "baseline_vector.npy"])
def test_other_files_of_a_run_are_not_called_damaged_either(name: str, toy_run, monkeypatch) -> None:
    run = RunFolder(toy_run(extracted=True)[1])
    before = state_of(run.path)
    failing_reads(monkeypatch, errno.EIO, name)
    found = verify(run.path)
    assert found.damaged == ()
    assert name in found.not_read
    assert "not read" in found.as_text()
    use = {"training_log.jsonl": run.read_log, "baseline_vector.npy": lambda: _read(run, 1)}
    with pytest.raises(NotReadError):
        use.get(name, lambda: pipeline.extract(run.path))()
    monkeypatch.undo()
    assert state_of(run.path) == before


def test_a_checkpoint_that_cannot_be_read_is_not_removed(toy_run, monkeypatch) -> None:
    """A training that is resumed removes those that a kill left half-written, and no others."""
    run = RunFolder(toy_run()[1])
    before = state_of(run.checkpoints)
    for name in ("trainer_state.json", "adapter_model.safetensors"):
        failing_reads(monkeypatch, errno.EIO, name)
        with pytest.raises(NotReadError):
            ownership.drop_unfinished(run.checkpoints)
        with pytest.raises(NotReadError):
            Checkpoint(2, run.checkpoints / "checkpoint-2").is_ready()
        monkeypatch.undo()
    assert state_of(run.checkpoints) == before


def test_checkpoints_that_cannot_be_listed_are_not_none(tmp_path, monkeypatch) -> None:
    assert list_checkpoints(tmp_path / "none") == ()

    def iterdir(path):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "iterdir", iterdir)
    for act in (
        lambda: list_checkpoints(tmp_path),
        lambda: misnamed_checkpoints(tmp_path),
        RunFolder(tmp_path).steps,
    ):
        with pytest.raises(NotReadError, match="Stale"):
            act()


def test_a_block_that_cannot_be_read_stays(tmp_path, monkeypatch) -> None:
    """Joined later; one that is damaged goes, and is made again."""
    folder = RunFolder(tmp_path)
    worker = BlockWorker.__new__(BlockWorker)
    worker.work, worker.blocks = SimpleNamespace(folder=folder, provenance={"identity": "a"}), (range(1),)
    folder.blocks_folder(8).mkdir(parents=True)
    block = folder.block_file(8, range(1))
    block.write_bytes(GOOD)
    failing_reads(monkeypatch, errno.EIO)
    with pytest.raises(NotReadError):
        worker.join(8)
    assert block.read_bytes() == GOOD
    monkeypatch.undo()
    assert not worker.join(8)  # has effects: not a block
    assert not block.exists()


def test_whether_a_file_is_there_is_not_guessed(tmp_path, monkeypatch) -> None:
    """`Path.exists` says no for an error of a disk, or raises, as the release of Python goes."""
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "x")
    assert not is_there(tmp_path / "x" / "y")

    def stat(path, **_):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(NotReadError, match="Stale file handle"):
        is_there(tmp_path)
    with pytest.raises(NotReadError):
        RunFolder(tmp_path).exists()


def test_the_explorer_reads_a_raw_step_again_once_a_look_not_once_a_frame(sample, monkeypatch) -> None:
    """Its error stands until it is there, and each frame asks for it."""
    asked = []

    class Loader:
        def request(self, key, job, urgency=None):
            asked.append(key)
            derived.keep(Done(key, job()))

    derived = Derived(load_history(sample.path), Loader())
    with monkeypatch.context() as patch:
        failing_reads(patch, errno.EIO)
        frames = [derived.record(sample, 1) for _ in range(4)]
        derived.try_again()
        frames += [derived.record(sample, 1) for _ in range(4)]
    assert len(asked) == 2
    assert frames[0] is None
    assert all(isinstance(frame, NotReadError) for frame in frames[1:])
    derived.try_again()
    derived.record(sample, 1)
    assert derived.record(sample, 1).step == 1
    derived.try_again()
    assert derived.record(sample, 1).step == 1
    assert len(asked) == 3


def test_a_comparison_says_what_is_missing_from_its_runs(sample, monkeypatch, capsys) -> None:
    failing_reads(monkeypatch, errno.EIO, sample.step_file(1).name)
    monkeypatch.setattr(sys, "argv", ["sftscope", "compare", str(sample.path), str(sample.path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().err.count("left out: steps/step_00000001.h5: cannot be read now") == 2


def test_a_page_that_the_kernel_could_not_read_is_no_damage(fresh_reader, monkeypatch) -> None:
    """SIGBUS, where a library lies on a disk that fails; each fresh child meets it again."""
    breaking(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGBUS)")
    with pytest.raises(NotReadError):
        read_apart(b"bad", source="bad.h5")
