"""Checkpoints in the Trainer's layout: which are ready, what their losses are. Never writes into one.

The Trainer's save is not atomic; `trainer_state.json` comes last. A checkpoint is ready if that
file parses and names its step, and every safetensors file has the size its header declares.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftscope.errors import SftscopeError
from sftscope.files.json_text import read_json_object
from sftscope.files.opening import raise_if_not_read
from sftscope.files.safetensors_header import is_whole

_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """One folder `checkpoint-N`."""

    step: int
    path: Path

    def trainer_state(self) -> dict[str, Any] | None:
        """`trainer_state.json`, or None where it is missing, torn or of another step.

        NotReadError where it cannot be read now.
        """
        file = self.path / "trainer_state.json"
        try:
            state = read_json_object(file)
        except (OSError, MemoryError, SftscopeError) as error:
            raise_if_not_read(file, error)
            return None
        return state if state.get("global_step") == self.step else None

    def is_ready(self) -> bool:
        """Whether the checkpoint was written to its end; NotReadError where that cannot be determined now."""
        weights = {*self.path.glob("*.safetensors"), *self._indexed()}
        return bool(weights) and self.trainer_state() is not None and all(map(is_whole, weights))

    def _indexed(self) -> set[Path]:
        """The weight files that an index names: those of a large model that was saved in parts."""
        file = self.path / "model.safetensors.index.json"
        try:
            index = read_json_object(file)
            return {self.path / Path(name).name for name in index["weight_map"].values()}
        except FileNotFoundError:
            return set()
        except (OSError, MemoryError, SftscopeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise_if_not_read(file, error)
            return {file}  # torn: no safetensors file, so not ready

    def losses(self) -> dict[str, float]:
        """Train and eval loss at this step, from the log inside the checkpoint; what is not there is left out."""
        state = self.trainer_state() or {}
        found: dict[str, float] = {}
        for row in state.get("log_history") or []:
            if isinstance(row, dict) and row.get("step") == self.step:
                found |= losses_of(row)
        return found


def losses_of(row: dict[str, Any], eval_set: str = "") -> dict[str, float]:
    """`train` and `eval` from one row of the Trainer's log.

    Our own training evaluates both sides at each checkpoint; other logs have the running training
    loss and one eval loss, or one for each set by its name, of which `eval_set` is taken.
    """
    held_out = (f"eval_{eval_set}_loss",) if eval_set else ("eval_eval_loss", "eval_loss")
    names = {"train": ("loss",) if eval_set else ("eval_train_loss", "loss"), "eval": held_out}
    return {
        side: float(row[key])
        for side, keys in names.items()
        for key in reversed(keys)
        if isinstance(row.get(key), int | float)
    }


def list_checkpoints(folder: Path) -> tuple[Checkpoint, ...]:
    """All checkpoint folders, ready or not, by step; NotReadError where they cannot be listed now."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise_if_not_read(folder, error)
        return ()
    found = [
        Checkpoint(int(match[1]), entry)
        for entry in entries
        if entry.is_dir() and (match := _NAME.fullmatch(entry.name))
    ]
    return tuple(sorted(found, key=lambda checkpoint: checkpoint.step))


def ready_checkpoints(folder: Path) -> dict[int, Checkpoint]:
    """The checkpoints that are ready, by step."""
    return {c.step: c for c in list_checkpoints(folder) if c.is_ready()}
