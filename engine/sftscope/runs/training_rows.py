"""The rows that a run was trained on, found where the run says they are, and only if they are still the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from sftscope.files.json_text import lookup
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.setting_paths import resolve_path
from sftscope.inputs.settings import DataSettings, resolve_paths
from sftscope.runs.identity import settings_in
from sftscope.store import RunFolder
from sftscope.training.data.rows import read_side
from sftscope.training.data.shapes import Row
from sftscope.training.data.sources import content_hash, source_of


class _Data(msgspec.Struct):
    """The one table of the settings that is read here."""

    data: DataSettings


def training_rows(folder: RunFolder, train: str = "") -> Sequence[Row]:
    """The training rows of a run.

    train: a file or hub name to read in place of what the run names; not compared with anything. SftscopeError where
    the run names no rows, they are not there, or their content is not what the run was begun with: a run may come from
    someone else, and a file that it names is read only if the run knows its sha256.
    """
    content: dict[str, Any] = folder.read_run()
    if train:
        return read_side(DataSettings(train=resolve_path(train, "data", Path.cwd(), "--train", "here")), "train")
    if "attached" in content:
        data, wanted = _attached(content, folder), lookup(content, "attached", "train_sha256")
    else:
        data, wanted = _trained_here(content, folder), lookup(content, "hashes", "train")
    if content_hash(source_of(data, "train")) != wanted:
        raise SftscopeError(
            f"{safe_text(data.train, max_length=400)}: is not what {folder.path} was trained on (another sha256); "
            "name the rows with --train"
        )
    return read_side(data, "train")


def _attached(content: dict[str, Any], folder: RunFolder) -> DataSettings:
    named = lookup(content, "attached", "train")
    if not isinstance(named, str) or not named:
        raise SftscopeError(f"{folder.path}: its training rows are not known; name them with --train")
    return DataSettings(train=resolve_path(named, "data", folder.path, f"{folder.run_file}: [attached] train"))


def _trained_here(content: dict[str, Any], folder: RunFolder) -> DataSettings:
    origin = lookup(content, "source", "config_folder")
    if not isinstance(origin, str):
        raise SftscopeError(f"{folder.run_file}: expected [source] config_folder")
    kept = settings_in(content, where=lambda table, key: f"{folder.run_file}").data
    # held-out rows, model and probes may be gone: they do not matter here
    resolved: _Data = resolve_paths(
        _Data(replace(kept, eval="")), folder.path.absolute() / origin, source=str(folder.run_file)
    )
    return resolved.data
