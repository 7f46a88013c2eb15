"""Checkpoints in the Trainer's layout: which are ready, what their losses are. Never writes into one.

The Trainer's save is not atomic; `trainer_state.json` comes last. A checkpoint is ready if that
file parses and names its step, and every safetensors file has the size its header declares.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftscope.files.json_text import finite, number, read_json_object
from sftscope.files.opening import raise_if_not_read
from sftscope.files.safetensors_header import read_header
from sftscope.foundation.errors import SftscopeError
from sftscope.store.steps.step_record import MAX_STEP
from sftscope.store.trainer_state import STATE, TrainerState, read_trainer_state

_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]{0,11})")  # as trainers write it, to MAX_STEP
_SIMILAR = re.compile(r"checkpoint-[\d_+-]+")


@dataclass(frozen=True)
class Checkpoint:
    """One folder `checkpoint-N`."""

    step: int
    path: Path

    def trainer_state(self) -> TrainerState | None:
        """`trainer_state.json`, or None where it is missing, torn or of another step.

        NotReadError where it cannot be read now.
        """
        try:
            state = read_trainer_state(self.path)
        except (OSError, MemoryError, SftscopeError) as error:
            raise_if_not_read(self.path / STATE, error)
            return None
        return state if state.step == self.step else None

    def is_ready(self) -> bool:
        """Whether the checkpoint was written to its end; NotReadError where that cannot be determined now."""
        try:
            return not self.is_unfinished()
        except (OSError, MemoryError) as error:
            raise_if_not_read(self.path, error)
            return False

    def is_unfinished(self) -> bool:
        """Whether something of the checkpoint is missing or cut off; OSError where the disk cannot be read."""
        try:
            state = read_trainer_state(self.path)
            weights = {name for name in os.listdir(self.path) if name.endswith(".safetensors")} | self._indexed()  # noqa: PTH208  # names only
            for name in weights:
                read_header(self.path / name)
        except (FileNotFoundError, NotADirectoryError, SftscopeError, ValueError):
            return True
        return not weights or state.step != self.step

    def _indexed(self) -> set[str]:
        """The weight files that an index names: those of a large model that was saved in parts."""
        file = self.path / "model.safetensors.index.json"
        try:
            index = read_json_object(file)
        except FileNotFoundError:
            return set()
        named = index.get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise ValueError("expected a weight_map of names")
        return {Path(name).name for name in named.values()}

    def losses(self) -> dict[str, float]:
        """Train and eval loss at this step, from the log inside the checkpoint; what is not there is left out."""
        state = self.trainer_state()
        found: dict[str, float] = {}
        for row in state.log if state is not None else ():
            if row["step"] == self.step:
                found |= losses_of(row)
        return found


def losses_of(row: Mapping[str, Any], eval_set: str = "") -> dict[str, float]:
    """`train` and `eval` from one row of the Trainer's log.

    Our own training evaluates both sides at each checkpoint; other logs have the running training
    loss and one eval loss, or one for each set by its name, of which `eval_set` is taken.
    """
    held_out = (f"eval_{eval_set}_loss",) if eval_set else ("eval_eval_loss", "eval_loss")
    names = {"train": ("loss",) if eval_set else ("eval_train_loss", "loss"), "eval": held_out}
    return {
        side: finite(row[key])
        for side, keys in names.items()
        for key in reversed(keys)
        if number(row.get(key)) is not None
    }


def step_named(name: str) -> int | None:
    """N of a folder's name `checkpoint-N`, as trainers write it: `checkpoint-04` and other digits name no step."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def list_checkpoints(folder: Path) -> tuple[Checkpoint, ...]:
    """All checkpoint folders, ready or not, by step; NotReadError where they cannot be listed now."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise_if_not_read(folder, error)
        return ()
    found = [(step_named(entry.name), entry) for entry in entries if entry.is_dir()]
    return tuple(sorted((Checkpoint(step, entry) for step, entry in found if step is not None), key=lambda c: c.step))


def misnamed_checkpoints(folder: Path) -> tuple[Path, ...]:
    """Folders that look like checkpoints, but whose step cannot be determined, by name.

    NotReadError where they cannot be listed now.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise_if_not_read(folder, error)
        return ()
    named = (entry for entry in entries if _SIMILAR.fullmatch(entry.name) and step_named(entry.name) is None)
    return tuple(sorted(entry for entry in named if entry.is_dir()))


def why_misnamed(path: Path) -> str:
    """One line on a folder of `misnamed_checkpoints`."""
    return f"{path}: left out: expected checkpoint-N with N from 0 to {MAX_STEP}, without leading zeros; rename it"


def ready_checkpoints(folder: Path) -> dict[int, Checkpoint]:
    """The checkpoints that are ready, by step."""
    return {c.step: c for c in list_checkpoints(folder) if c.is_ready()}
