"""What the terminal of this process can do. Knows nothing of what is shown in it, and imports nothing heavy."""

import os
from collections.abc import Mapping
from typing import TextIO

_NAMES_OF_NONE = ("", "dumb", "unknown")  # an empty name is an unset one


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is open and a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def can_move_cursor(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal that TERM names can put its cursor anywhere.

    No where TERM is unset, `dumb` or `unknown`, and where terminfo knows the name and no way to move the cursor.
    Yes for a name that terminfo does not have: a new terminal, or one on the other side of SSH, is missing
    from many hosts (xterm-ghostty, xterm-kitty, tmux-256color), and some hosts have no terminfo at all.
    """
    term = environ.get("TERM", "")
    return term.lower() not in _NAMES_OF_NONE and not _is_known_without_cursor(term)


def _is_known_without_cursor(term: str) -> bool:
    try:
        import curses  # a Python may be built without it
    except ImportError:
        return False
    try:
        curses.setupterm(term, 2)  # without a descriptor it asks sys.stdout, which may be anything
        return curses.tigetstr("cup") is None
    except (curses.error, ValueError):
        return False
