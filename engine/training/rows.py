"""Reads training data: rows of instruction, input and response from the shapes that people have.

Alpaca (`instruction`, `input`, `output`) and prompt/completion, as JSON, JSONL, CSV or TSV with a
header; GoEmotions TSV (text, comma-joined label ids, id; no header). A row that cannot be used is
an error with file, line and field.
"""

import csv
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import DataSettings
from engine.errors import SftscopeError
from engine.probes import read_jsonl
from engine.text import safe_text

_SHAPES = {"alpaca": ("instruction", "output"), "prompt-completion": ("prompt", "completion")}


@dataclass(frozen=True)
class Row:
    """One training example as text."""

    instruction: str
    input: str
    response: str

    @property
    def prompt(self) -> str:
        """The user's message: the instruction, a line break, the input."""
        return "\n".join(part for part in (self.instruction, self.input) if part)


def read_rows(path: Path, settings: DataSettings, *, limit: int = 0) -> tuple[Row, ...]:
    """The rows of a data file; with `limit`, a seeded choice of so many, in file order."""
    shape = settings.format
    if shape == "auto":
        shape = "goemotions" if settings.labels else "auto"
    rows = list(_goemotions(path, settings) if shape == "goemotions" else _records(path, shape, settings))
    if not rows:
        raise SftscopeError(f"{path}: expected at least one row, got none")
    if 0 < limit < len(rows):
        chosen = sorted(random.Random(settings.seed).sample(range(len(rows)), limit))
        rows = [rows[index] for index in chosen]
    return tuple(rows)


def _records(path: Path, shape: str, settings: DataSettings) -> Iterator[Row]:
    for where, record in _objects(path):
        if not isinstance(record, dict):
            raise SftscopeError(f"{where}: expected an object, got {type(record).__name__}")
        yield _row(record, where, shape, settings)


def _row(record: dict[str, Any], where: str, shape: str, settings: DataSettings) -> Row:
    candidates = _SHAPES if shape == "auto" else {shape: _SHAPES[shape]}
    for name, (prompt, response) in candidates.items():
        if prompt in record and response in record:
            text = _field(record, prompt, where)
            extra = _field(record, "input", where) if name == "alpaca" and record.get("input") else ""
            if name == "alpaca" and not text:
                text = settings.instruction
            answer = _field(record, response, where)
            if not answer.strip():
                raise SftscopeError(f"{where}: field {response!r}: expected an answer, got nothing")
            if not (text or extra).strip():
                raise SftscopeError(f"{where}: field {prompt!r}: expected a prompt, got nothing")
            return Row(text, extra, answer)
    wanted = " or ".join(f"{prompt!r} and {response!r}" for prompt, response in candidates.values())
    known = safe_text(", ".join(map(str, record)), max_length=120)
    raise SftscopeError(f"{where}: expected the fields {wanted}, got {known}")


def _field(record: dict[str, Any], name: str, where: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise SftscopeError(f"{where}: field {name!r}: expected text, got {safe_text(repr(value), max_length=60)}")
    return value


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, object) of each row of a JSON, JSONL, CSV or TSV file."""
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            for number, value in read_jsonl(path):
                yield f"{path}, line {number}", value
        case ".json":
            try:
                values = json.loads(_text(path))
            except (json.JSONDecodeError, RecursionError) as error:
                raise SftscopeError(f"{path}: not valid JSON: {error}") from None
            if not isinstance(values, list):
                raise SftscopeError(f"{path}: expected a list of rows, got {type(values).__name__}")
            for number, value in enumerate(values, start=1):
                yield f"{path}, row {number}", value
        case ".csv" | ".tsv":
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(_text(path).splitlines(keepends=True), delimiter=delimiter)
            try:
                for record in reader:
                    if None in record or None in record.values():
                        raise SftscopeError(
                            f"{path}, line {reader.line_num}: expected {len(reader.fieldnames or ())} columns "
                            "as in the header"
                        )
                    yield f"{path}, line {reader.line_num}", record
            except csv.Error as error:
                raise SftscopeError(f"{path}, line {reader.line_num}: not valid CSV: {error}") from None
        case suffix:
            raise SftscopeError(f"{path}: expected .jsonl, .json, .csv or .tsv, got {suffix or 'no suffix'!r}")


def _goemotions(path: Path, settings: DataSettings) -> Iterator[Row]:
    if not settings.labels:
        raise SftscopeError(f"{path}: GoEmotions data needs [data] labels = the file with the label names")
    labels = _text(Path(settings.labels)).split()
    for number, line in enumerate(_text(path).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        columns = line.split("\t")
        if len(columns) < 2:
            raise SftscopeError(f"{where}: expected text, a tab and label ids, got {len(columns)} columns")
        if not columns[0].strip():
            raise SftscopeError(f"{where}: expected text in the first column, got nothing")
        names = _label_names(columns[1], labels, where, settings.labels)
        if len(names) > 1 and settings.multi_label == "skip":
            continue
        kept = names[:1] if settings.multi_label == "first" else names
        yield Row(settings.instruction, columns[0], ", ".join(kept))


def _label_names(column: str, labels: Sequence[str], where: str, label_file: str) -> list[str]:
    names = []
    for label in column.split(","):
        if not label.strip().isdecimal() or int(label) >= len(labels):
            raise SftscopeError(
                f"{where}: label {safe_text(label, max_length=40)!r} is outside the list: expected 0…"
                f"{len(labels) - 1} ({len(labels)} names in {label_file})"
            )
        names.append(labels[int(label)])
    return names


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SftscopeError(f"{path}: no such file") from None
    except OSError as error:
        raise SftscopeError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SftscopeError(f"{path}, line {line}: not valid UTF-8; save the file as UTF-8") from None
