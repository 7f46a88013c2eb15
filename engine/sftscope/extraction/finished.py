"""Which steps of a run can be extracted, and which are: a step file that verifies is never computed again."""

from collections.abc import Callable
from pathlib import Path

from sftscope.errors import SftscopeError
from sftscope.progress import say
from sftscope.store import RunFolder, StepFileError, StepRecord
from sftscope.store.checkpoints import ready_checkpoints

BASE_STEP = 0


def available_steps(folder: RunFolder) -> tuple[int, ...]:
    """Step 0 and every checkpoint that is ready."""
    return tuple(sorted({BASE_STEP, *ready_checkpoints(folder.checkpoints)}))


def is_done(folder: RunFolder, step: int, identity: str) -> bool:
    """Whether an intact step file of this run is there; a damaged one is recomputed."""
    return is_result(folder.step_file(step), folder.read_step, step, identity)


def is_result(path: Path, read: Callable[[int], StepRecord], step: int, identity: str) -> bool:
    """Whether `path` holds complete results of a step; SftscopeError where they are those of another run."""
    if not path.exists():
        return False
    try:
        record = read(step)
    except StepFileError as error:
        say(f"{error}; extracting step {step} again")
        return False
    if record.provenance.get("identity") != identity:
        raise SftscopeError(f"{path}: was made with other settings, model or probes; use another --out folder")
    return True


def is_done_by_now(folder: RunFolder, step: int, identity: str) -> bool:
    """As `is_done`, in silence: whether another process has made the step since."""
    try:
        return folder.read_step(step).provenance.get("identity") == identity
    except StepFileError:
        return False
