"""Standard input, output and error of a command: never missing, never a reason for a traceback.

A character that an output cannot hold becomes an escape that JSON allows too. What cannot be written to standard
output ends the command (`OutputError`), because its result is lost; standard error only accompanies the work, so that
what cannot be written there is dropped.
"""

import codecs
import errno
import io
import os
import sys
from typing import Any, TextIO

_ESCAPES = "sftscope-escapes"  # the name of our error handler among those of codecs


class OutputError(Exception):
    """Standard output takes no more: a full disk, a pipe whose reader has left, a stream that is closed."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(f"standard output cannot be written: {reason.strerror or reason}")
        self.is_broken_pipe = reason.errno == errno.EPIPE


class _Output(io.FileIO):
    """Standard output. Raises OutputError once; what is still buffered then is dropped at the end of the process."""

    lost = False

    def write(self, data: Any, /) -> int:
        try:
            return len(data) if self.lost else super().write(data)
        except OSError as error:
            self.lost = True
            raise OutputError(error) from None


class _Errors(io.FileIO):
    """Standard error, which drops what cannot be written: work continues when its terminal is gone."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def protect_streams() -> None:
    """Make the standard streams of this process as this module says. Once, before anything is written."""
    _fill_gaps()
    codecs.register_error(_ESCAPES, _escaped)
    sys.stdout = _protected(sys.stdout, sys.__stdout__, _Output, 1)
    sys.stderr = _protected(sys.stderr, sys.__stderr__, _Errors, 2)
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc,assignment]  # Textual writes to these


def _fill_gaps() -> None:
    """Keep a file that is opened later from becoming a standard stream, where one is closed."""
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):  # writing to 1 fails, as it did
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free


def _protected(stream: TextIO | None, own: TextIO | None, kind: type[io.FileIO], descriptor: int) -> TextIO:
    """`stream` with a raw file of `kind`; as it is where a test or an embedding program has put it there."""
    if stream is not own or not (stream is None or _writes_to(stream, descriptor)):
        return stream  # type: ignore[return-value]
    old = stream if isinstance(stream, io.TextIOWrapper) else io.TextIOWrapper(io.BytesIO())
    old.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(kind(descriptor, "w", closefd=False)),
        encoding="utf-8" if stream is None else old.encoding,
        errors=_ESCAPES,
        line_buffering=old.line_buffering or descriptor == 2,
        write_through=old.write_through,
    )


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor
    except (OSError, ValueError):  # kept in memory, or closed
        return False


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""What JSON writes for characters that an encoding lacks: \u2212, and two of these beyond U+FFFF."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[at : at + 2].hex() for at in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), error.end
