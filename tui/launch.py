"""Starts the explorer. Imports Textual only after the environment that it reads at import is set."""

import os
from collections.abc import MutableMapping
from pathlib import Path

_OVER_SSH = {"TEXTUAL_FPS": "15", "TEXTUAL_ANIMATIONS": "none", "TEXTUAL_SMOOTH_SCROLL": "0"}


def set_terminal_defaults(environ: MutableMapping[str, str]) -> None:
    """Fewer bytes over SSH, where the user has not set otherwise; no animation and no pulse anywhere."""
    environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    if environ.get("SSH_CONNECTION"):
        for name, value in _OVER_SSH.items():
            environ.setdefault(name, value)


def explore(path: Path, step: int | None = None, glyphs: str = "braille") -> None:
    """Explore the run at `path` until the user quits; `step` is the step number to begin at."""
    set_terminal_defaults(os.environ)
    from tui.app import ExplorerApp

    ExplorerApp(path, step=step, glyphs=glyphs).run()
