"""Checkpoints copied before they are read: whole copies of one moment, or none.

A training deletes, rotates and replaces its checkpoints while others read them. A copy is taken under a
temporary name, compared with the source's files before and after, tested, synced and renamed. Next to
the weights it keeps `source.json` (see `store.ownership`), so that a source that was replaced since is noticed and
never mixed in.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sftscope.attach.foreign_checkpoints import (
    NAME,
    reading_files,
    refuse_unreadable,
    weight_files,
    why_not_whole,
)
from sftscope.files.atomic import temporary_beside, write_atomically
from sftscope.files.hashes import file_sha256
from sftscope.files.json_text import MAX_JSON_BYTES, read_json_object
from sftscope.files.opening import copy_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.store import ownership
from sftscope.store.checkpoints import Checkpoint
from sftscope.store.trainer_state import STATE

_SPARE = 2**28  # bytes of the disk that copies leave free
SNAPSHOT = "snapshot"  # the kind of a record: written from the model itself, no copy of a checkpoint
Stamp = dict[str, list[int]]


def copy_checkpoint(checkpoint: Checkpoint, into: Path, *, within: Path | None = None) -> str:
    """Make `into/checkpoint-N` a copy of a checkpoint; returns why not, where it cannot be copied yet.

    within: the folder that the user named, out of which no link may lead; by default the checkpoint's. SftscopeError
    where it never can be copied, where the disk is full, and where the source is another one than the copy that is
    there was made from.
    """
    target = into / f"checkpoint-{checkpoint.step}"
    ownership.refuse_same_checkpoint(checkpoint.path, target)
    if reason := why_not_whole(checkpoint):
        return "" if target.is_dir() else reason
    try:
        refuse_unreadable(checkpoint)
        before = _stamp(checkpoint)
        if target.is_dir():
            _refuse_another(checkpoint, target, before)
            return ""
        return _copy(checkpoint, target, before, within or checkpoint.path)
    except FileNotFoundError:
        return "it was deleted while it was read"
    except (ValueError, KeyError, TypeError):
        return "it changed while it was read"


def refuse_if_disk_is_short(checkpoints: Sequence[Checkpoint], into: Path) -> None:
    """SftscopeError where copies of all these checkpoints do not fit on the disk."""
    there = next(folder for folder in (into, *into.absolute().parents) if folder.is_dir())
    new = [part for part in checkpoints if not (into / f"checkpoint-{part.step}").is_dir()]
    try:
        needed = sum(file.stat().st_size for part in new for file in reading_files(part))
    except OSError:  # one that vanishes needs no room
        return
    free = shutil.disk_usage(there).free - _SPARE
    if needed > free:
        raise SftscopeError(
            f"{into}: copies of {len(new)} checkpoints take {needed / 1e9:.1f} GB, {max(free, 0) / 1e9:.1f} GB are "
            "free; make room, or choose fewer steps"
        )


def _copy(checkpoint: Checkpoint, target: Path, before: Stamp, within: Path) -> str:
    temporary = temporary_beside(target)
    try:
        temporary.mkdir(parents=True)
        weights = set(weight_files(checkpoint.path))
        for file in reading_files(checkpoint):
            limit = None if file in weights else MAX_JSON_BYTES
            copy_plain(file, temporary / file.name, limit, within=within)
        if _stamp(checkpoint) != before:
            return "it changed while it was copied"
        _name_step(temporary, checkpoint.step)
        copy = Checkpoint(checkpoint.step, temporary)
        if reason := why_not_whole(copy, now=float("inf")):
            return reason
        hashes = _hashes(copy)
        others = {file.name: file_sha256(file) for file in reading_files(copy) if file.name not in hashes}
        source = {
            "path": str(checkpoint.path.absolute()),
            "step_from": getattr(checkpoint, "said_by", NAME),
            "files": before,
            "sha256": hashes,
            "sha256_others": others,
            "weights": sorted(hashes),
        }
        write_atomically(temporary / ownership.RECORD, ownership.sealed(source, target, target.parent))
        temporary.rename(target)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SftscopeError(
            f"{target}: cannot be copied: {error.strerror or error}; correct this and run the same command again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ""


def _name_step(copy: Path, step: int) -> None:
    """Give a copy a state of its step where its source has none, or that of a later step next to these weights."""
    try:
        content = read_json_object(copy / STATE)
    except FileNotFoundError:
        content = {}
    if content.get("global_step") == step:
        return
    kept = {name: value for name, value in content.items() if name != "stateful_callbacks"}  # how the last step ended
    write_atomically(copy / STATE, json.dumps({**kept, "global_step": step}).encode())


def _refuse_another(checkpoint: Checkpoint, copy: Path, stamp: Stamp) -> None:
    """SftscopeError unless the copy was made from what the source holds now."""
    source = ownership.read_record(copy)
    if source is None:
        raise SftscopeError(
            f"{copy}: does not say what it is a copy of ({ownership.RECORD} is missing or damaged); move it away and "
            "run the same command again, or choose another --out folder"
        )
    if source.get("kind") == SNAPSHOT:
        return  # of a step of this training, before it was resumed
    weights = {file.name for file in weight_files(checkpoint.path)}
    known: Any = source.get("files")
    if isinstance(known, dict) and all(known.get(name) == stamp[name] for name in weights):
        return
    if source.get("sha256") != _hashes(checkpoint):
        raise SftscopeError(
            f"{checkpoint.path}: was replaced since it was copied to {copy} (other weights for the same step); "
            "steps of two trainings are never mixed: use another --out folder"
        )


def _stamp(checkpoint: Checkpoint) -> Stamp:
    """Size, time and place on the disk of each file that is read, by name."""
    found = {}
    for file in reading_files(checkpoint):
        status = file.stat()
        found[file.name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return found


def _hashes(checkpoint: Checkpoint) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in weight_files(checkpoint.path)}
