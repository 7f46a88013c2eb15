"""What the reader of a run asks of the training that writes it: one small file, honoured only from the run's owner.

A training that listens says so in `listening.json`. A request is `request.json`, written atomically, readable and
writable by its owner alone; the training takes it away and leaves what came of it in `answer.json`, which the next
request takes away.
"""

import contextlib
import json
import os
import socket
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sftscope.files.atomic import is_alive, write_atomically
from sftscope.files.json_text import count, json_object, read_json_object
from sftscope.files.opening import opened
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.store.run_folder import RunFolder

_MOST_BYTES = 4096
_MOST_PID = 2**31 - 1


class Request(StrEnum):
    """What can be asked for."""

    STOP = "stop"
    SAVE = "save"


@dataclass(frozen=True)
class Asked:
    """A request with its evidence, safe to show."""

    request: Request
    reason: str


@dataclass(frozen=True)
class Listening:
    """A training that honours requests; pid: 0 where the file names none that can be."""

    host: str
    pid: int


@dataclass(frozen=True)
class Answered:
    """A request that was honoured, and at which step."""

    request: Request
    step: int


def ask(folder: RunFolder, request: Request, reason: str = "") -> None:
    """Leave a request for the training that writes into `folder`; reason: the evidence, for its log.

    SftscopeError where the run is not one's own, or no training listens to it.
    """
    if why := why_not_asked(folder):
        raise SftscopeError(f"{folder.path}: {why}")
    _answer_file(folder).unlink(missing_ok=True)  # of an earlier request
    content = {"request": str(request), "reason": safe_text(reason, max_length=500), "asked": time.time()}
    write_atomically(_request_file(folder), json.dumps(content).encode(), lasting=False, mode=0o600)


def why_not_asked(folder: RunFolder) -> str:
    """Why a request to this run would be of no use, in a few words; empty where one can be made."""
    try:
        owner = folder.path.stat().st_uid
    except OSError:
        return "no such run"
    if owner != os.geteuid():
        return "belongs to another user; only its owner can ask its training for something"
    training = listening(folder)
    if training is None:
        return "no training listens to this run (SftscopeCallback does)"
    if training.pid < 1 or (training.host == socket.gethostname() and not is_alive(training.pid)):
        return "the training that wrote this run has ended"
    return ""


def take(folder: RunFolder) -> Asked | None:
    """The request that waits, taken away; None where there is none.

    SftscopeError for one that is not a plain file of this process's user which others cannot write, or that
    cannot be read: it is taken away as well.
    """
    path = _request_file(folder)
    try:
        with opened(path, owned=True) as file:
            raw = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:  # a link, or not readable
        raise SftscopeError(f"{path}: not a request: {error.strerror}") from None
    except SftscopeError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise SftscopeError(
            f"{path}: a request that is not from the owner of this training was not honoured: {reason}"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # a folder: it is not honoured all the same
            path.unlink(missing_ok=True)
    return _parsed(raw, path)


def _parsed(raw: bytes, path: Path) -> Asked:
    try:
        content = json_object(raw) if len(raw) <= _MOST_BYTES else {}
        request, reason = Request(str(content.get("request"))), content.get("reason")
    except ValueError:
        raise SftscopeError(f"{path}: not a request; expected stop or save") from None
    return Asked(request, safe_text(reason, max_length=500) if isinstance(reason, str) else "")


def listen(folder: RunFolder) -> None:
    """Say that this process is a training that honours requests; what was asked before it began is forgotten."""
    _request_file(folder).unlink(missing_ok=True)
    content = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    write_atomically(_listening_file(folder), json.dumps(content).encode())


def stop_listening(folder: RunFolder) -> None:
    """The training is over."""
    _listening_file(folder).unlink(missing_ok=True)
    _request_file(folder).unlink(missing_ok=True)


def listening(folder: RunFolder) -> Listening | None:
    """Host and process of the training that listens; None where none does."""
    content = _read(_listening_file(folder))
    if content is None:
        return None
    host = content.get("host")
    return Listening(host if isinstance(host, str) else "", count(content.get("pid"), _MOST_PID) or 0)


def answer(folder: RunFolder, request: Request, step: int) -> None:
    """Say that a request was honoured at `step`."""
    content = {"request": str(request), "step": step, "at": time.time()}
    write_atomically(_answer_file(folder), json.dumps(content).encode())


def read_answer(folder: RunFolder) -> Answered | None:
    """What came of the last request; None where there was none, or it waits."""
    content = _read(_answer_file(folder)) or {}
    request, step = content.get("request"), count(content.get("step"))
    return Answered(Request(request), step) if request in list(Request) and step is not None else None


def outcome(folder: RunFolder) -> str:
    """What came of the request that was made last, in a few words; empty while it waits."""
    over = why_not_asked(folder)  # looked at first: no answer comes after it
    answered = read_answer(folder)
    if answered is None:
        return f"not done: {over}" if over else ""
    done = "saved at" if answered.request is Request.SAVE else "stopping at"
    return f"the training answers: {done} step {answered.step}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_json_object(path, _MOST_BYTES)
    except (OSError, SftscopeError):
        return None


def _request_file(folder: RunFolder) -> Path:
    return folder.path / "request.json"


def _listening_file(folder: RunFolder) -> Path:
    return folder.path / "listening.json"


def _answer_file(folder: RunFolder) -> Path:
    return folder.path / "answer.json"
