"""A machine that fails: the k-th file operation goes wrong, or the power goes out and takes what was not synced.

Both stand in for `os`, through which the store does all of its writing.
"""

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CALLS = ("open", "write", "fsync", "close", "replace", "mkdir", "unlink", "stat", "fstat", "rename", "utime")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR)


@dataclass
class Fault:
    """What happens at the `at`-th operation: an error before or after it is done, or a short write."""

    at: int
    error: int = 0  # 0: no error, but a write takes half of what it is given
    done_first: bool = False  # the operation is done, and reported as failed: a server's answer that was lost
    count: int = 0
    fired: str = ""

    def meets(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        self.count += 1
        if self.count != self.at:
            return real(*arguments, **options)
        self.fired = name
        if not self.error:
            half = (arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2]) if name == "write" else arguments
            return real(*half, **options)
        if self.done_first or name == "close":  # a descriptor is gone even where closing it fails
            real(*arguments, **options)
        raise OSError(self.error, os.strerror(self.error))


@contextmanager
def failing(fault: Fault) -> Iterator[Fault]:
    """The machine with one fault."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            real = getattr(os, name)

            def call(*arguments: Any, _name: str = name, _real: Any = real, **options: Any) -> Any:
                return fault.meets(_name, _real, arguments, options)

            patch.setattr(os, name, call)
        yield fault


def all_faults(act: Callable[[], None], prepare: Callable[[], None], check: Callable[[Fault, Any], None]) -> int:
    """`act` with every fault at every operation, each after `prepare`; `check` sees the fault and what was raised.

    Returns how many faults were met.
    """
    met = 0
    kinds = [*((error, done) for error in ERRORS for done in (False, True)), (0, False)]
    for error, done_first in kinds:
        for at in itertools.count(1):
            prepare()
            raised = None
            with failing(Fault(at, error, done_first)) as fault:
                try:
                    act()
                except Exception as caught:  # of what kind it may be is for `check` to say
                    raised = caught
            if not fault.fired:
                break
            met += 1
            check(fault, raised)
    return met


@dataclass(eq=False)
class _File:
    """A file's bytes as programs see them, and as the disk has them."""

    now: bytes = b""
    synced: bytes = b""


@dataclass
class PowerLoss:
    """Follows all writing below a folder; tells what may be on the disk if the power goes out now.

    Names become durable when their folder is synced, contents when their file is. What is not synced may be there,
    or not: any of the names, and of a content nothing, a part, zeros, or all.
    """

    root: Path
    durable: dict[Path, _File | None] = field(default_factory=dict)  # None: a folder
    pending: list[tuple[Path, dict[Path, _File | None]]] = field(default_factory=list)  # folder, its new names
    open_files: dict[int, Path] = field(default_factory=dict)
    moments: list[list[dict[Path, bytes]]] = field(default_factory=list)
    most: int = 64

    def __post_init__(self) -> None:
        self.durable = {
            each: _File(each.read_bytes(), each.read_bytes()) if each.is_file() else None
            for each in self.root.rglob("*")
        }
        self.current: dict[Path, _File | None] = dict(self.durable)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow what the block writes; a moment is kept after each operation."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "write", "fsync", "replace", "mkdir", "unlink", "rename"):
                real, after = getattr(os, name), getattr(self, f"_{name}")

                def call(*arguments: Any, _real: Any = real, _after: Any = after, **options: Any) -> Any:
                    result = _real(*arguments, **options)
                    _after(result, *arguments)
                    self.moments.append(self.outcomes())
                    return result

                patch.setattr(os, name, call)
            yield

    def outcomes(self) -> list[dict[Path, bytes]]:
        """The contents of all files in what may be on the disk now; all of it, or a sample where there is too much."""
        chosen = list(itertools.product((True, False), repeat=len(self.pending)))
        random.Random(len(self.moments)).shuffle(chosen)
        found = []
        for kept in chosen[: self.most]:
            names = dict(self.durable)
            for (_, change), is_kept in zip(self.pending, kept, strict=True):
                if is_kept:
                    names |= change
            there = {path for path, file in names.items() if file is not _GONE and self._is_reached(path, names)}
            files = {path: file for path in there if isinstance(file := names[path], _File)}
            for part in (0.0, 0.5, 1.0, None):
                found.append({path: _survived(file, part) for path, file in files.items()})
        return found

    def _is_reached(self, path: Path, names: dict[Path, Any]) -> bool:
        above = [each for each in path.parents if each.is_relative_to(self.root) and each != self.root]
        return all(each in names and names[each] is not _GONE for each in above)

    def _change(self, folder: Path, names: dict[Path, Any]) -> None:
        self.pending.append((folder, names))
        self.current |= names

    def _open(self, descriptor: int, path: Any, flags: int, *_: Any) -> None:
        self.open_files[descriptor] = Path(path)
        if flags & os.O_CREAT and not isinstance(self.current.get(Path(path)), _File):
            self._change(Path(path).parent, {Path(path): _File()})

    def _write(self, written: int, descriptor: int, data: Any) -> None:
        file = self.current[self.open_files[descriptor]]
        assert isinstance(file, _File)
        file.now += bytes(data)[:written]

    def _fsync(self, _: None, descriptor: int) -> None:
        path = self.open_files[descriptor]
        file = self.current.get(path)
        if isinstance(file, _File):
            file.synced = file.now
            return
        for folder, names in self.pending:
            if folder == path:
                self.durable |= names
        self.pending = [each for each in self.pending if each[0] != path]

    def _replace(self, _: None, source: Any, target: Any) -> None:
        self._change(Path(target).parent, {Path(target): self.current[Path(source)], Path(source): _GONE})

    _rename = _replace

    def _mkdir(self, _: None, path: Any, *__: Any) -> None:
        self._change(Path(path).parent, {Path(path): None})

    def _unlink(self, _: None, path: Any) -> None:
        self._change(Path(path).parent, {Path(path): _GONE})


_GONE: Any = _File(b"gone", b"gone")


def _survived(file: _File, part: float | None) -> bytes:
    """What is left of a content whose end was not synced; part None: its length, but zeros."""
    if file.now == file.synced:
        return file.synced
    rest = file.now[len(file.synced) :]
    return file.synced + (bytes(len(rest)) if part is None else rest[: int(part * len(rest))])
