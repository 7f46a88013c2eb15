"""What this program wrote and may delete: the only place that removes checkpoints, or files of them.

A run's folder `checkpoints` gets a mark where this program makes it, or finds it empty: a random token, and the steps
whose checkpoints our own training saves. Each copy of someone else's checkpoint has a record, `source.json`, signed
with that token. What has neither is the user's and stays, whatever it looks like; so does all that lies behind a link.
A disk that cannot be read says nothing about who wrote what: nothing is removed then.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sftscope.files.atomic import temporary_beside, write_atomically
from sftscope.files.hashes import file_sha256
from sftscope.files.json_text import MAX_JSON_BYTES, read_json_object
from sftscope.files.opening import failed_to_read, is_there, read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, step_named
from sftscope.store.run_folder import RunFolder

RECORD = "source.json"
_MARK = "made_by_sftscope.json"
_OURS = ".sftscope-"  # how the names of our passing files begin
_FORMAT = 1
# what the Trainer saves into a checkpoint: the model or adapter, its tokenizer, and the state of the training
_TRAINERS = re.compile(
    r"(adapter_|generation_|)config\.json|(adapter_)?model.*\.safetensors(\.index\.json)?|README\.md|.*\.jinja"
    r"|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt"
    r"|(optimizer|scheduler|scaler)\.pt|rng_state.*\.pth|training_args\.bin|trainer_state\.json"
)


def begin_checkpoints(folder: Path) -> bool:
    """Make a run's folder `checkpoints`; whether it is marked as ours: made here or found empty, and no link."""
    if folder.is_symlink():
        return False
    with _one_line(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if _mark(folder):
            return True
        if not _is_empty(folder):
            return False
    _write_mark(folder, {"format": _FORMAT, "token": secrets.token_hex(16), "steps": []})
    return True


def will_save(folder: Path, step: int) -> None:
    """Note in the mark that our own training now writes the checkpoint of `step`; without a mark nothing is noted."""
    mark = _mark(folder)
    if mark and step not in mark["steps"]:
        _write_mark(folder, {**mark, "steps": [*mark["steps"], step]})


def drop_unfinished(folder: Path) -> None:
    """Remove the half-written checkpoints of our own training, which it writes again.

    SftscopeError for one that may be someone else's, and for one that cannot be read.
    """
    with _one_line(folder):
        found = list_checkpoints(folder)
    for checkpoint in found:
        if not _is_unfinished(checkpoint):
            continue
        if not _is_saved_here(checkpoint.path):
            raise SftscopeError(
                f"{checkpoint.path}: not written to its end, and not known to be of this run; "
                "move it away and run the same command again"
            )
        with _one_line(checkpoint.path):
            if others := [each.name for each in checkpoint.path.iterdir() if not _TRAINERS.fullmatch(each.name)]:
                raise SftscopeError(
                    f"{checkpoint.path}: not written to its end, and holds {safe_text(min(others), max_length=80)}, "
                    "which no training of ours writes; move that away and run the same command again"
                )
            shutil.rmtree(checkpoint.path)


def refuse_overwriting(folder: Path, steps: Iterable[int]) -> None:
    """SftscopeError where our own training would save one of `steps` over something that it did not write."""
    for step in steps:
        path = folder / f"checkpoint-{step}"
        if (path.exists() or path.is_symlink()) and not _is_saved_here(path):
            raise SftscopeError(
                f"{path}: the training would write over it, and it is not known to be of this run; "
                "move it away and run the same command again"
            )


def drop_file(checkpoint: Path, name: str) -> None:
    """Remove one file from a checkpoint that our own training saved; any other checkpoint stays as it is."""
    if _is_saved_here(checkpoint):
        _unlink(checkpoint / name)


def sealed(record: Mapping[str, Any], copy: Path, checkpoints: Path) -> bytes:
    """The content of the `source.json` of `copy`, a folder that is to lie in `checkpoints`.

    record: `weights`, the names of its weight files, `files`, a mapping by the names of all files, and what else is
    to be known. Signed where `checkpoints` is marked; else nothing of the copy is ever removed.
    """
    content: dict[str, Any] = {**record, "format": _FORMAT, "step": step_named(copy.name)}
    content.setdefault("dropped", False)
    if mark := _mark(checkpoints):
        content["signature"] = _signature(content, mark["token"])
    return (json.dumps(content, indent=1) + "\n").encode()


def read_record(copy: Path) -> dict[str, Any] | None:
    """`source.json` of a copy, whoever wrote it; None where it is missing or damaged."""
    with _one_line(copy / RECORD):
        try:
            content = json.loads(read_plain(copy / RECORD, MAX_JSON_BYTES, within=copy))  # times have 19 digits
        except (FileNotFoundError, NotADirectoryError, SftscopeError, ValueError, RecursionError):
            return None
    return content if isinstance(content, dict) else None


def own_record(copy: Path) -> dict[str, Any] | None:
    """The record of a copy that this program made in this run; None for everything else."""
    if copy.is_symlink():
        return None
    mark, record = _mark(copy.parent), read_record(copy)
    if mark is None or record is None or record.get("step") != step_named(copy.name):
        return None
    given = record.pop("signature", None)
    fits = given == _signature(record, mark["token"]) and isinstance(record.get("files"), dict)
    return record if fits and isinstance(record.get("weights"), list) else None


def were_dropped(copy: Path) -> bool:
    """Whether the weights of our copy were removed on purpose, once its step was extracted."""
    return bool((own_record(copy) or {}).get("dropped"))


def changed_file(copy: Path) -> str:
    """The name of a file of our copy that is not what was copied (sha256); empty where there is none.

    Files that are not there are not looked at.
    """
    record = own_record(copy) or {}
    for table in ("sha256", "sha256_others"):
        known = record.get(table)
        for name, digest in sorted(known.items()) if isinstance(known, dict) else ():
            if is_there(copy / name) and file_sha256(copy / name) != digest:
                return str(name)
    return ""


def drop_weights(copy: Path) -> bool:
    """Remove the weights of our copy, whose results are stored; the record says so before they go.

    False where it is not ours; it stays as it is then.
    """
    record = own_record(copy)
    if record is None:
        return False
    if not record["dropped"]:
        write_atomically(copy / RECORD, sealed({**record, "dropped": True}, copy, copy.parent))
    for name in record["weights"]:
        _unlink(copy / name)
    return True


def remove_copy(copy: Path) -> None:
    """Remove our copy that is not complete, so that it can be taken again.

    SftscopeError where it is not ours, holds files that we did not write, or cannot be read.
    """
    step = step_named(copy.name)
    if not _is_unfinished(Checkpoint(-1 if step is None else step, copy)):
        raise SftscopeError(f"{copy}: is complete; nothing was removed")
    record = own_record(copy)
    if record is None:
        raise SftscopeError(
            f"{copy}: not complete, and not a copy that this run made; move it away and run the same command again"
        )
    with _one_line(copy):
        ours = {*record["files"], RECORD}
        if others := sorted(name for name in os.listdir(copy) if name not in ours and not name.startswith(_OURS)):  # noqa: PTH208  # names only
            raise SftscopeError(
                f"{copy}: is to be copied again, but holds {safe_text(others[0], max_length=80)}, which this program "
                "did not write; move that away and run the same command again"
            )
        aside = temporary_beside(copy)
        copy.rename(aside)  # a kill from here on leaves what the next writer sweeps
        shutil.rmtree(aside)


def refuse_same_place(source: Path, folder: RunFolder) -> None:
    """SftscopeError where a run would keep its copies among the checkpoints of the training at `source`.

    Links are followed. A run in a folder of its own within `source` is fine, but not in a checkpoint, which the
    trainer may delete.
    """
    with _one_line(source):
        for own in (folder.path, folder.checkpoints):
            if _is_same(own, source):
                raise SftscopeError(
                    f"{folder.path}: {'its checkpoints are' if own != folder.path else 'is'} the output folder of the "
                    f"training, {source}; a run keeps copies, apart from the originals: choose another --out folder"
                )
            real = own.resolve()
            for place in (real, *real.parents):
                if step_named(place.name) is not None and _is_within(place, source):
                    raise SftscopeError(
                        f"{folder.path}: lies in a checkpoint of the training, {place}; choose another --out folder"
                    )
        for own in folder.own_folders:
            if _is_within(source, own):
                raise SftscopeError(f"{source}: lies in {own}, which the run writes into; choose another --out folder")


def refuse_same_checkpoint(source: Path, copy: Path) -> None:
    """SftscopeError where a checkpoint and what should be its copy are one folder, by a link."""
    with _one_line(copy):
        if _is_same(source, copy):
            raise SftscopeError(f"{copy}: is the training's own {source}, by a link; choose another --out folder")


def refuse_others_files(folder: RunFolder, planned: Mapping[Path, bytes], identity: str) -> None:
    """SftscopeError where a folder that is not a run yet holds a file that the run would write.

    planned: what is to be written first; what is there with that very content may stay. A run that lost its run.toml
    is one still: its probes are those that are planned, and its checkpoints are marked or a step has its identity.
    """
    with _one_line(folder.path):
        found = [path for path in folder.own_files if path not in planned and (path.exists() or path.is_symlink())]
        found += [path for path, content in planned.items() if _differs(path, content)]
        found += [path for path in folder.own_folders if path.is_dir() and not _is_empty(path)]
        found += [path for path in folder.own_folders if path.exists() and not path.is_dir()]
    if not found or folder.exists() or _has_lost_its_run_file(folder, planned, identity):
        return
    raise SftscopeError(
        f"{found[0]}: is there already, in a folder that is not a run (no run.toml); nothing is written over it: "
        "choose another --out folder, or move it away"
    )


def _has_lost_its_run_file(folder: RunFolder, planned: Mapping[Path, bytes], identity: str) -> bool:
    content = planned[folder.probes_file]
    if not folder.probes_file.is_file() or _differs(folder.probes_file, content):
        return False
    return _mark(folder.checkpoints) is not None or any(folder.has_result(step, identity) for step in folder.steps())


def _differs(path: Path, content: bytes) -> bool:
    """Whether there is something at `path` that is not a file of this content."""
    if path.is_symlink() or not path.exists():
        return path.is_symlink()
    return not path.is_file() or path.stat().st_size != len(content) or read_plain(path, len(content)) != content


def _mark(folder: Path) -> dict[str, Any] | None:
    """The mark of a run's folder `checkpoints`; None where it has none, or is a link."""
    with _one_line(folder / _MARK):
        try:
            mark = None if folder.is_symlink() else read_json_object(folder / _MARK, within=folder)
        except (FileNotFoundError, NotADirectoryError, SftscopeError):
            return None
    known = mark is not None and mark.get("format") == _FORMAT and isinstance(mark.get("steps"), list)
    return mark if known and mark is not None and isinstance(mark.get("token"), str) else None


def _write_mark(folder: Path, mark: Mapping[str, Any]) -> None:
    write_atomically(folder / _MARK, (json.dumps(mark) + "\n").encode())


def _is_saved_here(checkpoint: Path) -> bool:
    """Whether our own training wrote this checkpoint, into a folder that is ours."""
    if checkpoint.is_symlink():
        return False
    mark = _mark(checkpoint.parent)
    return mark is not None and step_named(checkpoint.name) in mark["steps"]


def _is_unfinished(checkpoint: Checkpoint) -> bool:
    """As `Checkpoint.is_unfinished`; SftscopeError where that cannot be determined."""
    with _one_line(checkpoint.path):
        return checkpoint.is_unfinished()


def _signature(record: Mapping[str, Any], token: str) -> str:
    signed = {key: value for key, value in record.items() if key != "signature"}
    return hashlib.sha256(f"{token}\n{json.dumps(signed, sort_keys=True)}".encode()).hexdigest()


def _unlink(file: Path) -> None:
    """Remove a file of ours by its own name; a link that took its place is someone else's."""
    with _one_line(file), suppress(FileNotFoundError):
        if file.name in os.listdir(file.parent) and not file.is_symlink():  # noqa: PTH208  # a plain name, in this folder
            file.unlink()


def _is_empty(folder: Path) -> bool:
    return all(name.startswith(_OURS) or name == _MARK for name in os.listdir(folder))  # noqa: PTH208  # names only


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one folder, also where it is still to be made."""
    if one.resolve() == other.resolve():
        return True
    try:
        return one.samefile(other)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_within(inner: Path, outer: Path) -> bool:
    real = inner.resolve()
    return any(_is_same(place, outer) for place in (real, *real.parents))


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = type(failed_to_read(path, error))  # a disk that may answer later, or nothing that ever could
        raise kind(
            f"{error.filename or path}: {error.strerror or error}; nothing was removed: "
            "correct this and run the same command again"
        ) from error
