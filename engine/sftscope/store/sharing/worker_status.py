"""What each worker of a run does: one small file each, replaced atomically at every beat, read by `sftscope status`.

Nobody waits for these files or decides by them; claims and results do that. A beat is two renames' worth of
metadata operations every `BEAT` seconds, so 1,000 workers ask 100 small writes a second of a shared file system
at most; `BEAT` is what to raise where that is too much. They are not synced: a power cut may cost the last one.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftscope.files.atomic import is_dead, process_name, temporary_beside
from sftscope.files.claims import EXPIRES
from sftscope.files.json_text import count, finite, read_json_object
from sftscope.files.opening import make_folder, open_new
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

BEAT = 10.0  # seconds
WORKING, WAITING, ENDED, FAILED, INTERRUPTED = "working", "waiting", "ended", "failed", "interrupted"
LOST = "lost"  # never written: what a reader calls one that is silent
_STATES = (WORKING, WAITING, ENDED, FAILED, INTERRUPTED)
_MAX_BYTES = 4096
_MOST_SECONDS = 1e9


@dataclass
class Worker:
    """A worker's own account. probes: how many it has scored; seconds: since it began."""

    name: str
    state: str = WAITING
    task: str = ""
    probes: int = 0
    seconds: float = 0.0
    failure: str = ""


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[Worker]:
    """A `Worker` that is written into `folder` every `BEAT` seconds, and at the end with how it ended."""
    worker, begun, done = Worker(process_name()), time.monotonic(), threading.Event()

    def write() -> None:
        worker.seconds = round(time.monotonic() - begun, 3)
        _write(folder / f"{worker.name}.json", worker)

    def beat() -> None:
        write()
        while not done.wait(BEAT):
            write()

    heart = threading.Thread(target=beat, name="sftscope-worker", daemon=True)
    heart.start()
    try:
        yield worker
        worker.state = ENDED
    except Exception as error:  # said in the file, and raised again as it is
        worker.state, worker.failure = FAILED, safe_text(str(error) or type(error).__name__, max_length=300)
        raise
    except BaseException:  # a signal: Ctrl-C, preemption; raised again as it is
        worker.state = INTERRUPTED
        raise
    finally:
        done.set()
        heart.join()
        worker.task = "" if worker.state == ENDED else worker.task
        write()


def read_workers(folder: Path, now: float | None = None) -> tuple[Worker, ...]:
    """All workers by name; those that ended without a word, or are silent for `EXPIRES` seconds, as `LOST`.

    now: seconds since 1970, by the clock of the file system as far as that is known. Files that are none of
    ours are left out.
    """
    now = time.time() if now is None else now
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix == ".json" and not file.name.startswith("."))
    except OSError:  # no workers, or none whose file can be read
        return ()
    found = (_read(file, now) for file in files)
    return tuple(worker for worker in found if worker is not None)


def _text(content: Mapping[str, Any], key: str, max_length: int) -> str:
    value = content.get(key)
    return safe_text(value, max_length=max_length) if isinstance(value, str) else ""


def _seconds(content: Mapping[str, Any]) -> float:
    """As a worker counts them: thousandths, from 0 on; 0 where there is nothing of the kind."""
    value = finite(content.get("seconds"))
    return round(min(max(value, 0.0), _MOST_SECONDS), 3) if value == value else 0.0


def _write(file: Path, worker: Worker) -> None:
    temporary = temporary_beside(file)
    with contextlib.suppress(OSError):  # a beat that cannot be written is missed, no more
        make_folder(file.parent)
        with open(open_new(temporary), "w", encoding="utf-8") as written:  # noqa: PTH123  # a descriptor has no path
            json.dump(asdict(worker), written)
        temporary.replace(file)


def _read(file: Path, now: float) -> Worker | None:
    try:
        content = read_json_object(file, _MAX_BYTES)
        beat = os.lstat(file).st_mtime
        worker = Worker(
            name=safe_text(file.stem, max_length=60),
            state=_text(content, "state", 20),
            task=_text(content, "task", 60),
            probes=count(content.get("probes")) or 0,
            seconds=_seconds(content),
            failure=_text(content, "failure", 300),
        )
    except (OSError, SftscopeError):
        return None
    if worker.state not in _STATES:
        return None
    if worker.state in (WORKING, WAITING) and (is_dead(worker.name) or now - beat > EXPIRES):
        worker.state = LOST
    return worker
