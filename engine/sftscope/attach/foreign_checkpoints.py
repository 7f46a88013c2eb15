"""Checkpoints that others wrote: whether they are complete, and readable.

HF Trainer, TRL, LLaMA-Factory and Axolotl save `trainer_state.json` last; what other scripts save has none, and is
judged by its weights. An incomplete checkpoint may become complete; one whose weights are pickled, sharded or relative
to another base never will, and the reason is one line with what to do. Nothing is unpickled and nothing is written.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftscope.files.json_text import read_json_object
from sftscope.files.opening import raise_if_not_read
from sftscope.files.safetensors_header import is_whole, read_header
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.model_config import CONFIG
from sftscope.llm.weights.adapter_config import CONFIG as ADAPTER_CONFIG
from sftscope.llm.weights.adapter_config import WEIGHTS as ADAPTER
from sftscope.llm.weights.adapter_config import read_adapter
from sftscope.llm.weights.key_names import wrapper_of
from sftscope.llm.weights.untrusted_weights import refuse_adapter_and_model
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, step_named
from sftscope.store.trainer_state import STATE, TrainerState, read_trainer_state

NAME, BY_STATE, BY_COPY, EPOCH, GIVEN = "its name", STATE, "equal weights", "its epoch", "--checkpoint"
STILL = 5.0  # seconds without a change after which weights without a state are believed to be written to their end
SETTLED = 120.0  # seconds without a change after which weights newer than the state are believed to belong to it
_INDEX = "model.safetensors.index.json"
_PICKLES = ("adapter_model.bin", "pytorch_model.bin", "pytorch_model-*.bin", "*.ckpt", "consolidated.*.pth")
_PART = re.compile(r"model-\d+-of-\d+\.safetensors")
_BEFORE_STATE = (
    "optimizer.pt",
    "scheduler.pt",
    "rng_state*.pth",
    "global_step*",
)  # a trainer that saves them ends with its state
_SHARDS = ("pytorch_model_fsdp_*", "global_step*", "pytorch_model_fsdp.bin", "*.distcp")


@dataclass(frozen=True)
class Found(Checkpoint):
    """A checkpoint of someone else's. said_by: what its step is taken from, one of the names above."""

    said_by: str = NAME

    def trainer_state(self) -> TrainerState | None:
        """As that of a checkpoint; where its step is not taken from its name, also a state of another step."""
        if self.said_by == NAME:
            return super().trainer_state()
        try:
            return read_trainer_state(self.path)
        except (OSError, MemoryError, SftscopeError) as error:
            raise_if_not_read(self.path / STATE, error)
            return None


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint holds an adapter, not a whole model."""
    return (folder / ADAPTER).exists() or (folder / ADAPTER_CONFIG).exists()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make the model of a checkpoint, by name; those that an index names included."""
    if is_adapter(folder):
        return [folder / ADAPTER] if (folder / ADAPTER).exists() else []
    named = _read_json(folder / _INDEX).get("weight_map")
    parts = {folder / Path(str(name)).name for name in named.values()} if isinstance(named, dict) else set()
    return sorted({*folder.glob("model*.safetensors"), *parts})


def reading_files(checkpoint: Checkpoint) -> list[Path]:
    """Every file of a checkpoint that is read later, those that are there."""
    folder = checkpoint.path
    names = (ADAPTER_CONFIG,) if is_adapter(folder) else ("config.json", _INDEX)
    return [
        *weight_files(folder),
        *(folder / name for name in names if (folder / name).exists()),
        *([folder / STATE] if (folder / STATE).exists() else []),
    ]


def why_not_whole(checkpoint: Checkpoint, *, now: float | None = None) -> str:
    """What is still missing from a checkpoint, in a few words; empty where it was written to its end."""
    try:
        return _why_not_whole(checkpoint, time.time() if now is None else now)
    except NotReadError as error:  # looked at again later, as what is missing
        return str(error).removeprefix(f"{checkpoint.path}/")


def _why_not_whole(checkpoint: Checkpoint, now: float) -> str:
    folder = checkpoint.path
    if not folder.is_dir():
        return "it was deleted"
    try:
        state = read_trainer_state(folder)
    except FileNotFoundError:
        return _awaits_state(checkpoint) or _lacks_weights(folder) or _just_changed(folder, now)
    except (OSError, SftscopeError) as error:
        reason = str(error).removeprefix(f"{folder / STATE}: ")
        return f"its {STATE} is not complete yet: {safe_text(reason, max_length=120)}"
    if state.step != checkpoint.step and getattr(checkpoint, "said_by", NAME) == NAME:
        return f"its {STATE} is of step {state.step}"
    return _lacks_part(folder) or _half_replaced(folder, weight_files(folder), now)


def _awaits_state(checkpoint: Checkpoint) -> str:
    """Why a checkpoint without a state is not written to its end: it is of a trainer that writes one."""
    folder = checkpoint.path
    if getattr(checkpoint, "said_by", NAME) == GIVEN:
        return ""
    others = list_checkpoints(folder.parent) if step_named(folder.name) is not None else ()
    begun = any(True for pattern in _BEFORE_STATE for _ in folder.glob(pattern))
    if begun or any((other.path / STATE).exists() for other in others):
        return f"{STATE}, which comes last, is missing (--checkpoint {checkpoint.step}=… takes it nevertheless)"
    return ""


def _lacks_weights(folder: Path) -> str:
    if weight_files(folder):
        return _lacks_part(folder)
    try:
        _refuse_without_weights(folder)
    except SftscopeError as error:
        return str(error).removeprefix(f"{folder}: ")
    return ""


def _lacks_part(folder: Path) -> str:
    """What is missing of weights, by their headers, their index and their config."""
    files = weight_files(folder)
    for file in files:
        if not is_whole(file):
            return f"{file.name} is not complete"
    config = ADAPTER_CONFIG if is_adapter(folder) else CONFIG
    if files and not (folder / config).exists():
        return f"{config} is missing"
    if (folder / _INDEX).exists() and not _read_json(folder / _INDEX):
        return f"{_INDEX} is not complete"
    if not (folder / _INDEX).exists() and any(_PART.fullmatch(file.name) for file in files):
        return f"{_INDEX} is missing"
    return ""


def seconds_to_settle(checkpoint: Checkpoint) -> float:
    """How long to wait until weights without a state have not changed for `STILL`; 0 for all others."""
    if (checkpoint.path / STATE).exists():
        return 0.0
    age = time.time() - _last_change(checkpoint.path)
    return STILL - age if 0 <= age < STILL else 0.0


def _just_changed(folder: Path, now: float) -> str:
    try:
        changed = 0 <= now - _last_change(folder) < STILL
    except (OSError, ValueError):
        return "it was deleted"
    return f"it has no {STATE} and changed just now, it may not be written to its end" if changed else ""


def _last_change(folder: Path) -> float:
    return max((entry.stat().st_mtime for entry in folder.iterdir()), default=0.0)


def _half_replaced(folder: Path, files: list[Path], now: float) -> str:
    """Another training that saves the same step again writes weights first: they are then newer than the state."""
    try:
        state = (folder / STATE).stat().st_mtime
        newest = max((file.stat().st_mtime for file in files), default=0.0)
        latest = _last_change(folder)
    except (OSError, ValueError):
        return "it was deleted"
    if newest > state + 1.0 and now - latest < SETTLED:  # a second: file systems that count whole ones
        return f"its weights are newer than its {STATE} and changed just now, it may be being replaced"
    return ""


def refuse_unreadable(checkpoint: Checkpoint) -> None:
    """SftscopeError where a complete checkpoint cannot be read, ever: what it is and what to do."""
    folder = checkpoint.path
    refuse_adapter_and_model(folder)
    files = weight_files(folder)
    if not files:
        _refuse_without_weights(folder)
    for file in files:
        if empty := _empty_tensor(file):
            raise SftscopeError(
                f"{file}: {safe_text(empty)} has no values, as ZeRO-3 leaves it; consolidate first "
                "(zero_to_fp32.py in the checkpoint, or stage3_gather_16bit_weights_on_model_save)"
            )
    if is_adapter(folder):
        read_adapter(folder)


def _refuse_without_weights(folder: Path) -> None:
    for pattern in _SHARDS:
        for shard in sorted(folder.glob(pattern)):
            raise SftscopeError(
                f"{folder}: holds shards of FSDP or ZeRO ({safe_text(shard.name)}), no whole weights; consolidate "
                "first (accelerate merge-weights, or zero_to_fp32.py in the checkpoint), to safetensors"
            )
    for pattern in _PICKLES:
        for pickle in sorted(folder.glob(pattern)):
            raise SftscopeError(
                f"{folder}: its weights are pickled ({safe_text(pickle.name)}), which can run code and is never read; "
                "save them as safetensors"
            )
    inner = next((path for path in sorted(folder.iterdir()) if path.is_dir() and weight_files(path)), None)
    hint = f", or those in {safe_text(inner.name, max_length=80)} by --checkpoint STEP={inner}" if inner else ""
    raise SftscopeError(f"{folder}: no weights; expected {ADAPTER} or model.safetensors{hint}")


def adapter_base(checkpoint: Checkpoint) -> str:
    """The base model that an adapter names; empty where it names none, or is a whole model."""
    return _text_in(checkpoint, "base_model_name_or_path")


def adapter_revision(checkpoint: Checkpoint) -> str:
    """The revision of its base that an adapter names; empty where it names none."""
    return _text_in(checkpoint, "revision")


def _text_in(checkpoint: Checkpoint, field: str) -> str:
    value = _read_json(checkpoint.path / ADAPTER_CONFIG).get(field)
    return value if isinstance(value, str) else ""


def wrapper_in(folder: Path) -> str:
    """The prefix of a wrapper that the names of its tensors have; empty where they have none, or cannot be read."""
    try:
        return next(filter(None, (wrapper_of(read_header(file)) for file in weight_files(folder))), "")
    except (OSError, SftscopeError):
        return ""


def _empty_tensor(file: Path) -> str:
    """The name of a tensor without values in a safetensors file, from its header alone."""
    return next((name for name, entry in read_header(file).items() if 0 in entry.shape), "")


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing, torn or something else."""
    try:
        return read_json_object(path)
    except (OSError, SftscopeError):
        return {}
