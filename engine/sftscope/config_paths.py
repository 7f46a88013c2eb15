"""The paths among the settings: what is relative, what an environment variable, what a name of the hub."""

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sftscope.errors import SftscopeError
from sftscope.text import safe_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
S = TypeVar("S", bound="DataclassInstance")


def resolve_paths(settings: S, folder: Path, *, source: str = "settings") -> S:
    """`settings` with every path absolute: `$NAME` and `~` expanded, relative ones taken from `folder`.

    settings: a frozen dataclass of tables. A path that is missing is an error here, not hours later;
    `source` names the file in it. A hub name stays as it is.
    """
    resolved = {}
    for table in (spec.name for spec in fields(settings)):
        part = getattr(settings, table)
        changes = {}
        for spec in fields(part):
            value, kind = getattr(part, spec.name), spec.metadata.get("path")
            if not kind or not value or (kind == "data" and part.dataset_info):
                continue
            place = f"{source}: [{table}] {spec.name}"
            try:
                target = folder / Path(_expanded(value, place)).expanduser()
                exists, is_folder = target.exists(), target.is_dir()
            except (OSError, RuntimeError, ValueError):  # too long, no such user, NUL
                raise SftscopeError(f"{place}: not a usable path: {safe_text(repr(value), max_length=80)}") from None
            if kind == "file" and is_folder:
                raise SftscopeError(f"{place}: expected a file, {safe_text(str(target), max_length=400)} is a folder")
            if exists:
                changes[spec.name] = str(target.resolve())
            elif kind == "file" or not (is_hub_data(value) if kind == "data" else is_hub_name(value)):
                raise SftscopeError(
                    f"{place}: {safe_text(str(target), max_length=400)} does not exist; "
                    "paths are relative to the folder of the config file"
                )
        resolved[table] = replace(part, **changes)
    return replace(settings, **resolved)


def _expanded(value: str, place: str) -> str:
    expanded = os.path.expandvars(value)
    if left := re.search(r"\$(\w+|\{\w+\})", expanded, re.ASCII):
        name = left[0].strip("${}")
        raise SftscopeError(f"{place}: environment variable {name} is not set; set it to a folder")
    return expanded


def is_hub_name(value: str) -> bool:
    """Whether `value` has the form owner/name (or a bare name) of the model hub."""
    return re.fullmatch(r"[\w][\w.-]*(/[\w.-]+)?", value) is not None and not value.endswith(".gguf")


def is_hub_data(value: str) -> bool:
    """Whether `value` can only name a data set of the hub: its form, and no file's suffix."""
    return is_hub_name(value) and not value.lower().endswith(DATA_SUFFIXES)
