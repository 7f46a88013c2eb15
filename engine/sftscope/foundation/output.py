"""The one way out: everything that this program prints passes here and is made safe, whoever built it.

A line of defence, not the only one: text from files is made safe where it is read or laid out too. ruff (T20) finds
a `print` anywhere else.
"""

import sys
import traceback
from types import TracebackType

from sftscope.foundation.safe_text import safe_lines, safe_text


def put(text: str, *, end: str = "\n") -> None:
    """A result on stdout: lines of text, or JSON."""
    print(safe_lines(text), end=end)


def put_error(line: str) -> None:
    """One line of diagnostics on stderr, whatever is in it."""
    print(safe_text(line), file=sys.stderr, flush=True)


def put_usage(text: str) -> None:
    """Lines on stderr about a command that was called wrongly; they repeat what was typed."""
    print(safe_lines(text), end="", file=sys.stderr, flush=True)


def put_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error of the program itself, in place of `sys.excepthook`: its text may hold what a file or a name held."""
    print(safe_lines("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr, flush=True)
