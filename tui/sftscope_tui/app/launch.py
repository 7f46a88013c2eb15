"""Starts the explorer: every way to it leads through here.

Imports Textual only where there is a terminal for it, and after the environment that it reads at import is set.
"""

import codecs
import os
import sys
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sftscope_tui.state.usable_terminal import need_terminal

if TYPE_CHECKING:
    from sftscope_tui.state.start_options import Start

_OVER_SSH = {"TEXTUAL_FPS": "15", "TEXTUAL_ANIMATIONS": "none", "TEXTUAL_SMOOTH_SCROLL": "0"}


def set_terminal_defaults(environ: MutableMapping[str, str]) -> None:
    """Fewer bytes over SSH, where the user has not set otherwise; no animation and no pulse anywhere."""
    environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    if environ.get("SSH_CONNECTION"):
        for name, value in _OVER_SSH.items():
            environ.setdefault(name, value)


def explore(runs: Sequence[Path], start: "Callable[[], Start] | None" = None) -> None:
    """Explore the first of `runs` until the user quits; the second, where there is one, is compared with.

    start: makes what the explorer starts with; it is called late, because already that imports Textual.
    SftscopeError where there is no terminal that can show the explorer, SystemExit where a signal ends it.
    """
    need_terminal(runs[0])
    set_terminal_defaults(os.environ)
    if codecs.lookup(sys.__stderr__.encoding).name != "utf-8":  # type: ignore[union-attr]
        sys.__stderr__.reconfigure(errors="replace")  # type: ignore[union-attr]  # one character a cell
    options = start() if start is not None else None
    from sftscope.store.steps.sandboxed_reader import start_reading

    start_reading()  # while Textual is imported
    from sftscope_tui.app.actions import ExplorerApp
    from sftscope_tui.app.ending import run_until_ended

    if code := run_until_ended(ExplorerApp(runs[0], *runs[1:], start=options)):
        sys.exit(code)
