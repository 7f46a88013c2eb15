"""The rows of one data file, whatever file the settings name."""

from pathlib import Path

from msgspec.structs import replace

from sftscope.inputs.settings import DataSettings
from sftscope.training.data.rows import Row, read_side


def read_rows(path: Path, settings: DataSettings, *, limit: int = 0) -> tuple[Row, ...]:
    return read_side(replace(settings, train=str(path)), "train", limit=limit)
