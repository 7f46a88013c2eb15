"""Where a training left its weights, and of which step they are.

Folders `checkpoint-N` and `step_N` say it, `--checkpoint STEP=PATH` does, and a trainer's state does for the final
weights next to it where these cannot be the best step's instead. What none of them says is left out, with the reason;
`epoch_N` counts epochs where nothing counts steps.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sftscope.attach.foreign_checkpoints import BY_COPY, BY_STATE, EPOCH, GIVEN, Found, weight_files, wrapper_in
from sftscope.attach.trainer_logs import TRAINER_LOG
from sftscope.files.hashes import file_sha256
from sftscope.files.opening import raise_if_not_read
from sftscope.files.safetensors_header import is_whole
from sftscope.files.same_tensors import same_tensors
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import safe_text, shell_command
from sftscope.store import ownership
from sftscope.store.checkpoints import list_checkpoints, step_named
from sftscope.store.trainer_state import STATE, TrainerState, read_trainer_state

_STEP = re.compile(r"step[-_]0*([1-9]\d{0,11})", re.ASCII)  # as scripts without a Trainer name them
_EPOCH = re.compile(r"epoch[-_]0*(\d{1,9})", re.ASCII)
_Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Source:
    """What is attached. folder: the output folder of a training, if one was named. given: folders by their step."""

    folder: Path | None
    given: Mapping[int, Path] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.folder or next(iter(self.given.values()), ""))

    @property
    def places(self) -> tuple[Path, ...]:
        """Every folder that was named."""
        return (*([self.folder] if self.folder else ()), *self.given.values())

    def look(self, copies: Path | None = None) -> "Layout":
        """What is there now. copies: a run's `checkpoints`, whose steps are known. SftscopeError where a folder is
        missing."""
        for path in self.places:
            if not path.is_dir():
                hint = "give the output folder of a training, with its checkpoint-N"
                raise SftscopeError(
                    f"{path}: no such folder; {hint if path == self.folder else 'expected STEP=FOLDER'}"
                )
        looking = _Looking({step: Found(step, path, GIVEN) for step, path in self.given.items()})
        if self.folder is not None:
            looking.add_named(self.folder)
            looking.add_unnamed(self.folder, copies)
        for step, part in looking.found.items():
            if part.said_by == GIVEN:
                _refuse_given_otherwise(step, part.path, looking.found)
        steps = sorted(looking.found)
        return Layout(tuple(looking.found[step] for step in steps), looking.left_out)


@dataclass(frozen=True)
class Layout:
    """checkpoints: complete or not, by step. left_out: why other weights are no step, by their folder."""

    checkpoints: tuple[Found, ...]
    left_out: Mapping[Path, str]

    @property
    def counts_epochs(self) -> bool:
        """Whether its steps are epochs."""
        return any(part.said_by == EPOCH for part in self.checkpoints)


def find_checkpoints(folder: Path) -> tuple[Found, ...]:
    """The checkpoints at `folder`, as `Source.look`."""
    return Source(folder).look().checkpoints


def remarks(layout: Layout, taken: Collection[int]) -> list[str]:
    """What to say of a layout: which weights are left out, and what is unusual about the steps that were `taken`."""
    lines = [f"{path}: left out: {safe_text(why)}; {how_to_name([path])}" for path, why in layout.left_out.items()]
    if layout.counts_epochs:
        lines.append(
            "the folders are named after epochs, so a step of this run is an epoch; to count steps, give each by "
            "--checkpoint STEP=PATH"
        )
    wrapped = [part for part in layout.checkpoints if part.step in taken and wrapper_in(part.path)]
    if wrapped:
        lines.append(
            f"{wrapped[0].path}: its tensors are named with {wrapper_in(wrapped[0].path)!r}, the prefix of a wrapper "
            f"(in {len(wrapped)} checkpoints); they are read without it"
        )
    return lines


def unnamed_weights(folder: Path) -> list[Path]:
    """Folders in `folder` that hold weights, whatever they are called."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and weight_files(path))
    except OSError:
        return []


def how_to_name(paths: Iterable[Path]) -> str:
    """The options that say of which steps the weights in `paths` are."""
    return f"add the step: {shell_command(word for path in paths for word in ('--checkpoint', f'STEP={path}'))}"


@dataclass
class _Looking:
    """Steps as they are found; what was found first stays."""

    found: dict[int, Found]
    left_out: dict[Path, str] = field(default_factory=dict)

    def add(self, part: Found) -> None:
        if any(_is_same(part.path, known.path) for known in self.found.values()):
            return
        other = self.found.setdefault(part.step, part)
        if other is not part and not _are_same(weight_files(part.path), weight_files(other.path)):
            self.left_out[part.path] = f"is of step {part.step}, as {other.path} is"

    def add_named(self, folder: Path) -> None:
        """The checkpoints whose names are steps: those in `folder`, or `folder` itself."""
        for checkpoint in list_checkpoints(folder):
            self.add(Found(checkpoint.step, checkpoint.path))
        for step, path in _named(folder, _STEP):
            self.add(Found(step, path))
        name = folder.resolve().name
        match = _STEP.fullmatch(name)
        named = int(match[1]) if match else step_named(name)
        if named is not None:
            self.add(Found(named, folder))

    def add_unnamed(self, folder: Path, copies: Path | None) -> None:
        """Weights whose names are no steps: of epochs, and the final ones in `folder` itself."""
        epochs = list(_named(folder, _EPOCH))
        if match := _EPOCH.fullmatch(folder.resolve().name):
            epochs.append((int(match[1]), folder))
        unknown = []
        for number, path in epochs:
            if not weight_files(path) or self._is_taken(path):
                continue
            if (path / STATE).exists():
                self._add_by_state(path, copies)
            else:
                unknown.append((number, path))
        self._add_epochs(unknown, counts_steps=(folder / TRAINER_LOG).exists())
        if weight_files(folder) and not self._is_taken(folder) and folder not in self.left_out:
            self._add_by_state(folder, copies)

    def _add_epochs(self, epochs: list[tuple[int, Path]], *, counts_steps: bool) -> None:
        if counts_steps or self.found or any(number == 0 for number, _ in epochs):
            for number, path in epochs:
                also = ", and step 0 is the base model" if number == 0 else ""
                self.left_out[path] = f"its name counts epochs, not steps{also}"
            return
        for number, path in epochs:
            self.add(Found(number, path, EPOCH))

    def _add_by_state(self, folder: Path, copies: Path | None) -> None:
        step, said_by, reason = _step_by_state(folder, self.found, copies)
        if reason:
            self.left_out[folder] = reason
        elif step is not None:
            self.add(Found(step, folder, said_by))

    def _is_taken(self, folder: Path) -> bool:
        return any(_is_same(folder, part.path) for part in self.found.values())


def _step_by_state(folder: Path, found: Mapping[int, Found], copies: Path | None) -> tuple[int | None, str, str]:
    """Of which step the weights in `folder` are, what says so, and why that is not certain.

    None without a reason: they are those of a checkpoint that was found. A trainer that loads its best weights at the
    end saves these next to the state of its last step.
    """
    files = weight_files(folder)
    if torn := next((file.name for file in files if not is_whole(file)), ""):
        return None, "", f"{torn} is not complete"
    for part in found.values():
        if _are_same(files, weight_files(part.path)):
            _refuse_copied_otherwise(folder, files, part, copies)
            return None, "", ""
    if (step := _step_of_copy(folder, files, copies)) is not None:
        return step, BY_COPY, ""
    try:
        state = read_trainer_state(folder)
    except FileNotFoundError:
        return None, "", "nothing says of which step its weights are"
    except NotReadError:
        raise
    except (OSError, SftscopeError):
        return None, "", f"its {STATE} cannot be read, and nothing else says its step"
    if why := _why_unsure(state, found):
        return None, "", why
    return (None if state.step in found else state.step), BY_STATE, ""


def _why_unsure(state: TrainerState, found: Mapping[int, Found]) -> str:
    if state.step == 0:
        return f"its {STATE} is of step 0, which is the base model"
    if (part := found.get(state.step)) is not None and all(map(is_whole, weight_files(part.path))):
        return f"its {STATE} is of step {state.step}, but its weights are not those of {part.path.name}"
    if state.has_best and state.best_step != state.step:
        best = f"step {state.best_step}" if state.best_step is not None else "another step"
        return f"its weights may be those of the best step ({best}) or of the last ({state.step}): {STATE} fits both"
    return ""


def _step_of_copy(folder: Path, files: list[Path], copies: Path | None) -> int | None:
    """The step of the copy that a run made of a checkpoint with the same weights, which may be gone since."""
    for copy in list_checkpoints(copies) if copies is not None else ():
        record: Mapping[str, Any] = ownership.read_record(copy.path) or {}
        if _is_same(Path(str(record.get("path", ""))), folder):
            continue  # of these very weights, so that it says nothing more about them
        kept = weight_files(copy.path)
        if _are_same(files, kept) if kept else _have_hashes(files, record.get("sha256")):
            return copy.step
    return None


def _refuse_copied_otherwise(folder: Path, files: list[Path], part: Found, copies: Path | None) -> None:
    """SftscopeError where a run took these weights for another step, as earlier releases did."""
    for copy in list_checkpoints(copies) if copies is not None else ():
        record: Mapping[str, Any] = ownership.read_record(copy.path) or {}
        from_here = _is_same(Path(str(record.get("path", ""))), folder) and copy.step != part.step
        if from_here and _have_hashes(files, record.get("sha256")):
            raise SftscopeError(
                f"{copy.path}: was taken from {folder} as step {copy.step}, but its weights are those of {part.path}; "
                f"move it and the results of step {copy.step} away, or use another --out folder"
            )


def _refuse_given_otherwise(step: int, path: Path, found: Mapping[int, Found]) -> None:
    """SftscopeError where `--checkpoint` contradicts what is certain: a name, or equal weights of another step."""
    named = step_named(path.resolve().name)
    if named is not None and named != step:
        raise SftscopeError(f"--checkpoint {step}={path}: is of step {named} by its name; give its own step")
    for other in found.values():
        if other.step != step and _are_same(weight_files(path), weight_files(other.path)):
            raise SftscopeError(
                f"--checkpoint {step}={path}: has the weights of {other.path}, of step {other.step}; leave it out, or "
                "correct the step"
            )


def _named(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, Path]]:
    """Folders in `folder` whose names are a number by `pattern`, in order."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise_if_not_read(folder, error)
        return
    found = ((pattern.fullmatch(path.name), path) for path in entries)
    yield from sorted((int(match[1]), path) for match, path in found if match and path.is_dir())


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _are_same(one: list[Path], other: list[Path]) -> bool:
    """Whether two lists of files hold the same weights; False where one cannot be read."""
    try:
        return bool(one and other) and _same_tensors(_stamp(one), _stamp(other))
    except (OSError, SftscopeError, ValueError):
        return False


def _have_hashes(files: list[Path], known: Any) -> bool:
    try:
        return isinstance(known, dict) and known == dict(_hashes(_stamp(files)))
    except (OSError, SftscopeError):
        return False


def _stamp(files: list[Path]) -> _Stamp:
    """Which files these are, and in which version."""
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=64)  # a training that is watched is looked at every few seconds
def _same_tensors(one: _Stamp, other: _Stamp) -> bool:
    return same_tensors([Path(name) for name, *_ in one], [Path(name) for name, *_ in other])


@lru_cache(maxsize=8)
def _hashes(files: _Stamp) -> tuple[tuple[str, str], ...]:
    return tuple((Path(name).name, file_sha256(Path(name))) for name, *_ in files)
