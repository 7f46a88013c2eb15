"""A folder that a library is about to read: nothing in it blocks, never ends, or is far larger than it can have to be.

A library opens by path, so that a file exchanged after this look is not noticed; what is noticed is what lies there.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sftscope.foundation.errors import SftscopeError

_MOST_ENTRIES = 100_000
_TEXTS = (".json", ".txt", ".jinja", ".model", ".tiktoken", ".py")  # read as a whole; weights and data are mapped
MAX_TEXT_BYTES = 2**28  # a tokenizer.json of a million tokens has some 2^26


def check_files(folder: Path, *, deep: bool = False) -> None:
    """SftscopeError where a file of `folder`, with `deep` also of its folders, is a pipe or a device, or too large.

    Links count as what they lead to; one that leads nowhere passes, as a file that is not there.
    """
    for number, entry in enumerate(_entries(folder, deep), start=1):
        if number > _MOST_ENTRIES:
            raise SftscopeError(f"{folder}: has more than {_MOST_ENTRIES} files; give a folder of its own")
        try:
            status = entry.stat()
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise SftscopeError(f"{entry.path}: not a regular file; remove it")
        if status.st_size > MAX_TEXT_BYTES and entry.name.endswith(_TEXTS) and not deep:
            raise SftscopeError(f"{entry.path}: has {status.st_size} bytes, more than {MAX_TEXT_BYTES >> 20} MiB")


def _entries(folder: Path, deep: bool) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry
                if deep and entry.is_dir(follow_symlinks=False):
                    yield from _entries(Path(entry.path), deep)
    except OSError as error:
        raise SftscopeError(f"{folder}: cannot be listed: {error.strerror}") from None
