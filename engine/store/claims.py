"""Who is at work on what: several processes, on several hosts, may extract one run, each another step.

A claim is a small file beside the results, made by one process, which keeps its time fresh while it works. It only
saves work: results are whole or absent, with or without it. A claim of a process of this host that has ended, or one
that nobody refreshed for `EXPIRES` seconds, counts for nothing; both times are those of the file system, so that
clocks of hosts may differ. Where no claim can be written, there are none.
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.store.atomic import folder_time, is_dead, process_name

EXPIRES = 180.0  # seconds without a sign of life
_REFRESH = 20.0
_POLL = 0.5
_PREFIX = ".sftscope-claim-"


@contextlib.contextmanager
def claimed(folder: Path, name: str) -> Iterator[bool]:
    """Whether what is called `name` is this process's to work on; given back at the end."""
    file = folder / f"{_PREFIX}{name}"
    owner = f"{process_name()}-{secrets.token_hex(4)}"
    if not _take(file, owner):
        yield False
        return
    done = threading.Event()
    heart = threading.Thread(target=_keep_fresh, args=(file, owner, done), name=f"sftscope-claim-{name}", daemon=True)
    heart.start()
    try:
        yield True
    finally:
        done.set()
        heart.join()
        if _owner(file) == owner:
            with contextlib.suppress(OSError):
                file.unlink()


@contextlib.contextmanager
def claimed_in_turn(folder: Path, name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """As `claimed`, after whoever has it; `waiting()` is called once if that takes a while."""
    told = False
    while True:
        with claimed(folder, name) as mine:
            if mine:
                yield
                return
        if not told:
            waiting()
            told = True
        time.sleep(_POLL)


def sweep_claims(folder: Path) -> int:
    """Remove the claims that count for nothing; returns how many."""
    swept = 0
    for file in folder.glob(f"{_PREFIX}*"):
        if _is_over(file):
            with contextlib.suppress(OSError):
                file.unlink()
                swept += 1
    return swept


def _take(file: Path, owner: str) -> bool:
    """Make the claim, after one that is over was put away. True too where no claim can be written."""
    for _ in range(2):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            if not _is_over(file):
                return False
            _put_away(file)
            continue
        except OSError:  # no space, read-only: the result itself will say so
            return True
        if not _sign(descriptor, owner):
            with contextlib.suppress(OSError):
                file.unlink()
        return True
    return False


def _sign(descriptor: int, owner: str) -> bool:
    """Write the owner into a new claim; whether it is there."""
    try:
        try:
            return os.write(descriptor, owner.encode()) == len(owner)
        finally:
            os.close(descriptor)
    except OSError:
        return False


def _put_away(file: Path) -> None:
    """Remove a claim that is over; one that another process has made in the meantime is put back."""
    aside = file.with_name(f"{file.name}-{secrets.token_hex(4)}-over")
    with contextlib.suppress(OSError):
        file.rename(aside)
        with contextlib.suppress(OSError):
            if not _is_over(aside):
                file.hardlink_to(aside)
        aside.unlink()


def _is_over(file: Path) -> bool:
    try:
        changed = file.stat().st_mtime
    except OSError:
        return False
    if is_dead(_owner(file)):
        return True
    now = folder_time(file.parent)
    return now is not None and now - changed > EXPIRES


def _owner(file: Path) -> str:
    try:
        return file.read_bytes()[:200].decode(errors="replace")
    except OSError:
        return ""


def _keep_fresh(file: Path, owner: str, done: threading.Event) -> None:
    while not done.wait(_REFRESH):
        if _owner(file) == owner:
            with contextlib.suppress(OSError):
                os.utime(file)
