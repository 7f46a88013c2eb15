"""Losses and accuracy at the steps where a training measured them, also between its checkpoints."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHECKPOINT = "checkpoint"  # kind of a row of the log that was measured at a checkpoint, on fixed rows
_RUNNING = "train"  # what a log has of its batches too


@dataclass(frozen=True, eq=False)
class Measured:
    """One quantity at M steps, in order; finite. Losses in nats a token of the answer, accuracy as a share of 1."""

    steps: NDArray[np.int64]  # (M,)
    values: NDArray[np.float64]  # (M,)

    def until(self, step: int) -> "Measured":
        """What was measured at steps up to `step`."""
        past = self.steps <= step
        return Measured(self.steps[past], self.values[past])


def measured_losses(
    names: Iterable[str],
    log: Sequence[Mapping[str, Any]],
    steps: Sequence[int],
    losses: Mapping[str, Sequence[float]],
) -> dict[str, Measured]:
    """Each of `names` that was measured anywhere: what the log has, and at `steps` what the step files have.

    log: rows of the training log; the last value at a step counts. losses: by name, one for each of `steps`. Where a
    training was measured on fixed rows at checkpoints, the running loss of its batches is something else and not taken.
    """
    found = {}
    for name in names:
        values = _logged(name, log) | dict(zip(steps, losses.get(name, ()), strict=False))
        kept = sorted((step, value) for step, value in values.items() if isfinite(value))
        if kept:
            at, what = zip(*kept, strict=True)
            found[name] = Measured(np.array(at, dtype=np.int64), np.array(what, dtype=np.float64))
    return found


def _logged(name: str, log: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """By step. Of a training loss only what was measured on fixed rows, where there is such."""
    rows = [row for row in log if name in row]
    fixed = [row for row in rows if row.get("kind") == _CHECKPOINT]
    return {row["step"]: row[name] for row in (fixed if fixed and name == _RUNNING else rows)}
