"""Files that may be a stranger's, read whole: only what is a file and no larger than it may be."""

import os
import stat
from pathlib import Path

from sftscope.errors import SftscopeError

MAX_TEXT_BYTES = 2**28  # run.toml, probes, a log


def read_plain(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The bytes of the file at `path`; OSError as `open` raises it.

    SftscopeError where it is none (a pipe would block, a device never ends) or has more than `limit` bytes.
    """
    # not blocked by a pipe that takes the file's place after a look at it
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor has no path
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SftscopeError(f"{path}: expected a file, got something that is none")
        if status.st_size > limit:
            raise SftscopeError(f"{path}: {status.st_size} bytes are more than it may have ({limit})")
        return file.read(status.st_size)
