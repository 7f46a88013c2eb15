"""Somebody's folder, full of modules that have names of ours and must not be imported."""

import os
from pathlib import Path

SUPPORT = Path(__file__).parent
# what training scripts, and the folders of this repository, are often called
NAMES = ("engine.py", "tui.py", "tests.py", "compat.py", "threads.py", "engine/__init__.py", "tui/__init__.py")


def write_strangers(folder: Path) -> Path:
    """Modules that raise an error when they are imported, in the folder, which is returned."""
    for name in NAMES:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise RuntimeError('a stranger was imported: ' + __file__)\n")
    return folder


def among(folder: Path) -> dict[str, object]:
    """Options of a subprocess that works in the folder and has it on its PYTHONPATH, before the tests' own helpers."""
    path = os.pathsep.join([".", str(folder), str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    return {"cwd": folder, "env": {**os.environ, "PYTHONPATH": path}}
