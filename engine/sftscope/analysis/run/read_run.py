"""From the store to a run's history: in one go, or a few step files at a time, and looked for again later.

The latter is for a screen that paints in between and for a run that is still being written. A long run is then
read in passes, first a few steps spread over it, so that it is seen whole at once.
A file counts once it is renamed into place; one that is damaged, foreign or gone is named in `left_out`,
and tried again only when it has changed on the disk. One that cannot be read now is named there too, and tried again
at later looks, less and less often.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from sftscope.analysis.run.log_reader import LogReader
from sftscope.analysis.run.machines import Machine, machine_of
from sftscope.analysis.run.run_history import HistoryTable, RunHistory, check_sizes, read_placebos
from sftscope.files.opening import failed_to_read
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import own_command, safe_text
from sftscope.store import NoReaderError, RunFolder, StepRecord, TooSlowError, read_step_file
from sftscope.store.prompt_hashes import first_other, scored_in, stored_in

FIRST_PASSES = (16, 256)  # steps, spread over a run, that are shown while all of them are read
MOST_LOOKS = 64  # between two tries of a file that cannot be read
Mark = tuple[int, int]  # size in bytes and time of the last change in ns: what tells two versions of a file apart


def load_history(path: Path) -> RunHistory:
    """All extracted steps of the run folder at `path`; SftscopeError where there is none to read."""
    growing = GrowingHistory(path, first_passes=())
    growing.look()
    history = growing.read(inf)
    assert history is not None
    return history


@dataclass(eq=False)
class _Pass:
    """Steps that become one history: those still to be read, and what is read so far."""

    waiting: deque[int]
    table: HistoryTable
    is_last: bool
    steps: list[int] = field(default_factory=list)
    precision: Mapping[str, Any] = field(default_factory=dict)
    losses: list[Mapping[str, float]] = field(default_factory=list)
    machines: list[Machine] = field(default_factory=list)
    weights: list[str | None] = field(default_factory=list)


class GrowingHistory:
    """The step files of one run folder. For one thread; a `RunHistory` that it gave never changes.

    SftscopeError where the folder is no run, or has no probes yet.
    """

    def __init__(self, path: Path, first_passes: Sequence[int] = FIRST_PASSES) -> None:
        self.folder, self._first_passes = RunFolder(path), first_passes
        self._run = self.folder.read_run()
        self._probes, self._targets = self.folder.read_probes(), self.folder.read_targets()
        self._sizes = [len(probe.words) for probe in self._probes]
        self._marks: dict[int, Mark] = {}
        self._looked = False
        self._refused: dict[int, str] = {}
        self._unread: dict[Path, SftscopeError] = {}  # among them, and among the placebos
        self._pause = self._looks_left = 1  # looks from one try of them to the next
        self._passes: list[list[int]] = []
        self._now: _Pass | None = None
        self._logs = LogReader(self.folder)

    @property
    def pending(self) -> int:
        """Number of step files still to be read before the history is complete."""
        last = self._passes[-1] if self._passes else []
        under_way = self._now.waiting if self._now is not None and self._now.is_last else []
        return len(last) or len(under_way)

    @property
    def total(self) -> int:
        """Number of step files that were found."""
        return len(self._marks)

    @property
    def refused(self) -> tuple[str, ...]:
        """Why files were left out, in the order of their steps; safe to show."""
        return tuple(self._refused[step] for step in sorted(self._refused))

    def look(self) -> bool:
        """List the step files; whether one is new, changed or gone since the last look, so that all are read again.

        Or could not be read then, and can be read now.
        """
        found = {step: mark for step in self.folder.steps() if (mark := self._mark(step)) is not None}
        if self._looked and found == self._marks and not self._is_one_back():
            return False
        is_first, self._looked = not self._looked, True
        for step, mark in found.items():
            file = self.folder.step_file(step)
            if self._marks.get(step) != mark or file in self._to_try_again:
                self._refused.pop(step, None)
                self._unread.pop(file, None)
        for step in self._marks.keys() - found.keys():
            self._refused[step] = f"{self.folder.step_file(step).name}: was deleted while the run was open"
        self._marks, self._now = found, None
        steps = sorted(step for step in found if step not in self._refused)
        early = [_spread(steps, count) for count in self._first_passes if is_first and 2 * count < len(steps)]
        self._passes = [*early, steps]
        return True

    def read(self, seconds: float) -> RunHistory | None:
        """Read until `seconds` are over, at least one file; a history when a pass is done.

        SftscopeError where no step can be read at all.
        """
        until = monotonic() + seconds
        if self._now is None:
            if not self._passes:
                return None
            steps = self._passes.pop(0)
            self._now = _Pass(deque(steps), HistoryTable(len(steps), self._sizes), is_last=not self._passes)
        while self._now.waiting:
            self._take(self._now, self._now.waiting.popleft())
            if monotonic() > until and self._now.waiting:
                return None
        done, self._now = self._now, None
        if done.steps:
            return self._history(done)
        if not done.is_last:
            return None
        if self._unread:
            raise NotReadError(f"{self.folder.path}: no step can be read now: {self._lines(self._unread)[0]}")
        reason = f"; {self.refused[0]}" if self._refused else ""
        raise SftscopeError(
            f"{self.folder.path}: no extracted steps yet; run: {own_command('extract', self.folder.path)}{reason}"
        )

    def _take(self, current: _Pass, step: int) -> None:
        if step in self._refused:
            return
        try:
            record = self.folder.read_step(step)
            check_sizes(record, self._sizes, self.folder.step_file(step))
            self._check_prompts(record, self.folder.step_file(step))
            current.table.put(len(current.steps), record)
        except NoReaderError:
            current.waiting.insert(0, step)
            raise
        except SftscopeError as error:
            self._refused[step] = self._line(error)
            if isinstance(error, NotReadError):
                self._unread[self.folder.step_file(step)] = error
            return
        current.steps.append(step)
        current.losses.append(record.losses)
        current.machines.append(machine_of(record.provenance))
        current.weights.append(record.weights)
        precision = record.provenance.get("precision")
        current.precision = precision if isinstance(precision, Mapping) else current.precision

    def _check_prompts(self, record: StepRecord, file: Path) -> None:
        """SftscopeError where the step was scored on other prompts than the run's: it is not mixed with the others."""
        number = first_other(stored_in(self._run), scored_in(record.provenance))
        if number is not None:
            name = repr(self._probes[number].id) if number < len(self._probes) else f"number {number + 1}"
            raise SftscopeError(f"{file}: was scored on another prompt of probe {safe_text(name, max_length=80)}")

    def _history(self, done: _Pass) -> RunHistory:
        placebos, refused = read_placebos(self.folder, done.steps, self._sizes) if done.is_last else ((), {})
        if done.is_last:  # of earlier placebos nothing is known any more
            self._unread = {
                file: error for file, error in self._unread.items() if file.parent != self.folder.placebo_folder
            }
        self._unread |= {file: error for file, error in refused.items() if isinstance(error, NotReadError)}
        names = sorted({name for part in done.losses for name in part})
        losses = {name: np.array([part.get(name, np.nan) for part in done.losses]) for name in names}
        measured, held_out, problems = self._logs.read(done.steps, losses)
        return RunHistory(
            name=safe_text(self.folder.path.resolve().name, max_length=100),
            steps=np.array(done.steps, dtype=np.int64),
            losses=losses,
            probes=tuple(
                done.table.probe(index, len(done.steps), probe, target)
                for index, (probe, target) in enumerate(zip(self._probes, self._targets, strict=True))
            ),
            run=self._run,
            left_out=(*self.refused, *self._lines(refused)),
            not_read=self._lines(self._unread),
            machines=tuple(done.machines),
            placebos=placebos,
            precision=done.precision,
            measured=measured,
            held_out=held_out,
            log_problems=problems,
            same_weights=_repeated(done.steps, done.weights),
        )

    def _mark(self, step: int) -> Mark | None:
        """What tells a file's present version from others; None where it is not there any more."""
        file = self.folder.step_file(step)
        try:
            status = file.stat()
        except OSError as error:
            if isinstance(failed_to_read(file, error), NotReadError):
                return self._marks.get(step, (0, 0))  # nothing new is known; reading it says why
            return None
        return status.st_size, status.st_mtime_ns

    @property
    def _to_try_again(self) -> list[Path]:
        return [file for file, error in self._unread.items() if not isinstance(error, TooSlowError)]

    def _is_one_back(self) -> bool:
        """Whether a file that could not be read can be now; asked of one of them, and not at every look."""
        again = self._to_try_again
        self._looks_left -= 1
        if not again or self._looks_left > 0:
            return False
        self._pause = min(2 * self._pause, MOST_LOOKS)
        self._looks_left = self._pause
        try:
            read_step_file(again[0])
        except NotReadError:
            self._unread[again[0]] = self._unread.pop(again[0])  # another one first, the next time
            return False
        except SftscopeError:  # it is known now to be damaged
            pass
        self._pause = self._looks_left = 1
        return True

    def _lines(self, errors: Mapping[Path, SftscopeError]) -> tuple[str, ...]:
        return tuple(self._line(error) for error in errors.values())

    def _line(self, error: SftscopeError) -> str:
        return safe_text(str(error).replace(f"{self.folder.path}/", ""))


def _repeated(steps: Sequence[int], weights: Sequence[str | None]) -> dict[int, int]:
    """For each step whose weights an earlier one has: the first that has them."""
    first: dict[str, int] = {}
    known = [(step, own) for step, own in zip(steps, weights, strict=True) if own is not None]
    found = {step: first.setdefault(own, step) for step, own in known}
    return {step: other for step, other in found.items() if other != step}


def _spread(steps: Sequence[int], count: int) -> list[int]:
    """`count` of the steps, evenly spread, the first and the last among them."""
    return [steps[index * (len(steps) - 1) // (count - 1)] for index in range(count)]
