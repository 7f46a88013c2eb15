"""Progress of long work on stderr: a bar with rate and time left in a terminal that can move its cursor, else lines.

Within another program (`hosted`) lines go to its logging, and no bar is drawn.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Protocol

from sftscope.foundation.output import put_error
from sftscope.foundation.safe_text import safe_text, whole_number
from sftscope.foundation.terminal import can_move_cursor, is_terminal

PLAIN_INTERVAL = 10.0
_hosted = ContextVar("hosted", default=False)


class Progress(Protocol):
    """What work reports to: how many of a total are done, and a note on what is being done."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def is_first_process() -> bool:
    """Whether this is the one process, or the first of those that torchrun or accelerate launch started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def hosted() -> Iterator[None]:
    """Inside, our work runs in another program: what is said goes to the logger `sftscope`."""
    token = _hosted.set(True)
    try:
        yield
    finally:
        _hosted.reset(token)


def say(line: str, level: int = logging.INFO) -> None:
    """One line of diagnostics on stderr, whatever is in it; of several processes the first one speaks."""
    if not is_first_process():
        return
    if _hosted.get():
        _log(line, level)
    else:
        put_error(line)


def _log(line: str, level: int) -> None:
    """To the handlers that the program configured for our logger or for all; to stderr where it configured none.

    No handler of ours is installed: it would count as one of the program's, and repeat what its others print.
    """
    logger = logging.getLogger("sftscope")
    if logger.hasHandlers():
        logger.log(level, "%s", safe_text(line.removeprefix("sftscope: ")), stacklevel=3)
    elif level >= logger.level and logger.manager.disable < level:  # the level of root is for its handlers
        put_error(line)


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A `Progress` on stderr for the duration of the block."""
    if not is_first_process():
        yield lambda done, total, note="": None
    elif is_terminal(sys.stderr) and can_move_cursor() and not _hosted.get():
        yield from _bar(title)
    else:
        yield _plain(title)


def _bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    for name in ("COLUMNS", "LINES"):
        if whole_number(os.environ.get(name, "0")) is None:  # rich would end in a traceback
            del os.environ[name]
    console = Console(stderr=True)
    bar = Bar(*columns, console=console, transient=False)
    task = bar.add_task(safe_text(title), total=None, note="", rate="")
    started = time.monotonic()

    def report(done: int, total: int, note: str = "") -> None:
        elapsed = time.monotonic() - started
        rate = f"{done / elapsed:.2g}/s" if done and elapsed > 0 else ""
        bar.update(task, completed=done, total=total, note=safe_text(note), rate=rate)

    try:
        with bar:
            yield report
    finally:  # a bar that was interrupted while it started still runs, its cursor hidden
        with suppress(IndexError):
            bar.stop()
        console.show_cursor()


def _plain(title: str) -> Progress:
    started = time.monotonic()
    last = -PLAIN_INTERVAL

    def report(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic() - started
        if now - last < PLAIN_INTERVAL and done < total:
            return
        last = now
        left = f", about {now / done * (total - done):.0f} s left" if 0 < done < total else ""
        say(f"{title}: {done}/{total} after {now:.0f} s{left}{f' ({note})' if note else ''}")

    return report
