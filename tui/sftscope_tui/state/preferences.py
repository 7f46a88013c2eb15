"""What the explorer remembers of a user: theme, glyphs, zoom, sort, and whether the first hint was seen.

A JSON file in the user's state folder, written atomically. A file that is missing or damaged is
as good as none: what is remembered is a comfort, never a reason to fail.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sftscope.files.json_text import read_json_object
from sftscope.foundation.errors import SftscopeError
from sftscope.store import write_atomically

_LONGEST = 10_000  # bytes of a file that is ours


@dataclass(frozen=True)
class Remembered:
    """The values, each with what holds for a new user."""

    theme: str = "textual-dark"
    glyphs: str = "braille"
    sort: str = "strength"
    orders_of: str = "effects"
    hint_seen: bool = False


def state_folder() -> Path | None:
    """The user's state folder for sftscope, by the XDG rules; None for a user who has no home folder."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "sftscope"
    home = in_home("~")
    return home / ".local" / "state" / "sftscope" if home is not None and home.is_dir() else None


def in_home(path: str) -> Path | None:
    """`path` with a leading `~` or `~user` replaced; None where there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return None


def recall(folder: Path | None) -> Remembered:
    """What is remembered in `folder`; a field that is missing or of another type has its own value."""
    if folder is None:
        return Remembered()
    try:
        stored = read_json_object(folder / "explorer.json", _LONGEST)
    except (OSError, SftscopeError):
        return Remembered()
    known = {field.name: type(field.default) for field in fields(Remembered)}
    return Remembered(**{name: stored[name] for name, kind in known.items() if type(stored.get(name)) is kind})


def remember(folder: Path | None, values: Remembered) -> bool:
    """Store `values`; False where the folder cannot be written, which is no reason to disturb anyone."""
    if folder is None:
        return False
    try:
        write_atomically(folder / "explorer.json", (json.dumps(asdict(values), indent=1) + "\n").encode())
    except SftscopeError:
        return False
    return True
