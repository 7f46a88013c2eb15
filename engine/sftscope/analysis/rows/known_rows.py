"""The rows that a run was trained on, found where the run says they are, and only if they are still the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from sftscope.analysis.rows.row_index import RowIndex
from sftscope.files.json_text import lookup
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.setting_paths import is_hub_data, resolve_path
from sftscope.inputs.settings import DataSettings, resolve_paths, settings_from_tables
from sftscope.store import RunFolder
from sftscope.training.data.rows import read_side
from sftscope.training.data.shapes import Row
from sftscope.training.data.sources import content_hash, source_of

# short enough for the explorer's last line, and without a path, so that reports are equal wherever the data are
NOT_NAMED = "The run does not say which training rows it had; name them with --train."
NO_HASH = "The run has no sha256 of its training rows; name them with --train."
CHANGED = "The training rows changed since the run began; name the old ones by --train."
ON_THE_HUB = "The training rows are on the hub; to read them, name them with --train."
NOT_HERE = "The training rows cannot be read here; name them with --train."


class UnknownRowsError(SftscopeError):
    """The rows of a run are not known. brief: why, in a sentence without a path."""

    def __init__(self, message: str, brief: str) -> None:
        super().__init__(message)
        self.brief = brief


class _Data(msgspec.Struct):
    """The one table of the settings that is read here."""

    data: DataSettings


def training_rows(folder: RunFolder, train: str = "", *, local: bool = False) -> Sequence[Row]:
    """The training rows of a run.

    train: a file or hub name to read in place of what the run names; not compared with anything. local: read no data
    set of the hub that only the run names. SftscopeError where the run names no rows, they are not there, or their
    content is not what the run was begun with: a run may come from someone else, and a file that it names is read only
    if the run knows its sha256.
    """
    content: dict[str, Any] = folder.read_run()
    if train:
        return read_side(DataSettings(train=resolve_path(train, "data", Path.cwd(), "--train", "here")), "train")
    if "attached" in content:
        data, wanted = _attached(content, folder), lookup(content, "attached", "train_sha256")
    else:
        data, wanted = _trained_here(content, folder), lookup(content, "hashes", "train")
    if not wanted:
        raise UnknownRowsError(f"{folder.run_file}: no sha256 of its training rows; name them with --train", NO_HASH)
    source = source_of(data, "train")
    if local and not Path(source.location).exists() and is_hub_data(source.location):
        raise UnknownRowsError(f"{folder.path}: its training rows are on the hub; name them with --train", ON_THE_HUB)
    if content_hash(source) != wanted:
        raise UnknownRowsError(
            f"{safe_text(data.train, max_length=400)}: is not what {folder.path} was trained on (another sha256); "
            "name the rows with --train",
            CHANGED,
        )
    return read_side(data, "train")


def rows_or_why(run: Path, train: str = "") -> RowIndex | str:
    """The training rows of the run in a folder; or why there are none, in a sentence without a path.

    train: as of `training_rows`; SftscopeError where these cannot be read. Reads no data set of the hub that only the
    run names.
    """
    if train:
        return RowIndex.of(training_rows(RunFolder(run), train))
    try:
        return RowIndex.of(training_rows(RunFolder(run), local=True))
    except UnknownRowsError as error:
        return error.brief
    except (SftscopeError, OSError, ValueError):  # what a run of someone else names may be no path at all
        return NOT_HERE


def _attached(content: dict[str, Any], folder: RunFolder) -> DataSettings:
    named = lookup(content, "attached", "train")
    if not isinstance(named, str) or not named:
        raise UnknownRowsError(f"{folder.path}: its training rows are not known; name them with --train", NOT_NAMED)
    return DataSettings(train=resolve_path(named, "data", folder.path, f"{folder.run_file}: [attached] train"))


def _trained_here(content: dict[str, Any], folder: RunFolder) -> DataSettings:
    origin = lookup(content, "source", "config_folder")
    tables = lookup(content, "settings")
    if not isinstance(origin, str) or not isinstance(tables, dict):
        raise UnknownRowsError(f"{folder.run_file}: expected [source] config_folder and [settings]", NOT_NAMED)
    kept = settings_from_tables(tables, where=lambda table, key: f"{folder.run_file}").data
    # held-out rows, model and probes may be gone: they do not matter here
    resolved: _Data = resolve_paths(
        _Data(replace(kept, eval="")), folder.path.absolute() / origin, source=str(folder.run_file)
    )
    return resolved.data
