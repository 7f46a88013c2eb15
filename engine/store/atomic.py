"""Files that are whole or absent: written under a temporary name, synced, renamed into place.

HDF5 never touches the disk while it builds a file; killed writers leave at most a temporary file,
which the next writer of the folder sweeps. Their names carry host and process, because several
hosts may write into one shared folder.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import socket
import time
from pathlib import Path

from engine.errors import SftscopeError

_TEMPORARY = ".sftscope-tmp-"
_STALE_SECONDS = 24 * 3600


def write_atomically(path: Path, data: bytes) -> None:
    """Make `path` hold `data`, or leave it as it was. SftscopeError names the file and the reason."""
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:  # Ctrl-C too leaves no half file behind; raised again as it is
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SftscopeError(
            f"{path}: cannot be written: {error.strerror or error}; it is as it was before, "
            "mend this and run the same command again"
        ) from error
    try:
        _sync_folder(path.parent)
    except OSError as error:
        raise SftscopeError(
            f"{path}: written, but its folder cannot be synced to the disk: {error.strerror or error}; "
            "run the same command again"
        ) from error


def temporary_beside(path: Path) -> Path:
    """A name in the folder of `path` that `sweep_orphans` knows, for what is renamed to `path` once it is whole."""
    return path.with_name(f"{_TEMPORARY}{_host()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def sweep_orphans(folder: Path) -> int:
    """Remove the temporary files and folders that killed writers left in `folder`; returns how many.

    A file is an orphan when its writer on this host is dead, or when it is older than a day
    (another host, or a process number that is in use again).
    """
    swept = 0
    for orphan in folder.glob(f"{_TEMPORARY}*"):
        host, _, rest = orphan.name.removeprefix(_TEMPORARY).partition("-")
        pid = rest.partition("-")[0]
        with contextlib.suppress(OSError):
            dead = host == _host() and pid.isdecimal() and not is_alive(int(pid))
            if dead or time.time() - orphan.lstat().st_mtime > _STALE_SECONDS:
                if orphan.is_dir() and not orphan.is_symlink():
                    shutil.rmtree(orphan)
                else:
                    orphan.unlink()
                swept += 1
    return swept


def _host() -> str:
    """This host as eight hexadecimal digits."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(descriptor)
