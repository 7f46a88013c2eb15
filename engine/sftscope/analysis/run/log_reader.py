"""The training log and the held-out rows of a run, read again only where they changed on the disk."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sftscope.analysis.run.measured import Measured, measured_losses
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.lattice.transforms import Floats
from sftscope.store import RunFolder
from sftscope.store.held_out_file import HeldOutRows, read_held_out

_NAMES = ("train", "eval", "accuracy")
_Mark = tuple[int, int] | None  # size in bytes and time of the last change in ns; None where that is not known
_Rows = tuple[HeldOutRows | None, tuple[str, ...]]
_Content = TypeVar("_Content")


class LogReader:
    """For one thread. What cannot be read is empty, with a line that says why."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._kept: dict[Path, tuple[_Mark, Any]] = {}

    def read(
        self, steps: Sequence[int], losses: Mapping[str, Floats]
    ) -> tuple[dict[str, Measured], HeldOutRows | None, tuple[str, ...]]:
        """What was measured, by name; the held-out rows; and what of both is not used, in safe lines.

        steps, losses: those of the step files.
        """
        folder = self._folder
        empty: tuple[dict[str, Any], ...] = ()
        log, refused = self._read(folder.training_log, folder.read_log, empty)
        none: _Rows = (None, ())
        (rows, problems), refused_rows = self._read(folder.held_out_file, partial(read_held_out, folder), none)
        names = dict.fromkeys((*_NAMES, *losses))
        given = {name: values.tolist() for name, values in losses.items()}
        measured = measured_losses(names, log, steps, given)
        return {**_of_rows(rows), **measured}, rows, (*refused, *refused_rows, *problems)

    def _read(self, file: Path, read: Callable[[], _Content], nothing: _Content) -> tuple[_Content, tuple[str, ...]]:
        """The content of a file, or `nothing` and the line that says why."""
        mark = _mark(file)
        known = self._kept.get(file)
        if known is None or mark is None or known[0] != mark:
            try:
                known = mark, (read(), ())
            except SftscopeError as error:
                known = None, (nothing, (safe_text(str(error).replace(f"{self._folder.path}/", "")),))
            self._kept[file] = known
        found: tuple[_Content, tuple[str, ...]] = known[1]
        return found


def _of_rows(rows: HeldOutRows | None) -> dict[str, Measured]:
    """What the held-out rows say together, for a run whose log does not."""
    if rows is None:
        return {}
    found = {"eval": Measured(rows.steps, rows.loss_per_token), "accuracy": Measured(rows.correct_steps, rows.accuracy)}
    return {name: each for name, each in found.items() if each.steps.size}


def _mark(file: Path) -> _Mark:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
