"""Step files are opened in a process of their own: HDF5 may crash, hang or fill the memory there, and only there.

One child serves a whole process, file after file, and is replaced when it dies. It gets bytes, no path: while it
reads it cannot open a file, write one, start a process, use more memory than the file's size allows, or outlive its
parent. What it sends back are plain arrays, whose names, types and sizes are checked here again. It runs the modules
of its parent and nothing from the working folder.
"""

import atexit
import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.errors import SftscopeError
from engine.store.step_record import (
    COLUMNS,
    COLUMNS_EFFECTS,
    MAX_STATES,
    PER_PROBE,
    PER_PROBE_EFFECTS,
    Effects,
    StepFileError,
    StepRecord,
)

SPARE_MEMORY = 2**28  # bytes beyond what the process had when it started
_MEMORY_PER_BYTE = 12  # three columns of scores that gzip could not pack, and room for a copy
SECONDS = 10.0  # of computing: the bytes are in memory already
_BYTES_PER_SECOND = 4e6
_MAX_HEADER = 2**26
_PIPE_BYTES = 2**20
_READ, _SALVAGE = "read", "salvage"
_TYPES = {**PER_PROBE, **PER_PROBE_EFFECTS, **COLUMNS, **COLUMNS_EFFECTS}


def read_apart(data: bytes, *, source: str) -> StepRecord:
    """`step_datasets.read_datasets` in the child; StepFileError too where the file brings the child down."""
    return _READER.ask(_READ, data, source)


def salvage_apart(data: bytes, *, source: str) -> StepRecord:
    """`step_datasets.salvage_datasets` in the child."""
    return _READER.ask(_SALVAGE, data, source)


def start_reading() -> None:
    """Start the child now, beside what its parent does until the first file is read."""
    with contextlib.suppress(SftscopeError):  # said when a file is read
        _READER.start()


class _Reader:
    """The child, started when it is first needed; for all threads, one file at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, mode: str, data: bytes, source: str) -> StepRecord:
        with self._lock:
            process = self._running()
            late = threading.Event()

            def kill() -> None:
                late.set()
                process.kill()

            watchdog = threading.Timer(SECONDS + len(data) / _BYTES_PER_SECOND, kill)
            watchdog.daemon = True
            watchdog.start()
            try:
                return _exchange(process, mode, data, source)
            except StepFileError:
                raise
            except (OSError, EOFError, ValueError) as error:
                self.stop()
                ended = "took too long" if late.is_set() else f"ended its reader ({_ending(process)})"
                raise StepFileError(
                    f"{source}: {ended}: a damaged or hostile file, left out; extract this step again"
                ) from error
            except BaseException:  # Ctrl-C in the middle of an answer: the next question needs a fresh child
                self.stop()
                raise
            finally:
                watchdog.cancel()

    def start(self) -> None:
        """Have a child."""
        with self._lock:
            self._running()

    def stop(self) -> None:
        """End the child; not the one of a parent that this process was forked from."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was not sent yet needs no reader any more
                pipe.close()  # type: ignore[union-attr]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.stop()
            self._process, self._owner = _start(), os.getpid()
        return self._process


_READER = _Reader()
atexit.register(_READER.stop)


def _start() -> subprocess.Popen[bytes]:
    """The child, with the parent's module path; the working folder, which may be a stranger's, is not on it."""
    path = [entry for entry in sys.path if Path(entry).is_absolute()]
    code = f"import sys; sys.path[:] = {path!r}; from engine.store.isolation import serve; serve()"
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
    except OSError as error:
        raise SftscopeError(
            f"step files are read in a process of their own, which cannot be started: {error.strerror or error}; "
            "end other processes or raise the limit on processes and memory"
        ) from error
    with contextlib.suppress(OSError, ImportError, AttributeError):  # only Linux has larger pipes; they are faster
        import fcntl

        for pipe in (process.stdin, process.stdout):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[arg-type]
    return process


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.poll()
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _exchange(process: subprocess.Popen[bytes], mode: str, data: bytes, source: str) -> StepRecord:
    """One question and its answer. EOFError or ValueError where the answer is not one."""
    assert process.stdin is not None
    assert process.stdout is not None
    header = {"mode": mode, "size": len(data), "source": source}
    process.stdin.write(json.dumps(header).encode() + b"\n")
    process.stdin.write(data)
    process.stdin.flush()
    answer = _header(process.stdout)
    if "error" in answer:
        raise StepFileError(str(answer["error"]))
    columns = dict(_columns(process.stdout, answer["lengths"]))
    effects = None
    if answer["decomposed"]:
        effects = Effects(**{name: columns.pop(name) for name in (*PER_PROBE_EFFECTS, *COLUMNS_EFFECTS)})
    return StepRecord(
        step=answer["step"],
        effects=effects,
        losses=answer["losses"],
        provenance=answer["provenance"],
        **columns,
    )


def _header(pipe: IO[bytes]) -> dict[str, Any]:
    line = pipe.readline(_MAX_HEADER)
    if not line.endswith(b"\n"):
        raise EOFError
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")
    return content


def _columns(pipe: IO[bytes], lengths: Mapping[str, int]) -> Iterator[tuple[str, Any]]:
    """The columns that follow a header, each as an array of the type that its name has."""
    for name, length in lengths.items():
        if name not in _TYPES or type(length) is not int or not 0 < length <= MAX_STATES:
            raise ValueError("expected a column of a step file")
        column = np.empty(length, dtype=_TYPES[name])
        if pipe.readinto(column.data.cast("B")) != column.nbytes:  # type: ignore[attr-defined]
            raise EOFError
        yield name, column


# In the child.


def serve() -> None:
    """Answer questions until the parent closes the pipe."""
    from engine.store import step_datasets

    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    _warm_up()
    base = _confine()
    while line := questions.readline(_MAX_HEADER):
        question = json.loads(line)
        data = questions.read(question["size"])
        if base:
            _limit_memory(base + SPARE_MEMORY + _MEMORY_PER_BYTE * len(data))
        salvage = question["mode"] == _SALVAGE
        try:
            read = step_datasets.salvage_datasets if salvage else step_datasets.read_datasets
            record = read(data, source=question["source"])
        except StepFileError as error:
            _send(answers, {"error": str(error)})
        except MemoryError:
            _send(answers, {"error": f"{question['source']}: wants more memory than a step file of its size needs"})
        else:
            _send_record(answers, record)
        data = record = b""  # type: ignore[assignment]  # freed before the next one comes


def _send_record(answers: IO[bytes], record: StepRecord) -> None:
    columns: dict[str, Any] = {name: getattr(record, name) for name in (*PER_PROBE, *COLUMNS)}
    if record.effects is not None:
        columns |= {name: getattr(record.effects, name) for name in (*PER_PROBE_EFFECTS, *COLUMNS_EFFECTS)}
    content = {
        "step": record.step,
        "decomposed": record.effects is not None,
        "losses": dict(record.losses),
        "provenance": dict(record.provenance),
        "lengths": {name: column.size for name, column in columns.items()},
    }
    _send(answers, content, *columns.values())


def _send(answers: IO[bytes], content: Mapping[str, Any], *columns: Any) -> None:
    answers.write(json.dumps(content).encode() + b"\n")
    for column in columns:
        answers.write(np.ascontiguousarray(column).data.cast("B"))
    answers.flush()


def _warm_up() -> None:
    """Import what reading imports, while files can still be opened."""
    from engine.store import step_datasets

    with contextlib.suppress(StepFileError):
        step_datasets.read_datasets(b"", source="")


def _confine() -> int:
    """No file, no process and no core dump from here on; returns the address space used so far, in bytes, or 0."""
    statm = Path("/proc/self/statm")  # only Linux has it, and a limit on the address space that holds
    base = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    return base


def _limit_memory(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))
