"""What the reader of a run asks of the training that writes it: one small file, honoured only from the run's owner.

A training that listens says so in `listening.json`. A request is `request.json`, written atomically, readable and
writable by its owner alone; the training takes it away and leaves what came of it in `answer.json`.
"""

import contextlib
import json
import os
import socket
import stat
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sftscope.errors import SftscopeError
from sftscope.store.atomic import is_alive, temporary_beside, write_atomically
from sftscope.store.run_folder import RunFolder
from sftscope.text import safe_text

_MOST_BYTES = 4096


class Request(StrEnum):
    """What can be asked for."""

    STOP = "stop"
    SAVE = "save"


@dataclass(frozen=True)
class Asked:
    """A request with its evidence, safe to show."""

    request: Request
    reason: str


def ask(folder: RunFolder, request: Request, reason: str = "") -> None:
    """Leave a request for the training that writes into `folder`; reason: the evidence, for its log.

    SftscopeError where the run is not one's own, or no training listens to it.
    """
    if why := why_not_asked(folder):
        raise SftscopeError(f"{folder.path}: {why}")
    path = _request_file(folder)
    temporary = temporary_beside(path)
    content = {"request": str(request), "reason": safe_text(reason, max_length=500), "asked": time.time()}
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SftscopeError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


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
    pid = training.get("pid")
    if type(pid) is not int or pid < 1 or (training.get("host") == socket.gethostname() and not is_alive(pid)):
        return "the training that wrote this run has ended"
    return ""


def take(folder: RunFolder) -> Asked | None:
    """The request that waits, taken away; None where there is none.

    SftscopeError for one that is not a plain file of this process's user which others cannot write, or that
    cannot be read: it is taken away as well.
    """
    path = _request_file(folder)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:  # a link, or not readable
        path.unlink(missing_ok=True)
        raise SftscopeError(f"{path}: not a request: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        raw = os.read(descriptor, _MOST_BYTES + 1) if plain else b""
    finally:
        os.close(descriptor)
    with contextlib.suppress(IsADirectoryError, PermissionError):  # it is not honoured all the same
        path.unlink(missing_ok=True)
    if not plain or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise SftscopeError(f"{path}: a request that is not from the owner of this training was not honoured")
    return _parsed(raw, path)


def _parsed(raw: bytes, path: Path) -> Asked:
    try:
        content: Any = json.loads(raw) if len(raw) <= _MOST_BYTES else None
        return Asked(Request(content["request"]), safe_text(str(content.get("reason", "")), max_length=500))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SftscopeError(f"{path}: not a request; expected stop or save") from None


def listen(folder: RunFolder) -> None:
    """Say that this process is a training that honours requests; what was asked before it began is forgotten."""
    _request_file(folder).unlink(missing_ok=True)
    content = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    write_atomically(_listening_file(folder), json.dumps(content).encode())


def stop_listening(folder: RunFolder) -> None:
    """The training is over."""
    _listening_file(folder).unlink(missing_ok=True)
    _request_file(folder).unlink(missing_ok=True)


def listening(folder: RunFolder) -> dict[str, Any] | None:
    """Host and process of the training that listens; None where none does."""
    return _read(_listening_file(folder))


def answer(folder: RunFolder, request: Request, step: int) -> None:
    """Say that a request was honoured at `step`."""
    content = {"request": str(request), "step": step, "at": time.time()}
    write_atomically(folder.path / "answer.json", json.dumps(content).encode())


def read_answer(folder: RunFolder) -> dict[str, Any] | None:
    """What came of the last request: {"request", "step", "at"}; None where there was none."""
    return _read(folder.path / "answer.json")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MOST_BYTES)) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _request_file(folder: RunFolder) -> Path:
    return folder.path / "request.json"


def _listening_file(folder: RunFolder) -> Path:
    return folder.path / "listening.json"
