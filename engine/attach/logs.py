"""The losses that another trainer logged: `trainer_state.json` of its checkpoints, LLaMA-Factory's `trainer_log.jsonl`.

Values are taken as they stand at their step; nothing is filled in between. Checkpoints of one training
share the beginning of their logs; where they do not, they are of two, and are never made into one run.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import SftscopeError
from engine.store.checkpoints import Checkpoint, losses_of

TRAINER_LOG = "trainer_log.jsonl"
_COMPARED = ("loss", "eval_loss", "grad_norm")


def refuse_two_trainings(checkpoints: Sequence[Checkpoint]) -> None:
    """SftscopeError where two checkpoints cannot be of one training: their logs differ at a step both have."""
    seen: dict[tuple[int, str], tuple[float, Checkpoint]] = {}
    for checkpoint in checkpoints:
        mine = _logged(checkpoint)
        for place, value in mine.items():
            other = seen.setdefault(place, (value, checkpoint))
            if other[0] != value and not (other[0] != other[0] and value != value):  # NaN is itself
                step, name = place
                raise SftscopeError(
                    f"{checkpoint.path}: not of the same training as {other[1].path.name}: their logs have the {name} "
                    f"{value:g} and {other[0]:g} at step {step}; move one of them away, or choose --steps"
                )


def log_rows(checkpoints: Sequence[Checkpoint], folder: Path) -> list[dict[str, Any]]:
    """Rows of a run's training log, by step: `train` and `eval` loss, learning rate, gradient norm.

    A row of kind `checkpoint` has the eval loss at step 0 or at a checkpoint; `batch` has the running loss.
    """
    steps = {0, *(checkpoint.step for checkpoint in checkpoints)}
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    history = [row for checkpoint in checkpoints for row in _history(checkpoint)]
    for row in [*history, *_factory_rows(folder / TRAINER_LOG)]:
        step, losses = row.get("step"), losses_of(row)
        if type(step) is not int or not losses:
            continue
        kind = "batch" if "train" in losses else "checkpoint" if step in steps else "eval"
        extra = {key: row[key] for key in ("learning_rate", "grad_norm") if isinstance(row.get(key), int | float)}
        rows.setdefault((step, kind), {"step": step, "kind": kind, **losses, **extra})
    return [rows[place] for place in sorted(rows)]


def as_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The rows as JSONL."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def is_finished(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is the last of its training."""
    state = checkpoint.trainer_state() or {}
    last = state.get("max_steps")
    return type(last) is int and 0 < last <= checkpoint.step


def _logged(checkpoint: Checkpoint) -> dict[tuple[int, str], float]:
    return {
        (row["step"], name): float(row[name])
        for row in _history(checkpoint)
        for name in _COMPARED
        if type(row.get("step")) is int and isinstance(row.get(name), int | float)
    }


def _history(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    rows = (checkpoint.trainer_state() or {}).get("log_history")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _factory_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of LLaMA-Factory's log, with its names made the Trainer's; a torn last line is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append({**row, "step": row.get("current_steps"), "learning_rate": row.get("lr")})
    return rows
