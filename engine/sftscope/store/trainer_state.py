"""`trainer_state.json`, which HF Trainer and all that build on it write last into a checkpoint: read and checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftscope.files.json_text import count, finite, lookup, read_json_object
from sftscope.foundation.errors import SftscopeError
from sftscope.store.log_rows import log_row
from sftscope.store.steps.step_record import MAX_STEP

STATE = "trainer_state.json"
_BEST = ("best_global_step", "best_model_checkpoint")


@dataclass(frozen=True)
class TrainerState:
    """What it says of a training. log: rows as `log_row` makes them. max_steps, epochs, batch_size: None where the
    file has none that makes sense. was_stopped: by a callback, before its last step. has_best: whether the trainer
    kept a best step, which its weights may be those of; best_step: which, None where that is not certain."""

    step: int
    max_steps: int | None
    epochs: float | None
    batch_size: int | None
    was_stopped: bool
    has_best: bool
    best_step: int | None
    log: Sequence[Mapping[str, Any]]

    @property
    def is_finished(self) -> bool:
        """Whether the training ended here: its steps are done, or a callback had stopped it."""
        return (self.max_steps is not None and 0 < self.max_steps <= self.step) or self.was_stopped


def read_trainer_state(folder: Path) -> TrainerState:
    """The state in a checkpoint; SftscopeError where it is none, OSError as `open` raises it."""
    path = folder / STATE
    content = read_json_object(path)
    step = count(content.get("global_step"), MAX_STEP)
    rows = content.get("log_history")
    if step is None:
        raise SftscopeError(f"{path}: field 'global_step': expected a whole number")
    if not isinstance(rows, list | None):
        raise SftscopeError(f"{path}: field 'log_history': expected a list")
    found = (log_row(row) for row in rows or () if isinstance(row, dict))
    epochs = finite(content.get("num_train_epochs"))
    stopped = lookup(content, "stateful_callbacks", "TrainerControl", "args", "should_training_stop")
    return TrainerState(
        step=step,
        max_steps=count(content.get("max_steps")),
        epochs=epochs if epochs == epochs else None,
        batch_size=count(content.get("train_batch_size")),
        was_stopped=stopped is True,
        has_best=any(content.get(name) is not None for name in _BEST),
        best_step=_best_step(content),
        log=tuple(row for row in found if row is not None),
    )


def _best_step(content: Mapping[str, Any]) -> int | None:
    """The step of the best checkpoint, by its number, by its folder's name, or by both where they agree."""
    named = content.get("best_model_checkpoint")
    match = re.search(r"checkpoint-(\d{1,12})[\\/]?$", named) if isinstance(named, str) else None
    found = {count(content.get("best_global_step"), MAX_STEP), int(match[1]) if match else None} - {None}
    return found.pop() if len(found) == 1 else None
