"""The rows of a run: read from where the settings say, in the shape they have, as many as are wanted."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text, whole_number
from sftscope.inputs.row_files import file_text, kind_of_file
from sftscope.inputs.settings import DataSettings
from sftscope.training.data.shapes import (
    SHAPES,
    Fields,
    Row,
    mapped_fields,
    named_fields,
    plain_text,
    rows_of,
    shape_of,
)
from sftscope.training.data.sources import Side, Source, records, source_of

_TYPED = (".json", ".jsonl", ".ndjson", ".parquet")  # files whose records have field names
_NOT_TRAINED = "answers whose weight is 0"


def read_side(
    settings: DataSettings,
    side: Side,
    *,
    limit: int | None = None,
    note: Callable[[str], object] = lambda _: None,
) -> tuple[Row, ...]:
    """The training or the held-out rows that `settings` (paths resolved) ask for; none where no data are named.

    limit: how many of them at most, in place of what the settings say; 0 is all. note: takes what was left out, in
    lines.
    """
    source = source_of(settings, side)
    if limit is None:
        limit = settings.max_train_rows if side == "train" else settings.max_eval_rows
    return _read(source, settings, limit, note) if source.location else ()


def _read(source: Source, settings: DataSettings, limit: int, note: Callable[[str], object]) -> tuple[Row, ...]:
    every = list(_rows(source, settings))
    rows = [row for row in every if row.trained]
    left_out = Counter(part for row in rows for part in row.unread)
    left_out[_NOT_TRAINED] = len(every) - len(rows)
    for part, count in left_out.items():
        if count:
            note(f"{source.location}: left out of training and loss: {part} ({count:,})")
    if not rows:
        raise SftscopeError(f"{source.location}: expected at least one row, got none")
    if 0 < limit < len(rows):
        chosen = sorted(random.Random(settings.seed).sample(range(len(rows)), limit))
        rows = [rows[index] for index in chosen]
    return tuple(rows)


def _rows(source: Source, settings: DataSettings) -> Iterator[Row]:
    labels = tuple(file_text(Path(settings.labels)).split()) if settings.labels else ()
    if _is_goemotions_file(source, settings):
        yield from _goemotions_file(Path(source.location), labels, settings)
        return
    fields = _fields(source, settings)
    for number, (where, record) in enumerate(records(source)):
        if 0 < source.limit <= number:
            return
        if not isinstance(record, Mapping):
            raise SftscopeError(f"{where}: expected an object, got {type(record).__name__}")
        yield from _record(record, where, fields, labels, settings)


def _fields(source: Source, settings: DataSettings) -> Fields | None:
    """The fields of the records by names that somebody gave; None where they are known by their own."""
    if settings.columns and source.format:
        raise SftscopeError("[data] columns: dataset_info has columns of its own; give one of them")
    if source.format:
        return mapped_fields(source.format, source.columns, source.tags, source.location)
    return named_fields(settings.columns) if settings.columns else None


def _record(
    record: Mapping[str, Any], where: str, fields: Fields | None, labels: Sequence[str], settings: DataSettings
) -> list[Row]:
    if fields is None:
        shape = shape_of(record, settings.format, where)
        if shape == "goemotions":
            return _goemotions(record["text"], record["labels"], where, labels, settings)
        fields = SHAPES[shape]
    found = rows_of(record, fields, where, instruction=settings.instruction)
    return found[-1:] if settings.answers == "last" else found


def _is_goemotions_file(source: Source, settings: DataSettings) -> bool:
    """Whether this is the TSV without header: text, comma-joined label ids, id."""
    path = Path(source.location)
    if source.format or settings.columns or not path.is_file() or kind_of_file(path) in _TYPED:
        return False
    return settings.format == "goemotions" or (settings.format == "auto" and bool(settings.labels))


def _goemotions_file(path: Path, labels: Sequence[str], settings: DataSettings) -> Iterator[Row]:
    for number, line in enumerate(file_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        columns = line.split("\t")
        if len(columns) < 2:
            raise SftscopeError(f"{where}: expected text, a tab and label ids, got {len(columns)} columns")
        yield from _goemotions(columns[0], columns[1], where, labels, settings)


def _goemotions(text: Any, column: Any, where: str, labels: Sequence[str], settings: DataSettings) -> list[Row]:
    """The row of a comment, or none; column: label ids, joined by commas or in a list."""
    if not plain_text(text, f"{where}: text").strip():
        raise SftscopeError(f"{where}: expected text in the first column, got nothing")
    if not settings.labels:
        raise SftscopeError(f"{where}: GoEmotions data needs [data] labels = the file with the label names")
    names = _label_names(column, labels, where, settings.labels)
    if len(names) > 1 and settings.multi_label == "skip":
        return []
    kept = names[:1] if settings.multi_label == "first" else names
    return [Row(settings.instruction, text, ", ".join(kept), where=where)]


def _label_names(column: Any, labels: Sequence[str], where: str, label_file: str) -> list[str]:
    given = column.split(",") if isinstance(column, str) else column if isinstance(column, list) else [column]
    names = []
    for label in map(str, given):
        number = whole_number(label.strip())
        if number is None or number >= len(labels):
            raise SftscopeError(
                f"{where}: label {safe_text(label, max_length=40)!r} is outside the list: expected 0…"
                f"{len(labels) - 1} ({len(labels)} names in {label_file})"
            )
        names.append(labels[number])
    return names
