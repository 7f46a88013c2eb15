"""Who works on what: several processes, on several hosts, may extract one run, each another step.

A claim is a small file next to the results, made by one process, which keeps its time fresh while it works. It only
saves work: results are complete or absent, with or without it. A claim counts for nothing if its process was of this
host and has ended, or if whoever wants it has seen it unchanged for `EXPIRES` seconds of its own monotonic clock:
times are compared for equality only, so that no clock of a host or of a file server has to be right, or to agree with
another. The price: a process that finds the claim of a host that is gone waits `EXPIRES` from its first look on.
Where no claim can be written, there are none.

What it asks of a file system: O_CREAT | O_EXCL that lets one of many win (NFS since version 3), a rename, a hard link
that does not replace (without it a claim put aside by mistake is lost, which costs work done twice), and a change
of a file's time that others see within `EXPIRES` - `_REFRESH` seconds (NFS shows attributes late by up to 60).
"""

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sftscope.files.atomic import folder_time, is_dead, process_name
from sftscope.files.opening import make_folder, open_new, opened
from sftscope.foundation.errors import SftscopeError

EXPIRES = 180.0  # seconds without a sign of life
_REFRESH = 20.0
_POLL = 0.5
_PREFIX = ".sftscope-claim-"
_OVER = "-over"  # how the name of a claim ends that is being put away
_STALE_SECONDS = 24 * 3600  # by the clock of the file system; only for sweeping, so that no clock is this wrong
_MOST_SEEN = 4096

_Stamp = tuple[int, int]  # which file it is, and its time
_seen: dict[Path, tuple[_Stamp, float]] = {}  # claims of others, and since when they have looked so


def claim_name(name: str) -> str:
    """What the file of the claim on `name` is called, for whoever lists its folder."""
    return f"{_PREFIX}{name}"


@contextlib.contextmanager
def claimed(folder: Path, name: str) -> Iterator[bool]:
    """Whether what is called `name` is this process's to work on; given back at the end."""
    file = folder / claim_name(name)
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
    """Remove the claims of processes of this host that have ended, and those of a day ago; returns how many.

    And what a kill leaves in between: a claim without a name in it, and one that was being put away.
    """
    swept = 0
    claims = list(folder.glob(f"{_PREFIX}*"))
    now = folder_time(folder) if claims else None
    for file in claims:
        with contextlib.suppress(OSError):
            owner = _owner(file)
            age = 0.0 if now is None else now - file.lstat().st_mtime
            if age > (_STALE_SECONDS if owner else EXPIRES) or is_dead(owner) or is_dead(_putter(file)):
                file.unlink()
                swept += 1
    return swept


def _take(file: Path, owner: str) -> bool:
    """Make the claim, after one that is over was put away. True too where no claim can be written."""
    for _ in range(2):
        try:
            descriptor = _make(file)
        except FileExistsError:
            over = _over(file)
            if over is None:
                return False
            _put_away(file, over)
            continue
        except OSError:  # no space, read-only: the result itself will say so
            return True
        if not _sign(descriptor, owner):
            with contextlib.suppress(OSError):
                file.unlink()
        return True
    return False


def _make(file: Path) -> int:
    """A new file, opened; its folder too where it is not there yet."""
    try:
        return open_new(file)
    except FileNotFoundError:
        make_folder(file.parent)
        return open_new(file)


def _sign(descriptor: int, owner: str) -> bool:
    """Write the owner into a new claim; whether it is there."""
    try:
        try:
            return os.write(descriptor, owner.encode()) == len(owner)
        finally:
            os.close(descriptor)
    except OSError:
        return False


def _put_away(file: Path, over: _Stamp) -> None:
    """Remove a claim that is over; one that another process has made in the meantime is put back."""
    aside = file.with_name(f"{file.name}-{process_name()}-{secrets.token_hex(4)}{_OVER}")
    with contextlib.suppress(OSError):
        file.rename(aside)
        with contextlib.suppress(OSError):
            if _stamp(aside) != over:
                file.hardlink_to(aside)
        aside.unlink()


def _putter(file: Path) -> str:
    """The process that was putting this claim away; empty for one that is in its place."""
    parts = file.name.removesuffix(_OVER).rsplit("-", 3)  # claim, host, process, token
    return "-".join(parts[1:3]) if file.name.endswith(_OVER) else ""


def _over(file: Path) -> _Stamp | None:
    """The stamp of a claim that counts for nothing; None while it counts, or is gone."""
    stamp, now = _stamp(file), time.monotonic()
    if stamp is None:
        _seen.pop(file, None)
        return None
    if is_dead(_owner(file)):
        return stamp
    known, since = _seen.get(file, (None, now))
    if known == stamp:
        return stamp if now - since > EXPIRES else None
    if len(_seen) >= _MOST_SEEN:
        _seen.clear()
    _seen[file] = stamp, now
    return None


def _stamp(file: Path) -> _Stamp | None:
    try:
        status = file.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _owner(file: Path) -> str:
    try:
        with opened(file) as claim:
            return claim.read(200).decode(errors="replace")
    except (OSError, SftscopeError):
        return ""


def _keep_fresh(file: Path, owner: str, done: threading.Event) -> None:
    while not done.wait(_REFRESH):
        if _owner(file) == owner:
            with contextlib.suppress(OSError):
                os.utime(file, follow_symlinks=False)
