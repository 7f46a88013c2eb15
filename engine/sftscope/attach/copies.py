"""Checkpoints copied before they are read: whole copies of one moment, or none.

A training deletes, rotates and replaces its checkpoints while others read them. A copy is taken under a
temporary name, compared with the source's files before and after, tested, synced and renamed. Beside the
weights it keeps `source.json`, so that a source that was replaced since is noticed and never mixed in.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from sftscope.attach.checkpoints import is_adapter, reading_files, refuse_unreadable, weight_files, why_not_whole
from sftscope.errors import SftscopeError
from sftscope.files.opening import copy_plain
from sftscope.store.atomic import temporary_beside
from sftscope.store.checkpoints import Checkpoint

SOURCE = "source.json"
_SPARE = 2**28  # bytes of the disk that copies leave free
Stamp = dict[str, list[int]]


def copy_checkpoint(checkpoint: Checkpoint, into: Path) -> str:
    """Make `into/checkpoint-N` a copy of a checkpoint; returns why not, where it cannot be copied yet.

    SftscopeError where it never can be, where the disk is full, and where the source is another one than
    the copy that is there was made from.
    """
    target = into / f"checkpoint-{checkpoint.step}"
    if reason := why_not_whole(checkpoint):
        return "" if target.is_dir() else reason
    try:
        refuse_unreadable(checkpoint)
        before = _stamp(checkpoint)
        if target.is_dir():
            _refuse_another(checkpoint, target, before)
            return ""
        return _copy(checkpoint, target, before)
    except FileNotFoundError:
        return "it was deleted while it was read"
    except (ValueError, KeyError, TypeError):
        return "it changed while it was read"


def drop_weights(folder: Path) -> None:
    """Remove the weights of a copy whose results are stored; what tells where they came from stays."""
    for file in weight_files(folder):
        file.unlink(missing_ok=True)


def refuse_if_disk_is_short(checkpoints: list[Checkpoint], into: Path) -> None:
    """SftscopeError where copies of all these checkpoints do not fit on the disk."""
    there = next(folder for folder in (into, *into.absolute().parents) if folder.is_dir())
    new = [part for part in checkpoints if not (into / f"checkpoint-{part.step}").is_dir()]
    try:
        needed = sum(file.stat().st_size for part in new for file in weight_files(part.path))
    except OSError:  # one that vanishes needs no room
        return
    free = shutil.disk_usage(there).free - _SPARE
    if needed > free:
        raise SftscopeError(
            f"{into}: copies of {len(new)} checkpoints take {needed / 1e9:.1f} GB, {max(free, 0) / 1e9:.1f} GB are "
            "free; make room, or choose --steps"
        )


def _copy(checkpoint: Checkpoint, target: Path, before: Stamp) -> str:
    temporary = temporary_beside(target)
    try:
        temporary.mkdir(parents=True)
        for file in reading_files(checkpoint):
            copy_plain(file, temporary / file.name, within=checkpoint.path)
        if _stamp(checkpoint) != before:
            return "it changed while it was copied"
        copy = Checkpoint(checkpoint.step, temporary)
        if reason := why_not_whole(copy, now=float("inf")):
            return reason
        source = {"path": str(checkpoint.path.absolute()), "files": before, "sha256": _hashes(copy)}
        (temporary / SOURCE).write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
        temporary.rename(target)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SftscopeError(
            f"{target}: cannot be copied: {error.strerror or error}; mend this and run the same command again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ""


def _refuse_another(checkpoint: Checkpoint, copy: Path, stamp: Stamp) -> None:
    """SftscopeError unless the copy was made from what the source holds now."""
    source = _read_source(copy)
    weights = {file.name for file in weight_files(checkpoint.path)}
    known: Any = source.get("files")
    if isinstance(known, dict) and all(known.get(name) == stamp[name] for name in weights):
        return
    if source.get("sha256") != _hashes(checkpoint):
        raise SftscopeError(
            f"{checkpoint.path}: was replaced since it was copied to {copy} (other weights for the same step); "
            "steps of two trainings are never mixed: use another --out folder"
        )


def _read_source(copy: Path) -> dict[str, Any]:
    try:
        content = json.loads((copy / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SftscopeError(f"{copy / SOURCE}: cannot be read; delete {copy} and run the same command again") from None
    return content if isinstance(content, dict) else {}


def _stamp(checkpoint: Checkpoint) -> Stamp:
    """Size, time and place on the disk of each file that is read, by name."""
    found = {}
    for file in reading_files(checkpoint):
        status = file.stat()
        found[file.name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return found


def _hashes(checkpoint: Checkpoint) -> dict[str, str]:
    hashes = {}
    for file in weight_files(checkpoint.path):
        with file.open("rb") as opened:
            hashes[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return hashes


def takes_much_room(folder: Path) -> bool:
    """Whether a copy is that of a whole model, which is dropped once its results are stored."""
    return not is_adapter(folder)
