"""The recipe over checkpoints: each one scored, decomposed, and stored as one step file.

Several processes may work on one run: each step is claimed, made once, and stored whole.
"""

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial

from sftscope.decomposition.step_effects import with_effects
from sftscope.extraction.blocks import BlockWorker, work_through
from sftscope.extraction.equal_steps import FinishedSteps
from sftscope.extraction.finished import (
    BASE_STEP,
    available_steps,
    is_done_by_now,
    refuse_unread,
    sort_out,
)
from sftscope.extraction.gpu_interior_point import points_on
from sftscope.extraction.job import Work, enter_step, prepare
from sftscope.extraction.step_scores import scored_step
from sftscope.extraction.zeta import bounds_of
from sftscope.files.opening import is_there
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.progress import Progress, progress, say
from sftscope.inputs.settings import RunSettings
from sftscope.lattice.transforms import Floats
from sftscope.store import RunFolder, StepRecord
from sftscope.store.checkpoints import ready_checkpoints
from sftscope.store.sharing.worker_status import at_work

WithModel = Callable[[Work, int], None]


def extract(
    settings: RunSettings,
    folder: RunFolder,
    *,
    identity: str,
    steps: Sequence[int] | None = None,
    shard: tuple[int, int] = (1, 1),
    place: tuple[int, int] | None = None,
    block: int | None = None,
) -> None:
    """Make the step files of `steps` (default: all that can be made) that are not there yet.

    settings: with paths resolved. identity: hash of what results depend on, stored with each step. shard: (I, N),
    1 ≤ I ≤ N: every N-th of the steps from the I-th on. place: (I, N), this is the I-th of N workers, which share
    every step by blocks of `block` probes (default: see `blocks_of`).
    Other processes may extract the same run at the same time. A step whose file is there and cannot be read now is left
    as it is: NotReadError once all others are made.
    """
    wanted = available_steps(folder) if steps is None else tuple(sorted(set(steps)))
    if missing := set(wanted) - set(available_steps(folder)):
        known = ", ".join(map(str, available_steps(folder)))
        raise SftscopeError(f"{folder.checkpoints}: no checkpoint of step {min(missing)}; there are {known}")
    folder.sweep()
    share = wanted[shard[0] - 1 :: shard[1]]
    todo, unread = sort_out(folder, share, identity)
    done = set(share).difference(todo, unread)
    for step in done:
        folder.drop_draft(step)  # where a kill came between the result and this
    for step in folder.steps_with_blocks().intersection(done):
        folder.drop_blocks(step)  # of a worker that was stopped for long, then killed
    if todo:
        _extract(settings, folder, identity, todo, place, block)
    refuse_unread(unread)
    if not todo:
        say(f"extraction: all {len(share)} steps are done")


def _extract(
    settings: RunSettings,
    folder: RunFolder,
    identity: str,
    todo: Sequence[int],
    place: tuple[int, int] | None,
    block: int | None,
) -> None:
    if place is None:
        _make(prepare(settings, folder, identity), todo)
        return
    with at_work(folder.workers_folder) as worker:
        work = prepare(settings, folder, identity)
        blocks = BlockWorker(work, worker, size=block)
        work_through(blocks, todo, partial(_make_joined, work), place=place)


def follow(
    settings: RunSettings,
    folder: RunFolder,
    *,
    identity: str,
    more: Callable[[], bool],
    made: Callable[[int], None] = lambda step: None,
    steps: Container[int] | None = None,
    with_model: WithModel = lambda work, step: None,
) -> None:
    """As `extract`, of checkpoints as they come: until `more()`, which may wait for the next, says there are none.

    made: called for each step whose file is there. steps: only these. with_model: called with the model of a step that
    was scored, before its file is there. The model stays loaded in between.
    What cannot be read now is looked at again when there is more; NotReadError where it is the last.
    """
    folder.sweep()
    work: Work | None = None
    done: set[int] = set()
    said: set[str] = set()
    while True:
        available: tuple[int, ...] = ()
        unread: dict[int, str] = {}
        try:
            available = available_steps(folder)
        except NotReadError as error:
            unread[BASE_STEP] = str(error)
        new = [step for step in available if (steps is None or step in steps or step == BASE_STEP) and step not in done]
        todo, unread_steps = sort_out(folder, new, identity)
        unread |= unread_steps
        for line in sorted({*unread.values()} - said):  # of a training that runs for days: once each
            say(line)
        said.update(unread.values())
        done.update(set(new).difference(unread))
        for step in new:
            if step in done and step not in todo:
                made(step)
        if todo:
            work = prepare(settings, folder, identity) if work is None else work
            work = replace(work, checkpoints=ready_checkpoints(folder.checkpoints))
            _make(work, todo, made, with_model)
        if not more():
            refuse_unread(unread)
            return


def _make(
    work: Work,
    todo: Sequence[int],
    made: Callable[[int], None] = lambda step: None,
    with_model: WithModel = lambda work, step: None,
) -> None:
    """Write the step files of `todo` and call `made`."""
    folder, identity = work.folder, work.provenance["identity"]
    bounds, finished = bounds_of(work), FinishedSteps(folder, identity)

    def results(step: int, note: Callable[[str], None]) -> StepRecord:
        if is_there(folder.draft_file(step)):  # scored by its own weights, or begun
            scored = scored_step(work, step, note)
        else:
            entered = enter_step(work, step)
            if (same := finished.as_step(step, entered)) is not None:
                return same
            scored = scored_step(work, step, note, enter=lambda *_: entered)
        return decomposed(work, scored, *bounds(scored))

    def make(step: int, note: Callable[[str], None]) -> None:
        if not is_done_by_now(folder, step, identity):
            record = results(step, note)
            with_model(work, step)
            folder.write_step(record)
        made(step)

    with progress("extraction") as report:
        _each_unclaimed(folder, todo, make, report)


def _make_joined(work: Work, step: int) -> None:
    """Write the step file of a step that has a draft, unless it is there; the caller has its claim."""
    if is_done_by_now(work.folder, step, work.provenance["identity"]):
        return
    bounds, scored = bounds_of(work), scored_step(work, step, lambda note: None)
    work.folder.write_step(decomposed(work, scored, *bounds(scored)))


def _each_unclaimed(
    folder: RunFolder, todo: Sequence[int], make: Callable[[int, Callable[[str], None]], None], report: Progress
) -> None:
    """`make` each step of `todo`; those that other processes work at come last: by then they are done or given up."""
    left, told = list(todo), False
    while left:
        before = len(left)
        for step in tuple(left):
            with folder.claimed(step) as mine:
                if not mine:
                    continue
                done = len(todo) - len(left)
                make(step, partial(report, done, len(todo)))
                left.remove(step)
                report(len(todo) - len(left), len(todo), f"step {step}")
        if len(left) == before:
            if not told:
                say(f"steps {', '.join(map(str, left))} are being extracted by another process; waiting for it")
            told = True
            time.sleep(1)


def decomposed(work: Work, scored: StepRecord, zeta: Floats, source: Sequence[str]) -> StepRecord:
    """The record with its effects; on a GPU the interior points of a whole batch are found there."""
    device = work.llm.device
    return with_effects(
        scored,
        zeta,
        source,
        words=work.words,
        tolerance=work.settings.extraction.tolerance,
        points=partial(points_on, device) if device.type == "cuda" else None,
        replicates=work.settings.extraction.replicates,
    )
