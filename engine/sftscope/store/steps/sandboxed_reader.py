"""Step files are opened in a process of their own: HDF5 may crash, hang or fill the memory there, and only there.

One child serves a whole process, file after file, and is replaced when it dies. It gets bytes, no path: while it
reads it cannot open a file, write one, start a process, use more memory than the file's size allows, or outlive its
parent. What it sends back are plain arrays, whose names, types and sizes are checked here again. It runs the modules
of its parent and nothing from the working folder.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.sandbox import (
    Child,
    ChildEndedError,
    Ending,
    computing,
    confine,
    is_machine_short,
    limit_memory,
    ready,
    receive,
)
from sftscope.store.steps.step_record import (
    MAX_STATES,
    TYPES,
    NoReaderError,
    StepFileError,
    StepRecord,
    TooSlowError,
    columns_of,
    from_columns,
)

SPARE_MEMORY = 2**28  # bytes beyond what the process had when it started
_MEMORY_PER_BYTE = 12  # three columns of scores that gzip could not pack, and room for a copy
SECONDS, LEAST_SECONDS = 10.0, 1.0  # of computing, not of the clock: a file that is right takes milliseconds
GENEROUS, GENEROUS_TO = 3.0, 2  # a file gets that many times as much, once; the first files that need it
_BYTES_PER_SECOND = 4e6
_MAX_HEADER = 2**26
_LEAST_ADDRESSES = 2**30  # that the child takes itself
_READ, _SALVAGE = "read", "salvage"


def read_apart(data: bytes, *, source: str) -> StepRecord:
    """`step_datasets.read_datasets` in the child; StepFileError too where the file brings the child down.

    NotReadError where the machine did, TooSlowError where the file needs more computing than any should.
    """
    return _ask(_READ, data, source)


def salvage_apart(data: bytes, *, source: str) -> StepRecord:
    """`step_datasets.salvage_datasets` in the child."""
    return _ask(_SALVAGE, data, source)


def start_reading() -> None:
    """Start the child now, while its parent does other things until the first file is read."""
    with contextlib.suppress(ChildEndedError):  # said when a file is read
        _READER.start()


def _ask(mode: str, data: bytes, source: str) -> StepRecord:
    try:
        return _READER.ask(
            lambda process, seconds: _exchange(process, mode, data, source, seconds),
            _allowance(len(data)),
            passes=SftscopeError,
        )
    except ChildEndedError as error:
        if error.how is Ending.SPENT:
            raise TooSlowError(
                f"{source}: not read: {error}, thousands of times what a step file takes; it is left as it is, "
                "move it away to have the step extracted again"
            ) from error
        if error.how is Ending.NOT_STARTED:
            raise NoReaderError(
                f"{source}: not read: step files are read in a process of their own, which {error}"
            ) from error
        if error.how is Ending.MACHINE or _is_limited(len(data)):
            raise NotReadError(
                f"{source}: not read: the process for it {error}; the file may be intact, try again"
            ) from error
        raise StepFileError(
            f"{source}: {error}: a damaged or hostile file, left out; extract this step again"
        ) from error
    except MemoryError as error:
        raise NotReadError(f"{source}: not read: not enough memory; free some and try again") from error


def _allowance(size: int) -> tuple[float, ...]:
    """Seconds of computing that a file of `size` bytes may take, at the first try and at the next.

    Half as many after each file that needed more, and no second try after the first of them: a folder of files that
    hang would otherwise cost 40 s each.
    """
    late = _READER.late
    seconds = max(SECONDS * 0.5 ** min(late, 64), LEAST_SECONDS) + size / _BYTES_PER_SECOND
    return (seconds, GENEROUS * seconds) if late < GENEROUS_TO else (seconds,)


def _is_limited(size: int) -> bool:
    """Whether the user's limit on memory (`ulimit -v`) may be why a child crashed that was given `size` bytes."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    return hard != resource.RLIM_INFINITY and hard < _LEAST_ADDRESSES + _due(size)


def _due(size: int) -> int:
    """Bytes that a file of `size` bytes may take."""
    return SPARE_MEMORY + _MEMORY_PER_BYTE * size


_READER = Child("sftscope.store.steps.sandboxed_reader", "step files are read")


def _exchange(process: subprocess.Popen[bytes], mode: str, data: bytes, source: str, seconds: float) -> StepRecord:
    """One question and its answer. EOFError, ValueError or LookupError where the answer is not one."""
    assert process.stdin is not None
    assert process.stdout is not None
    header = {"mode": mode, "size": len(data), "source": source, "seconds": seconds}
    process.stdin.write(json.dumps(header).encode() + b"\n")
    process.stdin.write(data)
    process.stdin.flush()
    answer = receive(process.stdout, _MAX_HEADER)
    if "short" in answer:
        raise NotReadError(f"{source}: not read: the machine is short of memory; free some and try again")
    if "error" in answer:
        raise StepFileError(str(answer["error"]))
    columns = dict(_columns(process.stdout, answer["lengths"]))
    return from_columns(columns, step=answer["step"], losses=answer["losses"], provenance=answer["provenance"])


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
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    _warm_up()
    base = confine()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # nor any file
    ready()
    while line := questions.readline(_MAX_HEADER):
        question = json.loads(line)
        due = _due(question["size"])
        if base:
            limit_memory(base + due)
        try:
            data = questions.read(question["size"])
        except MemoryError:  # never for our limit, and what is left in the pipe looks like a question
            os.kill(os.getpid(), signal.SIGTERM)
            raise
        content, columns = _answer(data, question)
        if "error" in content and is_machine_short(due):  # HDF5 has many words for a lack of memory
            content = {"short": True}
        _send(answers, content, *columns)
        data, content, columns = b"", {}, ()  # freed before the next one comes


def _answer(data: bytes, question: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Any, ...]]:
    """What is answered, and the columns that follow."""
    try:
        with computing(question["seconds"]):
            return _read(data, question)
    except MemoryError:
        return {"error": f"{question['source']}: wants more memory than a step file of its size needs"}, ()


def _read(data: bytes, question: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Any, ...]]:
    from sftscope.store.steps import step_reader

    try:
        salvage = question["mode"] == _SALVAGE
        read = step_reader.salvage_datasets if salvage else step_reader.read_datasets
        record = read(data, source=question["source"])
    except StepFileError as error:
        return {"error": str(error)}, ()
    columns = columns_of(record)
    content = {
        "step": record.step,
        "losses": dict(record.losses),
        "provenance": dict(record.provenance),
        "lengths": {name: column.size for name, column in columns.items()},
    }
    return content, tuple(columns.values())


def _send(answers: IO[bytes], content: Mapping[str, Any], *columns: Any) -> None:
    answers.write(json.dumps(content).encode() + b"\n")
    for column in columns:
        answers.write(np.ascontiguousarray(column).data.cast("B"))
    answers.flush()


def _warm_up() -> None:
    """Import what reading imports, while files can still be opened."""
    from sftscope.store.steps import step_reader

    with contextlib.suppress(StepFileError):
        step_reader.read_datasets(b"", source="")
