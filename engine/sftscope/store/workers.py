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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sftscope.errors import SftscopeError
from sftscope.files.opening import read_plain
from sftscope.store.atomic import is_dead, process_name, temporary_beside
from sftscope.store.claims import EXPIRES
from sftscope.text import safe_text

BEAT = 10.0  # seconds
WORKING, WAITING, ENDED, FAILED, INTERRUPTED = "working", "waiting", "ended", "failed", "interrupted"
LOST = "lost"  # never written: what a reader calls one that is silent
_MAX_BYTES = 4096


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


def _write(file: Path, worker: Worker) -> None:
    temporary = temporary_beside(file)
    with contextlib.suppress(OSError):  # a beat that cannot be written is missed, no more
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(worker)))
        temporary.replace(file)


def _read(file: Path, now: float) -> Worker | None:
    try:
        content = json.loads(read_plain(file, _MAX_BYTES))
        beat = os.lstat(file).st_mtime
        worker = Worker(
            name=safe_text(file.stem, max_length=60),
            state=safe_text(str(content["state"]), max_length=20),
            task=safe_text(str(content["task"]), max_length=60),
            probes=max(int(content["probes"]), 0),
            seconds=max(float(content["seconds"]), 0.0),
            failure=safe_text(str(content["failure"]), max_length=300),
        )
    except (OSError, SftscopeError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if worker.state in (WORKING, WAITING) and (is_dead(worker.name) or now - beat > EXPIRES):
        worker.state = LOST
    return worker
