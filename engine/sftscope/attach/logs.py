"""The losses that another trainer logged: `trainer_state.json` of its checkpoints, LLaMA-Factory's `trainer_log.jsonl`.

Values are taken as they stand at their step; nothing is filled in between. Checkpoints of one training
share the beginning of their logs; where they do not, they are of two, and are never made into one run.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftscope.errors import SftscopeError
from sftscope.files.opening import read_plain
from sftscope.store.checkpoints import Checkpoint, losses_of
from sftscope.text import safe_text

TRAINER_LOG = "trainer_log.jsonl"
_COMPARED = ("loss", "eval_loss", "grad_norm")
_OF_A_SET = re.compile(r"eval_(.+)_loss")


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


def eval_sets(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The names of the sets that a training evaluated on, as they come in its logs: `a` of `eval_a_loss`.

    Empty where it had one set without a name (`eval_loss`); what else ends in `_loss` is then a metric of its own.
    """
    history = [row for checkpoint in checkpoints for row in _history(checkpoint)]
    if any("eval_loss" in row for row in history):
        return ()
    return tuple(dict.fromkeys(match[1] for row in history for name in row if (match := _OF_A_SET.fullmatch(name))))


def choose_eval_set(checkpoints: Sequence[Checkpoint], wanted: str) -> str:
    """The set whose loss is the held-out one: `wanted`, or the first that is not named after the training rows.

    Empty where the sets have no names.

    SftscopeError where `wanted` is not among those that were evaluated so far.
    """
    sets = eval_sets(checkpoints)
    logged = {name for checkpoint in checkpoints for row in _history(checkpoint) for name in row}
    evaluated = sets or "eval_loss" in logged
    if wanted and evaluated and f"eval_{wanted}_loss" not in logged:
        known = ", ".join(safe_text(name, max_length=40) for name in sets[:8]) or "one set without a name"
        raise SftscopeError(f"--eval-set {safe_text(wanted, max_length=40)}: the training evaluated on {known}")
    held_out = [name for name in sets if not name.startswith("train")]
    return wanted or next(iter(held_out or sets), "")


def log_rows(checkpoints: Sequence[Checkpoint], folder: Path, eval_set: str = "") -> list[dict[str, Any]]:
    """Rows of a run's training log, by step: `train` and `eval` loss, learning rate, gradient norm.

    A row of kind `checkpoint` has the eval loss at step 0 or at a checkpoint; `batch` has the running loss.
    eval_set: which of several; see `choose_eval_set`.
    """
    steps = {0, *(checkpoint.step for checkpoint in checkpoints)}
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    history = [row for checkpoint in checkpoints for row in _history(checkpoint)]
    for row in [*history, *_factory_rows(folder / TRAINER_LOG)]:
        step, losses = row.get("step"), losses_of(row, eval_set)
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
    """Whether a checkpoint is the last of its training: its steps are done, or a callback had stopped it."""
    state = checkpoint.trainer_state() or {}
    last = state.get("max_steps")
    return (type(last) is int and 0 < last <= checkpoint.step) or _was_stopped(state)


def _was_stopped(state: Mapping[str, Any]) -> bool:
    """What an early stop leaves in `trainer_state.json`: the Trainer saves its control beside its callbacks."""
    found: Any = state
    for name in ("stateful_callbacks", "TrainerControl", "args", "should_training_stop"):
        found = found.get(name) if isinstance(found, dict) else None
    return found is True


def _logged(checkpoint: Checkpoint) -> dict[tuple[int, str], float]:
    return {
        (row["step"], name): float(row[name])
        for row in _history(checkpoint)
        for name in row
        if (name in _COMPARED or _OF_A_SET.fullmatch(name))
        if type(row.get("step")) is int and isinstance(row.get(name), int | float)
    }


def _history(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    rows = (checkpoint.trainer_state() or {}).get("log_history")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _factory_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of LLaMA-Factory's log, with its names made the Trainer's; a torn last line is left out."""
    try:
        lines = read_plain(path).decode("utf-8", errors="replace").split("\n")
    except (OSError, SftscopeError):
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
