"""The losses that another trainer logged: `trainer_state.json` of its checkpoints, LLaMA-Factory's `trainer_log.jsonl`.

Values are taken as they stand at their step; nothing is filled in between. Checkpoints of one training
share the beginning of their logs; where they do not, they are of two, and are never made into one run.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sftscope.files.json_text import json_rows
from sftscope.files.opening import read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.store.checkpoints import Checkpoint, losses_of
from sftscope.store.log_rows import log_row

TRAINER_LOG = "trainer_log.jsonl"
_COMPARED = ("loss", "eval_loss", "grad_norm", "learning_rate")
# Relative. Other batches or another GPU change a loss of the same weights in its 6th to 7th digit (float32); trainings
# with other seeds, data or learning rates differ in the 1st to 3rd, at some step that both logged.
_TOLERANCE = 1e-4
_OF_A_SET = re.compile(r"eval_(.+)_loss")


def refuse_two_trainings(checkpoints: Iterable[Checkpoint]) -> None:
    """SftscopeError where two checkpoints cannot be of one training: their logs differ at a step both have."""
    refuse_two_logs(logs_of(checkpoints))


def logs_of(checkpoints: Iterable[Checkpoint]) -> list[tuple[Path, Sequence[Mapping[str, Any]]]]:
    """Path and log of each; the log is empty where there is none."""
    return [(checkpoint.path, _history(checkpoint)) for checkpoint in checkpoints]


def refuse_two_logs(logs: Iterable[tuple[Path, Sequence[Mapping[str, Any]]]]) -> None:
    """SftscopeError where two logs, each of a checkpoint or a training at its path, differ at a step both have.

    A step that was evaluated again, on resuming, has several values: one that both have is enough.
    """
    seen: dict[tuple[int, str], tuple[list[float], Path]] = {}
    for path, log in logs:
        for place, values in _compared(log).items():
            known, other = seen.setdefault(place, (values, path))
            if not any(_agree(value, before) for value in values for before in known):
                step, name = place
                raise SftscopeError(
                    f"{path}: not of the same training as {other.name}: their logs have the "
                    f"{safe_text(name, max_length=80)} {values[0]:.9g} and {known[0]:.9g} at step {step}; move one of "
                    "them away, or choose --steps"
                )


def _agree(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_TOLERANCE) or (one != one and other != other)  # NaN is itself


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


def log_rows(checkpoints: Sequence[Checkpoint], folder: Path | None, eval_set: str = "") -> list[dict[str, Any]]:
    """Rows of a run's training log, by step: `train` and `eval` loss, learning rate, gradient norm.

    A row of kind `checkpoint` has the eval loss at step 0 or at a checkpoint; `batch` has the running loss. Of a step
    that was evaluated again the first value counts, which is what the training saw there.
    eval_set: which of several; see `choose_eval_set`.
    """
    steps = {0, *(checkpoint.step for checkpoint in checkpoints)}
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    history = [row for checkpoint in checkpoints for row in _history(checkpoint)]
    for row in [*history, *(_factory_rows(folder / TRAINER_LOG) if folder else ())]:
        step, losses = row["step"], losses_of(row, eval_set)
        if not losses:
            continue
        kind = "batch" if "train" in losses else "checkpoint" if step in steps else "eval"
        extra = {key: row[key] for key in ("learning_rate", "grad_norm") if key in row}
        rows.setdefault((step, kind), {"step": step, "kind": kind, **losses, **extra})
    return [rows[place] for place in sorted(rows)]


def as_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """The rows as JSONL."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def is_finished(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint is the last of its training: its steps are done, or a callback had stopped it."""
    state = checkpoint.trainer_state()
    return state is not None and state.is_finished


def _compared(log: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], list[float]]:
    """The values of what is compared, by step and name, in the order of the log."""
    found: dict[tuple[int, str], list[float]] = {}
    for row in log:
        for name in row:
            if name in _COMPARED or _OF_A_SET.fullmatch(name):
                found.setdefault((row["step"], name), []).append(row[name])
    return found


def _history(checkpoint: Checkpoint) -> Sequence[Mapping[str, Any]]:
    state = checkpoint.trainer_state()
    return state.log if state is not None else ()


def _factory_rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of LLaMA-Factory's log, with its names made the Trainer's; a torn last line is left out."""
    try:
        found = json_rows(read_plain(path))
    except (OSError, SftscopeError):
        return []
    rows = (log_row({**row, "learning_rate": row.get("lr")}, "current_steps") for row in found)
    return [row for row in rows if row is not None]
