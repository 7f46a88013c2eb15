"""How far the writer of a run is: what is trained, what is extracted, and since when nothing happened.

Reads the training log, the workers' own files and the times of files; never opens a step file and never writes.
"""

import time
from dataclasses import dataclass

from sftscope.foundation.errors import SftscopeError
from sftscope.store import RunFolder
from sftscope.store.sharing.run_status import run_status

DEAD_AFTER = 300.0  # seconds without a change after which a writer is presumed dead


@dataclass(frozen=True)
class WriterProgress:
    """trained: last step in the training log, None without one. checkpoints: steps that the training
    kept; extracted: how many of them have a step file. silent: seconds since a file of the run changed.
    workers: `RunStatus.sentence` of the workers that extract it."""

    trained: int | None
    checkpoints: int
    extracted: int
    silent: float
    workers: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether every checkpoint that was kept is extracted."""
        return self.extracted >= self.checkpoints

    @property
    def is_dead(self) -> bool:
        """Whether there is work left and nobody has done any for `DEAD_AFTER` seconds."""
        return not self.is_complete and self.silent > DEAD_AFTER

    @property
    def sentence(self) -> str:
        """The state in a few words; empty for a run without work left."""
        if self.is_complete:
            return ""
        if self.workers:
            text = f"{self.extracted} of {self.checkpoints} extracted; workers: {self.workers}"
        else:
            trained = f"trained to step {self.trained}, " if self.trained is not None else ""
            text = f"{trained}{self.extracted} of {self.checkpoints} checkpoints extracted"
        if self.is_dead:
            text += f"; no file changed for {self.silent / 60:.0f} min, the writer is presumed dead"
        return text


def writer_progress(folder: RunFolder, now: float | None = None) -> WriterProgress:
    """The progress of whoever writes into `folder`, at the time `now` (seconds since 1970)."""
    try:
        rows = folder.read_log()
    except SftscopeError:
        rows = ()
    kept = {row["step"] for row in rows if row.get("kind") == "checkpoint"}
    extracted = set(folder.steps())
    return WriterProgress(
        trained=max((row["step"] for row in rows), default=None),
        checkpoints=len(kept | extracted),
        extracted=len(extracted),
        silent=max((time.time() if now is None else now) - _last_change(folder), 0.0),
        workers=_workers(folder, now),
    )


def _workers(folder: RunFolder, now: float | None) -> str:
    try:
        return run_status(folder, now).sentence if folder.workers_folder.is_dir() else ""
    except SftscopeError:  # of a run that is damaged, which whoever reads it will say
        return ""


def _last_change(folder: RunFolder) -> float:
    """The latest change among the run's own files and folders: a rename into a folder changes the folder."""
    latest = 0.0
    folders = (folder.steps_folder, folder.checkpoints, folder.placebo_folder, folder.workers_folder)
    for path in (folder.run_file, folder.training_log, *folders):
        try:
            latest = max(latest, path.stat().st_mtime)
        except OSError:  # not there yet, or not any more
            continue
    return latest
