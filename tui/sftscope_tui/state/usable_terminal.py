"""Whether the explorer can be shown here, asked before Textual is imported, and what to do where it cannot."""

import os
import shutil
import sys
from pathlib import Path

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import shell_command
from sftscope.foundation.terminal import can_move_cursor, is_terminal


def why_no_explorer() -> str:
    """Why the explorer cannot be shown here; empty where it can."""
    # Textual reads keys from the first, asks the second for its size and writes to the third
    streams = {"standard input": sys.__stdin__, "standard output": sys.__stdout__, "standard error": sys.__stderr__}
    for name, stream in streams.items():
        if not is_terminal(stream):
            return f"{name} is not a terminal"
    if not can_move_cursor():
        term = os.environ.get("TERM", "")
        return f"a terminal of the kind TERM={term} cannot move its cursor" if term else "TERM is not set"
    columns, lines = shutil.get_terminal_size(fallback=(0, 0))  # as Textual asks, COLUMNS and LINES included
    return "" if columns and lines else f"the terminal reports {columns} columns and {lines} lines"


def need_terminal(run: Path) -> None:
    """SftscopeError with the command that shows `run` as text where the explorer cannot be shown."""
    if why := why_no_explorer():
        raise SftscopeError(f"the explorer cannot be shown here: {why}; read the run as text: {command_as_text(run)}")


def command_as_text(run: Path) -> str:
    """The command that shows what the explorer would, as text."""
    return shell_command(["sftscope", "show", "--plain", argument(run)])


def argument(path: Path) -> str:
    """The path as an argument; one that begins with a hyphen would be an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)
