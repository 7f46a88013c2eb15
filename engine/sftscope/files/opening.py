"""Opening a file that may be a pipe, a device, a link or far too large."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sftscope.errors import NotReadError, SftscopeError

MAX_TEXT_BYTES = 2**28  # run.toml, probes, a log, training rows
_CHUNK = 2**22
# what a path is, now and later: nothing, a circle of links, a folder, a socket; all other failures may pass
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO, errno.ENODEV)


@contextmanager
def opened(path: Path, limit: int | None = None, *, within: Path | None = None) -> Iterator[BinaryIO]:
    """The regular file at `path`, open for reading; OSError as `open` raises it.

    SftscopeError where it is a folder, a pipe (it would block) or a device (it never ends), where it has more than
    `limit` bytes, and where it is a link to something outside `within`.
    """
    if within is not None:
        path = _inside(path, within)
    # not blocked by a pipe that takes the file's place after a look at it
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if within else 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor has no path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SftscopeError(f"{path}: not a regular file")
        if limit is not None and status.st_size > limit:
            raise SftscopeError(f"{path}: has {status.st_size} bytes, more than the {limit} allowed here")
        yield file


def read_plain(path: Path, limit: int = MAX_TEXT_BYTES, *, within: Path | None = None) -> bytes:
    """The bytes of the regular file at `path`; errors as `opened`."""
    with opened(path, limit, within=within) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # not `limit`: that many bytes would be set aside


def failed_to_read(path: Path, error: OSError | MemoryError) -> SftscopeError:
    """The error to raise for one of reading `path`: NotReadError unless there is no file that could ever be read."""
    if isinstance(error, MemoryError):
        return NotReadError(f"{path}: cannot be read now: not enough memory; free some and try again")
    if error.errno in _NO_FILE:
        return SftscopeError(f"{path}: cannot be read: {error.strerror or error}")
    return NotReadError(f"{path}: cannot be read now: {error.strerror or error}; try again when that is fixed")


def raise_if_not_read(path: Path, error: Exception) -> None:
    """Raise NotReadError where `error` says nothing of the content of `path`; what returns does."""
    refused = failed_to_read(path, error) if isinstance(error, (OSError, MemoryError)) else error
    if isinstance(refused, NotReadError):
        raise refused from error


def is_there(path: Path) -> bool:
    """Whether `path` leads to anything; NotReadError where that cannot be determined now, unlike `Path.exists`."""
    try:
        path.stat()
    except OSError as error:
        if error.errno in _NO_FILE:
            return False
        raise failed_to_read(path, error) from error
    return True


def is_plain(path: Path) -> bool:
    """Whether `path` leads to a regular file; False where that cannot be determined."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def copy_plain(source: Path, target: Path, *, within: Path | None = None) -> None:
    """Copy a regular file to a new one, synced to the disk; at most what it had when it was opened.

    The copy can be read by no one who cannot read the source. FileExistsError where there is a `target`.
    """
    with opened(source, within=within) as reading:
        status = os.fstat(reading.fileno())
        mode = stat.S_IMODE(status.st_mode) & 0o666 | 0o600
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as writing:  # noqa: PTH123  # a descriptor has no path
            left = status.st_size
            while left and (part := reading.read(min(_CHUNK, left))):
                writing.write(part)
                left -= len(part)
            writing.flush()
            os.fsync(writing.fileno())


def open_to_append(path: Path) -> int:
    """A descriptor that appends to the regular file at `path`, made where there is none.

    OSError where it is a link (ELOOP) or cannot be opened, SftscopeError where it is no regular file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise SftscopeError(f"{path}: not a regular file with one name; move it away")
    return descriptor


def _inside(path: Path, folder: Path) -> Path:
    """`path` with its links followed; SftscopeError where that leads out of `folder`."""
    real, root = path.resolve(strict=True), folder.resolve()
    if not real.is_relative_to(_cache_root(root)):
        raise SftscopeError(f"{path}: is a link that leads out of {folder}; put the file itself there")
    return real


def _cache_root(folder: Path) -> Path:
    """The folder that links within may not leave: of a snapshot in the hub's cache, the repository with its blobs."""
    for each in (folder, *folder.parents):
        if each.parent.name == "snapshots" and each.parent.parent.name.startswith("models--"):
            return each.parent.parent
    return folder
