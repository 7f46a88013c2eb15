"""Opening a file that may be a pipe, a device, a link, far too large, or another user's.

What is obeyed or executed is `owned`: of this user, with one name, writable by no one else. A stranger who may write
into the folder can replace such a file or its folder, but cannot make one that is ours.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from sftscope.foundation.errors import NotReadError, SftscopeError

MAX_TEXT_BYTES = 2**28  # run.toml, probes, a log, training rows
NEW_MODE, FOLDER_MODE = 0o664, 0o775  # the umask takes more away; never writable by all, whatever it is
OWNED_MODE = 0o644
_CHUNK = 2**22
# what a path is, now and later: nothing, a circle of links, a folder, a socket; all other failures may pass
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO, errno.ENODEV)


@contextmanager
def opened(
    path: Path, limit: int | None = None, *, within: Path | None = None, owned: bool = False
) -> Iterator[BufferedReader]:
    """The regular file at `path`, open for reading; OSError as `open` raises it.

    SftscopeError where it is a folder, a pipe (it would block) or a device (it never ends), where it has more than
    `limit` bytes, where it is a link to something outside `within`, and, with `owned`, where another user could have
    written it.
    """
    if within is not None:
        path = _inside(path, within)
    # not blocked by a pipe that takes the file's place after a look at it
    links = os.O_NOFOLLOW if within or owned else 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | links)
    with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor has no path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SftscopeError(f"{path}: not a regular file")
        if owned:
            _check_owned(path, status)
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


def copy_plain(source: Path, target: Path, limit: int | None = None, *, within: Path | None = None) -> None:
    """Copy a regular file of at most `limit` bytes to a new one, synced to the disk; at most what it had when opened.

    The copy can be read by no one who cannot read the source. FileExistsError where there is a `target`.
    """
    with opened(source, limit, within=within) as reading:
        status = os.fstat(reading.fileno())
        mode = stat.S_IMODE(status.st_mode) & 0o666 | 0o600
        with open(open_new(target, mode), "wb") as writing:
            left = status.st_size
            while left and (part := reading.read(min(_CHUNK, left))):
                writing.write(part)
                left -= len(part)
            writing.flush()
            os.fsync(writing.fileno())


def open_to_append(path: Path, *, owned: bool = False) -> int:
    """A descriptor that appends to the regular file at `path`, made where there is none.

    OSError where it is a link (ELOOP) or cannot be opened, SftscopeError where it is no regular file, and, with
    `owned`, where another user could have written it.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, OWNED_MODE if owned else NEW_MODE)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise SftscopeError(f"{path}: not a regular file with one name; move it away")
        if owned:
            _check_owned(path, status)
    except BaseException:  # refused, or Ctrl-C: no descriptor is left open; raised again
        os.close(descriptor)
        raise
    return descriptor


def open_new(path: Path, mode: int = NEW_MODE) -> int:
    """A descriptor that writes to a new file; FileExistsError where there is anything at `path`, a link too."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


def make_folder(path: Path) -> list[Path]:
    """Make `path` and those above it that are missing, never writable by all; returns those, the innermost first."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another writer was faster
            each.mkdir(FOLDER_MODE)
    return missing


def private_folder(path: Path) -> Path:
    """The folder `path`, in which only this user may write; made where there is none.

    For what is executed or obeyed later. SftscopeError where it is a link, of another user, or writable by others.
    """
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o700)
    os.close(open_private_folder(path))
    return path


def open_private_folder(path: Path) -> int:
    """A descriptor of the folder `path`, after the checks of `private_folder`: what it leads to stays what it is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        reason = "not a folder of its own" if error.errno in (errno.ELOOP, errno.ENOTDIR) else error.strerror
        raise SftscopeError(f"{path}: {reason}; move it away") from None
    try:
        _check_owned(path, os.fstat(descriptor), folder=True)
    except BaseException:  # refused, or Ctrl-C: no descriptor is left open; raised again
        os.close(descriptor)
        raise
    return descriptor


def open_to_readers(folder: Path) -> None:
    """Let others read a folder of `private_folder` as the umask allows, and its owner alone write to it."""
    os.umask(mask := os.umask(0o077))
    folder.chmod(0o755 & ~mask)


def _check_owned(path: Path, status: os.stat_result, *, folder: bool = False) -> None:
    """SftscopeError where another user could have written what has this `status`."""
    if status.st_uid != os.geteuid():
        raise SftscopeError(f"{path}: belongs to another user, and what it says would be obeyed; move it away")
    if status.st_mode & 0o022:
        raise SftscopeError(f"{path}: others may write to it, and what it says would be obeyed; chmod go-w, or move it")
    if not folder and status.st_nlink > 1:
        raise SftscopeError(f"{path}: has a second name, and what it says would be obeyed; move it away")


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
