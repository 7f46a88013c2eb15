"""Where training records come from: files, also compressed ones, the hub, and LLaMA-Factory's dataset_info.json.

Yields each record with its place (file and line), which every complaint about it begins with. Knows
nothing of what a record's fields mean.
"""

import csv
import difflib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sftscope.files.folders import check_files
from sftscope.files.opening import opened
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.row_files import MAX_ROW_BYTES, file_text, kind_of_file, read_rows
from sftscope.inputs.setting_paths import is_hub_data
from sftscope.inputs.settings import DataSettings

Side = Literal["train", "eval"]
SIDES: tuple[Side, ...] = ("train", "eval")
_BATCH = 1024  # rows of a Parquet file in memory at a time


@dataclass(frozen=True)
class Source:
    """One data set. location: file, folder or hub name; empty: there is none.

    format: the shape of its records as dataset_info.json names it, `columns` and `tags` their renamed
    fields; all three empty where no dataset_info.json is used. limit: at most this many rows, 0: all.
    """

    location: str
    subset: str = ""
    split: str = ""
    format: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    limit: int = 0


def source_of(settings: DataSettings, side: Side) -> Source:
    """What `settings` (paths resolved) name for one side."""
    name = settings.train if side == "train" else settings.eval
    split = settings.train_split if side == "train" else settings.eval_split
    if not name or not settings.dataset_info:
        return Source(name, settings.subset, split)
    return _entry(Path(settings.dataset_info), name)


def content_hash(source: Source) -> str:
    """sha256 of what is read: of a file its bytes, of a hub data set its records; empty where there is no source."""
    if not source.location:
        return ""
    digest = hashlib.sha256()
    if Path(source.location).exists() and not Path(source.location).is_dir():
        try:
            with opened(Path(source.location)) as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise SftscopeError(f"{source.location}: cannot be read: {error.strerror}") from None
    else:
        for _, record in records(source):
            digest.update(json.dumps(record, sort_keys=True, default=str).encode() + b"\n")
    if source.format:  # the same file under another column map is other data
        digest.update(json.dumps([source.format, source.columns, source.tags, source.limit], default=dict).encode())
    return digest.hexdigest()


def records(source: Source) -> Iterator[tuple[str, Any]]:
    """(place, record) of each row of a source."""
    path = Path(source.location)
    if path.is_dir() or (not path.exists() and is_hub_data(source.location)):
        yield from _hub(source)
        return
    match kind_of_file(path):
        case ".jsonl" | ".ndjson" | ".json":
            yield from read_rows(path)
        case ".csv":
            yield from _csv(path, "")
        case ".tsv":
            yield from _csv(path, "\t")
        case ".parquet":
            yield from _parquet(path)
        case suffix:
            known = ".jsonl, .json, .csv, .tsv (also .gz of these) or .parquet"
            raise SftscopeError(f"{path}: expected {known}, got {safe_text(suffix) or 'no suffix'!r}")


def _csv(path: Path, delimiter: str) -> Iterator[tuple[str, Any]]:
    """delimiter: of the columns; empty: the comma, or what stands in its place in the header, as spreadsheets write."""
    text = file_text(path)
    header = text.partition("\n")[0]
    chosen = delimiter or next((each for each in ",;\t" if each in header), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=chosen)
    try:
        while (record := _next_record(reader)) is not None:
            where = f"{path}, line {reader.line_num}"
            if None in record or None in record.values():
                raise SftscopeError(f"{where}: expected {len(reader.fieldnames or ())} columns as in the header")
            yield where, record
    except csv.Error as error:
        raise SftscopeError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from None


def _next_record(reader: "csv.DictReader[str]") -> dict[str, Any] | None:
    """An answer may be longer than the 128 KiB that csv stops at; its limit is the process's, and stays as it was."""
    before = csv.field_size_limit(MAX_ROW_BYTES)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SftscopeError(f"{path}: Parquet needs pyarrow; install it with: pip install pyarrow") from None
    try:
        number = 0
        with opened(path) as opened_file, parquet.ParquetFile(opened_file) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", record
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file") from None
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SftscopeError(f"{path}: not a usable Parquet file: {_first_line(error)}") from None


def _hub(source: Source) -> Iterator[tuple[str, Any]]:
    name = f"{source.location}{f' ({source.subset})' if source.subset else ''}, split {source.split}"
    try:
        import datasets
        from huggingface_hub.utils import logging as hub_logging
    except ImportError:
        raise SftscopeError(f"{name}: hub data needs datasets; install it with: pip install datasets") from None
    datasets.disable_progress_bars()
    hub_logging.set_verbosity_error()  # it tells each of its tries
    if Path(source.location).is_dir():
        check_files(Path(source.location), deep=True)
    try:
        found = datasets.load_dataset(source.location, source.subset or None, split=source.split)
    except (OSError, ValueError, KeyError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise SftscopeError(
            f"{safe_text(name)}: cannot be loaded: {_first_line(error)}; check the name, [data] subset and split, and "
            "the connection to the hub, or download the data and name the file"
        ) from None
    yield from ((f"{name}, row {number}", record) for number, record in enumerate(found, start=1))


def _entry(path: Path, name: str) -> Source:
    """The entry `name` of a dataset_info.json."""
    try:
        entries = json.loads(file_text(path))
    except (ValueError, RecursionError) as error:
        raise SftscopeError(f"{path}: not valid JSON: {safe_text(str(error), max_length=200)}") from None
    shown = safe_text(repr(name), max_length=80)
    if not isinstance(entries, dict) or name not in entries:
        known = list(entries) if isinstance(entries, dict) else []
        close = difflib.get_close_matches(name, known, n=1) or known[:8]
        raise SftscopeError(f"{path}: has no data set {shown}; there is {safe_text(', '.join(close)) or 'none'}")
    entry = entries[name] if isinstance(entries[name], dict) else {}
    where = f"{path}, data set {shown}"
    for key in ("ranking", "script_url"):
        if entry.get(key):
            raise SftscopeError(f"{where}: field {key!r}: not supported; expected rows to fine-tune on")
    location = _word(entry, "hf_hub_url", "", where) or (
        str(path.parent / str(entry["file_name"])) if "file_name" in entry else ""
    )
    if not location:
        raise SftscopeError(f"{where}: expected the field 'file_name' or 'hf_hub_url'")
    if not entry.get("hf_hub_url") and not Path(location).exists():
        raise SftscopeError(f"{where}: field 'file_name': {safe_text(location)} does not exist")
    limit = entry.get("num_samples") or 0
    if type(limit) is not int or limit < 0:
        raise SftscopeError(f"{where}: field 'num_samples': expected a whole number, got {safe_text(repr(limit))}")
    return Source(
        location=location,
        subset=_word(entry, "subset", "", where),
        split=_word(entry, "split", "train", where),
        format=_word(entry, "formatting", "alpaca", where),
        columns=_words(entry, "columns", where),
        tags=_words(entry, "tags", where),
        limit=limit,
    )


def _word(entry: Mapping[str, Any], key: str, default: str, where: str) -> str:
    value = entry.get(key) or default
    if not isinstance(value, str):
        raise SftscopeError(f"{where}: field {key!r}: expected text, got {safe_text(repr(value), max_length=60)}")
    return value


def _words(entry: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    value = entry.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        shown = safe_text(repr(value), max_length=60)
        raise SftscopeError(f"{where}: field {key!r}: expected names of fields, got {shown}")
    return value


def _first_line(error: BaseException) -> str:
    return safe_text(str(error).strip().partition("\n")[0] or type(error).__name__, max_length=200)
