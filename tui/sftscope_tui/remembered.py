"""What the explorer remembers of a user: theme, glyphs, zoom, sort, and whether the first hint was seen.

A JSON file in the user's state folder, written atomically. A file that is missing or damaged is
as good as none: what is remembered is a comfort, never a reason to fail.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sftscope.errors import SftscopeError
from sftscope.store import write_atomically

_LONGEST = 10_000  # bytes of a file that is ours


@dataclass(frozen=True)
class Remembered:
    """The values, each with what holds for a new user."""

    theme: str = "textual-dark"
    glyphs: str = "braille"
    sort: str = "strength"
    order_counts: bool = False
    hint_seen: bool = False


def state_folder() -> Path:
    """The user's state folder for sftscope, by the XDG rules."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "sftscope"


def recall(folder: Path) -> Remembered:
    """What is remembered in `folder`; a field that is missing or of another type has its own value."""
    try:
        with (folder / "explorer.json").open("rb") as file:
            stored = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return Remembered()
    if not isinstance(stored, dict):
        return Remembered()
    known = {field.name: type(field.default) for field in fields(Remembered)}
    return Remembered(**{name: stored[name] for name, kind in known.items() if type(stored.get(name)) is kind})


def remember(folder: Path, values: Remembered) -> bool:
    """Store `values`; False where the folder cannot be written, which is no reason to disturb anyone."""
    try:
        write_atomically(folder / "explorer.json", (json.dumps(asdict(values), indent=1) + "\n").encode())
    except SftscopeError:
        return False
    return True
