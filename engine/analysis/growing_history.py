"""A run's history while it is read: step files are taken a few at a time, and looked for again later.

What `load_history` does in one go, for a screen that paints in between and for a run that is still
being written. A file counts once it is renamed into place; one that is damaged, foreign or gone is named
in `left_out`, and tried again only when it has changed on the disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from engine.analysis.history import Placebo, ProbeHistory, RunHistory
from engine.errors import SftscopeError
from engine.interactions import Floats
from engine.store import RunFolder, StepRecord
from engine.text import safe_text

Mark = tuple[int, int]  # size in bytes and time of the last change in ns: what tells two versions of a file apart


@dataclass(eq=False)
class _Rows:
    """One row a step file, M masked states of all probes together; rows are written once and never again.

    scores: (R, M). effects: (R, 2, M), axis 1 by Relation. per_probe: (R, 3, P), ζ, gap, noise.
    """

    scores: Floats
    effects: Floats
    per_probe: Floats
    used: int = 0

    @classmethod
    def of(cls, rows: int, states: int, probes: int) -> "_Rows":
        return cls(np.empty((rows, states)), np.empty((rows, 2, states)), np.empty((rows, 3, probes)))

    def grown(self, rows: int) -> "_Rows":
        """The same rows with room for `rows`; views of the old arrays stay as they are."""
        larger = self.of(rows, self.scores.shape[1], self.per_probe.shape[2])
        for name in ("scores", "effects", "per_probe"):
            getattr(larger, name)[: self.used] = getattr(self, name)[: self.used]
        larger.used = self.used
        return larger

    def put(self, row: int, record: StepRecord) -> None:
        assert record.effects is not None
        self.scores[row] = record.scores
        self.effects[row] = record.effects.and_effects, record.effects.or_effects
        self.per_probe[row] = record.effects.zeta, record.effects.gap, record.noise


class GrowingHistory:
    """The step files of one run folder, read so far. For one thread; a `RunHistory` taken from it never changes.

    SftscopeError where the folder is no run, or has no probes yet.
    """

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path)
        self._run = self.folder.read_run()
        self._probes, self._targets = self.folder.read_probes(), self.folder.read_targets()
        self._sizes = [len(probe.words) for probe in self._probes]
        self._offsets = np.concatenate([[0], np.cumsum([1 << n for n in self._sizes])])
        self._rows: _Rows | None = None
        self._row_of: dict[int, int] = {}
        self._losses: dict[int, Mapping[str, float]] = {}
        self._marks: dict[int, Mark] = {}
        self._refused: dict[int, str] = {}
        self._pending: list[int] = []
        self._reserved: dict[int, int] = {}

    @property
    def pending(self) -> int:
        """Number of step files that are known and not read yet."""
        return len(self._pending)

    @property
    def loaded(self) -> int:
        """Number of steps that `history` would have."""
        return len(self._row_of)

    @property
    def total(self) -> int:
        """Number of step files that were found."""
        return len(self._marks)

    @property
    def refused(self) -> tuple[str, ...]:
        """Why files were left out, in the order of their steps; safe to show."""
        return tuple(self._refused[step] for step in sorted(self._refused))

    def look(self) -> bool:
        """List the step files; whether one is new, changed or gone since the last look."""
        found = {step: mark for step in self.folder.steps() if (mark := _mark(self.folder.step_file(step))) is not None}
        gone = [step for step in self._marks if step not in found]
        fresh = sorted(step for step, mark in found.items() if self._marks.get(step) != mark)
        for step in [*gone, *fresh]:
            self._forget(step)
        for step in gone:
            self._refused[step] = f"{self.folder.step_file(step).name}: was deleted while the run was open"
        self._marks = found
        self._pending += fresh
        self._reserve(fresh)
        self._pending = _ends_first(sorted(self._pending))
        return bool(gone or fresh)

    def read(self, seconds: float) -> int:
        """Read pending files, at least one where there is one, until `seconds` are over; returns how many."""
        until, count = monotonic() + seconds, 0
        while self._pending and (not count or monotonic() < until):
            self._take(self._pending.pop(0))
            count += 1
        return count

    def history(self) -> RunHistory:
        """The steps that are read so far; SftscopeError where there is none."""
        steps = sorted(self._row_of)
        if not steps or self._rows is None:
            reason = f"; {self.refused[0]}" if self._refused else ""
            raise SftscopeError(
                f"{self.folder.path}: no extracted steps yet; run 'sftscope extract {self.folder.path}'{reason}"
            )
        rows = np.array([self._row_of[step] for step in steps], dtype=np.int64)
        whole = _at_rows(self._rows, rows)
        left_out = list(self.refused)
        names = sorted({name for step in steps for name in self._losses[step]})
        return RunHistory(
            name=safe_text(self.folder.path.resolve().name, max_length=100),
            steps=np.array(steps, dtype=np.int64),
            losses={name: np.array([self._losses[step].get(name, np.nan) for step in steps]) for name in names},
            probes=tuple(self._probe(index, whole) for index in range(len(self._probes))),
            run=self._run,
            placebos=() if self._pending else self._placebos(steps, left_out),
            left_out=tuple(left_out),
        )

    def _forget(self, step: int) -> None:
        for kept in (self._row_of, self._losses, self._refused, self._reserved):
            kept.pop(step, None)
        self._pending = [other for other in self._pending if other != step]

    def _reserve(self, fresh: Sequence[int]) -> None:
        """A row for each file to come, in the order of the steps, so that a run read once lies in order."""
        if not fresh:
            return
        if self._rows is None:
            self._rows = _Rows.of(len(fresh), int(self._offsets[-1]), len(self._sizes))
        need = self._rows.used + len(fresh)
        if need > self._rows.scores.shape[0]:
            self._rows = self._rows.grown(max(need, 2 * self._rows.used))
        for step in fresh:
            self._reserved[step] = self._rows.used
            self._rows.used += 1

    def _take(self, step: int) -> None:
        file = self.folder.step_file(step)
        try:
            record = self.folder.read_step(step)
            _check_sizes(record, self._sizes, file)
        except SftscopeError as error:
            self._refused[step] = _reason(error, self.folder)
            return
        assert self._rows is not None
        self._rows.put(self._reserved[step], record)
        self._row_of[step] = self._reserved[step]
        self._losses[step] = record.losses

    def _probe(self, index: int, whole: _Rows) -> ProbeHistory:
        part = slice(int(self._offsets[index]), int(self._offsets[index + 1]))
        return ProbeHistory(
            probe=self._probes[index],
            target=self._targets[index],
            scores=whole.scores[:, part],
            effects=whole.effects[:, :, part],
            zeta=whole.per_probe[:, 0, index],
            gap=whole.per_probe[:, 1, index],
            noise=whole.per_probe[:, 2, index],
        )

    def _placebos(self, steps: Sequence[int], left_out: list[str]) -> tuple[Placebo, ...]:
        """The placebos of `steps`; appends to `left_out` why others are not used."""
        found = []
        for step in self.folder.placebo_steps():
            try:
                record = self.folder.read_placebo(step)
                _check_sizes(record, self._sizes, self.folder.placebo_file(step))
            except SftscopeError as error:
                left_out.append(_reason(error, self.folder))
                continue
            if step not in steps or record.effects is None:
                left_out.append(f"placebo of step {step}: this step is not among those that were read")
                continue
            both = np.stack([record.effects.and_effects, record.effects.or_effects])
            parts = tuple(both[:, record.probe_slice(index)] for index in range(len(self._sizes)))
            found.append(Placebo(step, parts, record.noise))
        return tuple(found)


def _mark(file: Path) -> Mark | None:
    """What tells a file's present version from others; None where it is not there any more."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _reason(error: SftscopeError, folder: RunFolder) -> str:
    return safe_text(str(error).replace(f"{folder.path}/", ""))


def _check_sizes(record: StepRecord, sizes: Sequence[int], file: Path) -> None:
    if record.n_variables.tolist() != list(sizes):
        raise SftscopeError(f"{file}: its probes are not the probes of this run")


def _at_rows(rows: _Rows, chosen: NDArray[np.int64]) -> _Rows:
    """The chosen rows: without a copy where they lie one after the other, which is the usual case."""
    first, last = int(chosen[0]), int(chosen[-1])
    index: slice | NDArray[np.int64] = chosen
    if last - first + 1 == chosen.size and np.all(np.diff(chosen) == 1):
        index = slice(first, last + 1)
    return _Rows(rows.scores[index], rows.effects[index], rows.per_probe[index])


def _ends_first(steps: Sequence[int]) -> list[int]:
    """The last, the first, then ever finer in between, so that a run that is half read is seen whole."""
    if len(steps) < 3:
        return list(steps[::-1])
    last = len(steps) - 1
    order = [last, 0]
    stride = 1 << (last.bit_length() - 1)
    while stride:
        order += range(stride, last, 2 * stride)
        stride //= 2
    return [steps[index] for index in order]
