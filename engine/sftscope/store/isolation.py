"""Step files are opened in a process of their own: HDF5 may crash, hang or fill the memory there, and only there.

One child serves a whole process, file after file, and is replaced when it dies. It gets bytes, no path: while it
reads it cannot open a file, write one, start a process, use more memory than the file's size allows, or outlive its
parent. What it sends back are plain arrays, whose names, types and sizes are checked here again. It runs the modules
of its parent and nothing from the working folder.
"""

import contextlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from sftscope.child import Child, ChildEndedError, confine, limit_memory
from sftscope.errors import SftscopeError
from sftscope.store.step_record import MAX_STATES, TYPES, StepFileError, StepRecord, columns_of, from_columns

SPARE_MEMORY = 2**28  # bytes beyond what the process had when it started
_MEMORY_PER_BYTE = 12  # three columns of scores that gzip could not pack, and room for a copy
SECONDS, LEAST_SECONDS = 10.0, 1.0  # of computing: the bytes are in memory already
_BYTES_PER_SECOND = 4e6
_MAX_HEADER = 2**26
_READ, _SALVAGE = "read", "salvage"


def read_apart(data: bytes, *, source: str) -> StepRecord:
    """`step_datasets.read_datasets` in the child; StepFileError too where the file brings the child down."""
    return _ask(_READ, data, source)


def salvage_apart(data: bytes, *, source: str) -> StepRecord:
    """`step_datasets.salvage_datasets` in the child."""
    return _ask(_SALVAGE, data, source)


def start_reading() -> None:
    """Start the child now, beside what its parent does until the first file is read."""
    with contextlib.suppress(SftscopeError):  # said when a file is read
        _READER.start()


def _ask(mode: str, data: bytes, source: str) -> StepRecord:
    try:
        return _READER.ask(
            lambda process: _exchange(process, mode, data, source), _patience(len(data)), passes=StepFileError
        )
    except ChildEndedError as error:
        raise StepFileError(
            f"{source}: {error}: a damaged or hostile file, left out; extract this step again"
        ) from error


def _patience(size: int) -> float:
    """Seconds that a file of `size` bytes may take: half as many after each that took too long.

    A folder of files that hang would otherwise cost 10 s each; a file that is right takes milliseconds.
    """
    return max(SECONDS * 0.5**_READER.late, LEAST_SECONDS) + size / _BYTES_PER_SECOND


_READER = Child("sftscope.store.isolation", "step files are read")


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
    return from_columns(columns, step=answer["step"], losses=answer["losses"], provenance=answer["provenance"])


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
        if name not in TYPES or type(length) is not int or not 0 < length <= MAX_STATES:
            raise ValueError("expected a column of a step file")
        column = np.empty(length, dtype=TYPES[name])
        if pipe.readinto(column.data.cast("B")) != column.nbytes:  # type: ignore[attr-defined]
            raise EOFError
        yield name, column


# In the child.


def serve() -> None:
    """Answer questions until the parent closes the pipe."""
    from sftscope.store import step_datasets

    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    _warm_up()
    base = confine()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # nor any file
    while line := questions.readline(_MAX_HEADER):
        question = json.loads(line)
        data = questions.read(question["size"])
        if base:
            limit_memory(base + SPARE_MEMORY + _MEMORY_PER_BYTE * len(data))
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
    columns = columns_of(record)
    content = {
        "step": record.step,
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
    from sftscope.store import step_datasets

    with contextlib.suppress(StepFileError):
        step_datasets.read_datasets(b"", source="")
