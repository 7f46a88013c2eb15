"""Which steps of a run can be extracted, and which are: a step file that verifies is never computed again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sftscope.extraction.same_prompts import refuse_other_scored, run_prompts
from sftscope.files.opening import is_there
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.progress import say
from sftscope.store import NewerFormatError, NoReaderError, RunFolder, StepFileError, StepRecord
from sftscope.store.checkpoints import ready_checkpoints

BASE_STEP = 0


def available_steps(folder: RunFolder) -> tuple[int, ...]:
    """Step 0 and every checkpoint that is ready."""
    return tuple(sorted({BASE_STEP, *ready_checkpoints(folder.checkpoints)}))


def is_done(folder: RunFolder, step: int, identity: str, prompts: Sequence[str] | None = None) -> bool:
    """Whether an intact step file of this run is there; a damaged one is recomputed.

    prompts: their hashes in run.toml, where the caller has them. NotReadError where that cannot be determined now:
    the step is to be left alone.
    """
    record = _result(folder.step_file(step), folder.read_step, step, identity)
    if record is not None:
        known = run_prompts(folder) if prompts is None else prompts
        refuse_other_scored(folder.step_file(step), record, known, folder)
    return record is not None


def is_result(path: Path, read: Callable[[int], StepRecord], step: int, identity: str) -> bool:
    """Whether `path` holds complete results of a step; SftscopeError where they are those of another run.

    NotReadError as `is_done`; NewerFormatError where a newer sftscope wrote it.
    """
    return _result(path, read, step, identity) is not None


def _result(path: Path, read: Callable[[int], StepRecord], step: int, identity: str) -> StepRecord | None:
    if not is_there(path):
        return None
    try:
        record = read(step)
    except NewerFormatError:
        raise
    except StepFileError as error:
        say(f"{error}; extracting step {step} again")
        return None
    if record.provenance.get("identity") != identity:
        raise SftscopeError(f"{path}: was made with other settings, model or probes; use another --out folder")
    return record


def is_done_by_now(folder: RunFolder, step: int, identity: str) -> bool:
    """As `is_done`, in silence: whether another process has made the step since."""
    return folder.has_result(step, identity)


def sort_out(folder: RunFolder, steps: Iterable[int], identity: str) -> tuple[list[int], dict[int, str]]:
    """The steps that are to be extracted, and those whose files cannot be read now, with the reason."""
    todo, unread = [], {}
    prompts = run_prompts(folder)
    for step in steps:
        try:
            if not is_done(folder, step, identity, prompts):
                todo.append(step)
        except NoReaderError:
            raise
        except NotReadError as error:
            unread[step] = str(error)
    return todo, unread


def refuse_unread(unread: Mapping[int, str]) -> None:
    """NotReadError where the files of some steps could not be read: whether they are done is not known."""
    if unread:
        first = next(iter(unread.values()))
        others = f" (and {len(unread) - 1} more)" if len(unread) > 1 else ""
        raise NotReadError(f"{first}{others}; left as it is, the same command looks at it again")
