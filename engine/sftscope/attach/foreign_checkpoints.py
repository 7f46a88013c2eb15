"""Checkpoints that HF Trainer, TRL, LLaMA-Factory or Axolotl wrote: which are there, whole, and readable.

All of them save in the Trainer's layout, `trainer_state.json` last. An incomplete checkpoint may
become so; one whose weights are pickled, sharded or relative to another base never will, and the reason
is one line with what to do. Nothing is unpickled and nothing is written.
"""

import time
from pathlib import Path
from typing import Any

from sftscope.files.json_text import read_json_object
from sftscope.files.safetensors_header import is_whole, read_header
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.adapter_config import CONFIG as ADAPTER_CONFIG
from sftscope.llm.adapter_config import WEIGHTS as ADAPTER
from sftscope.llm.adapter_config import read_adapter
from sftscope.llm.untrusted_weights import refuse_adapter_and_model
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, step_named
from sftscope.store.trainer_state import STATE, read_trainer_state

SETTLED = 120.0  # seconds without a change after which weights newer than the state are believed to belong to it
_INDEX = "model.safetensors.index.json"
_PICKLES = ("adapter_model.bin", "pytorch_model.bin", "pytorch_model-*.bin", "*.ckpt", "consolidated.*.pth")
_SHARDS = ("pytorch_model_fsdp_*", "global_step*", "pytorch_model_fsdp.bin", "*.distcp")


def find_checkpoints(folder: Path) -> tuple[Checkpoint, ...]:
    """The checkpoints at `folder`, complete or not, by step: its `checkpoint-N`, or the folder itself.

    The final model that trainers save next to `trainer_state.json` in the folder itself is one too, where no
    `checkpoint-N` holds its step. SftscopeError where there is no such folder.
    """
    if not folder.is_dir():
        raise SftscopeError(f"{folder}: no such folder; give the output folder of a training, with its checkpoint-N")
    found = {checkpoint.step: checkpoint for checkpoint in list_checkpoints(folder)}
    step = (_step_in(folder) if weight_files(folder) else 0) or step_named(folder.resolve().name)
    if step is not None:
        found.setdefault(step, Checkpoint(step, folder))
    return tuple(found[step] for step in sorted(found))


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
        return f"{STATE}, which comes last, is missing"
    except (OSError, SftscopeError) as error:
        reason = str(error).removeprefix(f"{folder / STATE}: ")
        return f"its {STATE} is not complete yet: {safe_text(reason, max_length=120)}"
    if state.step != checkpoint.step:
        return f"its {STATE} is of step {state.step}"
    files = weight_files(folder)
    for file in files:
        if not is_whole(file):
            return f"{file.name} is not complete"
    if files and is_adapter(folder) and not (folder / ADAPTER_CONFIG).exists():
        return f"{ADAPTER_CONFIG} is missing"
    if (folder / _INDEX).exists() and not _read_json(folder / _INDEX):
        return f"{_INDEX} is not complete"
    return _half_replaced(folder, files, now)


def _half_replaced(folder: Path, files: list[Path], now: float) -> str:
    """Another training that saves the same step again writes weights first: they are then newer than the state."""
    try:
        state = (folder / STATE).stat().st_mtime
        newest = max((file.stat().st_mtime for file in files), default=0.0)
        latest = max(entry.stat().st_mtime for entry in folder.iterdir())
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
    raise SftscopeError(f"{folder}: no weights; expected {ADAPTER} or model.safetensors")


def adapter_base(checkpoint: Checkpoint) -> str:
    """The base model that an adapter names; empty where it names none, or is a whole model."""
    name = _read_json(checkpoint.path / ADAPTER_CONFIG).get("base_model_name_or_path")
    return name if isinstance(name, str) else ""


def _empty_tensor(file: Path) -> str:
    """The name of a tensor without values in a safetensors file, from its header alone."""
    return next((name for name, entry in read_header(file).items() if 0 in entry.shape), "")


def _step_in(folder: Path) -> int:
    """The step that a `trainer_state.json` in `folder` itself names; 0 where there is none."""
    try:
        return read_trainer_state(folder).step
    except (OSError, SftscopeError):
        return 0


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing, torn or something else."""
    try:
        return read_json_object(path)
    except (OSError, SftscopeError):
        return {}
