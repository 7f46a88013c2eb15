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
from sftscope.files.safetensors_header import is_whole
from sftscope.store.step_record import MAX_STEP

_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]{0,11})")  # as trainers write it, to MAX_STEP
_SIMILAR = re.compile(r"checkpoint-[\d_+-]+")


@dataclass(frozen=True)
class Checkpoint:
    """One folder `checkpoint-N`."""

    step: int
    path: Path

    def trainer_state(self) -> dict[str, Any] | None:
        """`trainer_state.json`, or None where it is missing, torn or of another step."""
        try:
            state = read_json_object(self.path / "trainer_state.json")
        except (OSError, SftscopeError):
            return None
        return state if state.get("global_step") == self.step else None

    def is_ready(self) -> bool:
        """Whether the checkpoint was written to its end."""
        weights = {*self.path.glob("*.safetensors"), *self._indexed()}
        return bool(weights) and self.trainer_state() is not None and all(map(is_whole, weights))

    def _indexed(self) -> set[Path]:
        """The weight files that an index names: those of a large model that was saved in parts."""
        try:
            index = read_json_object(self.path / "model.safetensors.index.json")
            return {self.path / Path(name).name for name in index["weight_map"].values()}
        except FileNotFoundError:
            return set()
        except (OSError, SftscopeError, ValueError, KeyError, TypeError, AttributeError):
            return {self.path / "model.safetensors.index.json"}  # torn: no safetensors file, so not ready

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


def step_named(name: str) -> int | None:
    """N of a folder's name `checkpoint-N`, as trainers write it: `checkpoint-04` and other digits name no step."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def list_checkpoints(folder: Path) -> tuple[Checkpoint, ...]:
    """All checkpoint folders, ready or not, by step."""
    if not folder.is_dir():
        return ()
    found = [(step_named(entry.name), entry) for entry in folder.iterdir() if entry.is_dir()]
    return tuple(sorted((Checkpoint(step, entry) for step, entry in found if step is not None), key=lambda c: c.step))


def misnamed_checkpoints(folder: Path) -> tuple[Path, ...]:
    """Folders that look like checkpoints, but whose step cannot be determined, by name."""
    if not folder.is_dir():
        return ()
    named = (entry for entry in folder.iterdir() if _SIMILAR.fullmatch(entry.name) and step_named(entry.name) is None)
    return tuple(sorted(entry for entry in named if entry.is_dir()))


def why_misnamed(path: Path) -> str:
    """One line on a folder of `misnamed_checkpoints`."""
    return f"{path}: left out: expected checkpoint-N with N from 0 to {MAX_STEP}, without leading zeros; rename it"


def ready_checkpoints(folder: Path) -> dict[int, Checkpoint]:
    """The checkpoints that are ready, by step."""
    return {c.step: c for c in list_checkpoints(folder) if c.is_ready()}
