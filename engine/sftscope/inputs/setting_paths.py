"""The paths among the settings: what is relative, what an environment variable, what a name of the hub."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.setting_rules import settings_of

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".gz")
S = TypeVar("S", bound=msgspec.Struct)


def resolve_paths(settings: S, folder: Path, *, source: str = "settings") -> S:
    """`settings` with every path absolute: `$NAME` and `~` expanded, relative ones taken from `folder`.

    settings: a Struct of tables. A path that is missing is an error here, not hours later; `source` names the file
    in it. A hub name stays as it is.
    """
    resolved = {}
    for table, specs in settings_of(type(settings)).items():
        part = getattr(settings, table)
        changes = {
            name: resolve_path(value, spec.path, folder, f"{source}: [{table}] {name}")
            for name, spec in specs.items()
            if (value := getattr(part, name)) and is_path(spec.path, msgspec.structs.asdict(part))
        }
        resolved[table] = replace(part, **changes)
    return replace(settings, **resolved)


def is_path(kind: str, table: Mapping[str, Any]) -> bool:
    """Whether a setting of this kind of path is one, in a table: with dataset_info, data are names in that file."""
    return bool(kind) and not (kind == "data" and table.get("dataset_info"))


def resolve_path(value: str, kind: str, folder: Path, place: str, start: str = "the folder of the config file") -> str:
    """The absolute path that `value` means in `folder`, or `value` where it is a name of the hub.

    kind: "file", "or-name" (a path or a name of the hub), or "data" (the same, for data). SftscopeError with `place`
    where there is none; `start` is `folder` in words.
    """
    try:
        target = folder / Path(_expanded(value, place)).expanduser()
        exists, is_folder = target.exists(), target.is_dir()
    except (OSError, RuntimeError, ValueError):  # too long, no such user, NUL
        raise SftscopeError(f"{place}: not a usable path: {safe_text(repr(value), max_length=80)}") from None
    if kind == "file" and is_folder:
        raise SftscopeError(f"{place}: expected a file, {safe_text(str(target), max_length=400)} is a folder")
    if exists:
        return str(target.resolve())
    if kind == "file" or not (is_hub_data(value) if kind == "data" else is_hub_name(value)):
        raise SftscopeError(
            f"{place}: {safe_text(str(target), max_length=400)} does not exist; paths are relative to {start}"
        )
    return value


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
