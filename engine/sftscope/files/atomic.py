"""Files that are complete or absent: written under a temporary name, synced, renamed into place.

HDF5 never touches the disk while it builds a file; killed writers leave at most a temporary file,
which the next writer of the same file, or of the run, sweeps. Their names carry host and process, because several
hosts may write into one shared folder; ages are measured by the clock of the file system, which all share.
Nothing is buffered: each operation is one call of `os`, so that tests can make each of them fail.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
from functools import cache
from pathlib import Path

from sftscope.files.opening import NEW_MODE, make_folder, open_new, open_to_append
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import whole_number

_TEMPORARY = ".sftscope-tmp-"
_TEMPORARY_NAME = re.compile(r"\.sftscope-tmp-[0-9a-f]{8}-[0-9]+-[0-9a-f]{8}-.+", re.DOTALL)  # `temporary_beside`
_CLOCK = "-clock"  # how the name of a file ends whose time is the time
_STALE_SECONDS = 24 * 3600


def write_atomically(path: Path, data: bytes, *, lasting: bool = True, mode: int = NEW_MODE) -> None:
    """Make `path` hold `data`, or leave it as it was. SftscopeError names the file and the reason.

    When it returns, the content is on the disk, and so are the names of the folders that were made for it. Without
    `lasting` only the content is: the name may be lost to a power cut, and nothing is swept, which lists the folder.
    """
    temporary = temporary_beside(path)
    try:
        made = make_folder(path.parent)
        try:
            _write_synced(temporary, data, mode)
            temporary.replace(path)
        except BaseException:  # Ctrl-C too leaves no half file behind; raised again as it is
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise SftscopeError(
            f"{path}: cannot be written: {error.strerror or error}; it is unchanged; "
            "fix this and run the same command again"
        ) from error
    if not lasting:
        return
    try:
        for folder in (path.parent, *(each.parent for each in made)):
            _sync_folder(folder)
    except OSError as error:
        raise SftscopeError(
            f"{path}: written, but its folder cannot be synced to the disk: {error.strerror or error}; "
            "run the same command again"
        ) from error
    sweep_orphans(path.parent, path.name)


def temporary_beside(path: Path) -> Path:
    """A name in the folder of `path` that `sweep_orphans` knows, for what is renamed to `path` once it is complete."""
    return path.with_name(f"{_TEMPORARY}{process_name()}-{secrets.token_hex(4)}-{path.name}")


def append_line(path: Path, line: str, *, owned: bool = False) -> None:
    """Append one line to a log, after the end of a last one that a kill tore. OSError where it cannot be.

    Never through a link: a log in a folder that others may write to could be one to a file elsewhere. owned: the
    lines are obeyed: they are synced, and no one else may write to the file (SftscopeError).
    """
    make_folder(path.parent)
    descriptor = open_to_append(path, owned=owned)
    try:
        size = os.fstat(descriptor).st_size
        is_torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
        _write_all(descriptor, (b"\n" if is_torn else b"") + line.encode() + b"\n")
        if owned:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep_orphans(folder: Path, name: str = "") -> int:
    """Remove what killed writers left in `folder`, of all its files and folders or of one; returns how many.

    A file is an orphan when its writer on this host is dead, or when it is older than a day
    (another host, or a process number that is in use again).
    """
    swept = 0
    names = (name, _CLOCK)
    try:
        orphans = [
            each for each in folder.iterdir() if _TEMPORARY_NAME.fullmatch(each.name) and each.name.endswith(names)
        ]
    except OSError:  # a folder that cannot be listed: whoever needs it will say so
        return 0
    now = folder_time(folder) if orphans else None
    for orphan in orphans:
        with contextlib.suppress(OSError):
            is_old = now is not None and now - orphan.lstat().st_mtime > _STALE_SECONDS
            if is_dead(orphan.name.removeprefix(_TEMPORARY)) or is_old:
                if orphan.is_dir() and not orphan.is_symlink():
                    shutil.rmtree(orphan)
                else:
                    orphan.unlink()
                swept += 1
    return swept


def process_name() -> str:
    """This process among all that may write into a shared folder: host, hyphen, process number."""
    return f"{_host()}-{os.getpid()}"


def is_dead(name: str) -> bool:
    """Whether `name` begins with the `process_name` of a process that has ended; False if that is unknown."""
    host, _, rest = name.partition("-")
    pid = rest.partition("-")[0]
    number = whole_number(pid)
    return host == _host() and number is not None and not is_alive(number)


def folder_time(folder: Path) -> float | None:
    """Now, in seconds, by the clock that gives `folder`'s files their times; None where nothing can be written."""
    file = folder / f"{_TEMPORARY}{process_name()}-{secrets.token_hex(4)}{_CLOCK}"
    try:
        os.close(open_new(file))
        try:
            return file.lstat().st_mtime
        finally:
            file.unlink()
    except OSError:
        return None


@cache
def _host() -> str:
    """This host as eight hexadecimal digits; containers that share its name but not its processes differ."""
    try:
        processes = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:  # not Linux
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()}{processes}".encode()).hexdigest()[:8]


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    """A new file that is on the disk when this returns."""
    descriptor = open_new(path, mode)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    """All of `data`, however little one call takes."""
    rest = memoryview(data)
    while rest:
        written = os.write(descriptor, rest)
        if not written:
            raise OSError(errno.EIO, "nothing can be written")
        rest = rest[written:]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(descriptor)
