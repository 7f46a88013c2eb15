"""Rows of JSON: JSON Lines, or one list of rows, as they are or compressed by gzip, read row by row where they can be.

Which of them a file is, its content says: trainers read JSON Lines in a `.json` file, and compressed ones.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sftscope.files.json_text import refuse_deep
from sftscope.files.opening import failed_to_read, opened
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

MAX_ROW_BYTES = 2**25  # of a probe or a training row: some hundred times the longest conversation
MAX_FILE_BYTES = 2**31  # of a file that is read at once; JSON Lines and Parquet are read row by row
_GZIP = b"\x1f\x8b"
_CHUNK = 2**22


def kind_of_file(path: Path) -> str:
    """The suffix that says what a file holds, in lower case: `.jsonl` of `rows.jsonl` and of `rows.jsonl.gz`."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def is_packed(content: bytes) -> bool:
    """Whether bytes begin as gzip does."""
    return content.startswith(_GZIP)


@contextmanager
def opened_rows(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file of rows, decompressed if it begins as gzip does; SftscopeError where it cannot be read."""
    try:
        with opened(path) as file:
            packed = is_packed(file.read(len(_GZIP)))
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield unpacked  # type: ignore[misc]  # a BinaryIO but for its class
            else:
                yield file
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SftscopeError(f"{path}: not valid gzip: {safe_text(str(error), max_length=80)}; write it anew") from None
    except OSError as error:
        raise failed_to_read(path, error) from None


def file_text(path: Path) -> str:
    """A file's text, decompressed; SftscopeError with its first line that is not UTF-8."""
    data = bytearray()
    with opened_rows(path) as file:
        while chunk := file.read(_CHUNK):  # not all at once: as many bytes as asked for would be set aside
            data += chunk
            if len(data) > MAX_FILE_BYTES:
                raise SftscopeError(f"{path}: has more than the {MAX_FILE_BYTES} bytes allowed here")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SftscopeError(f"{path}, line {line}: not valid UTF-8; save the file as UTF-8") from None


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of each row of a JSON file: of its list, or, where there is none, of its lines."""
    if _is_document(path):
        yield from _rows_of_document(path)
    else:
        yield from ((f"{path}, line {number}", value) for number, value in read_jsonl(path))


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, parsed value) of each line of a JSONL file that is not blank, read line by line.

    Numbers of any size, as data has.
    """
    with opened_rows(path) as file:
        lines = iter(lambda: file.readline(MAX_ROW_BYTES + 1), b"")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _row(line, f"{path}, line {number}", "utf-8-sig" if number == 1 else "utf-8")


def _is_document(path: Path) -> bool:
    """Whether a file is one JSON value: a list, or an object over several lines."""
    with opened_rows(path) as file:
        start = file.read(_CHUNK).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[" or kind_of_file(path) != ".json":
        return start == b"["
    try:
        return not isinstance(next(read_jsonl(path), (0, None))[1], dict)
    except SftscopeError:
        return True


def _rows_of_document(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        values = json.loads(file_text(path))
    except (ValueError, RecursionError) as error:  # JSONDecodeError, or a number of thousands of digits
        raise SftscopeError(f"{path}: not valid JSON: {safe_text(str(error), max_length=200)}") from None
    if isinstance(values, dict):  # one row over several lines
        values = [values]
    if not isinstance(values, list):
        raise SftscopeError(f"{path}: expected a list of rows, got {type(values).__name__}")
    yield from ((f"{path}, row {number}", value) for number, value in enumerate(values, start=1))


def _row(line: bytes, where: str, encoding: str) -> Any:
    if len(line) > MAX_ROW_BYTES:
        raise SftscopeError(f"{where}: longer than {MAX_ROW_BYTES >> 20} MiB; expected one row a line")
    try:
        value = json.loads(line.decode(encoding))
        refuse_deep(value)
    except UnicodeDecodeError:
        raise SftscopeError(f"{where}: not valid UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise SftscopeError(f"{where}: not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        raise SftscopeError(f"{where}: not usable JSON: too long or too deep") from None
    return value
