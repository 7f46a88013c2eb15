"""Many workers on one run: the next task is a block of probes of a checkpoint that no other worker is processing.

A block's result is a file of raw scores; a claim that expires keeps two workers off one block, and is not needed for
a right result: whoever makes a block makes the same bytes, on machines of one type with as many threads (else the same
scores but for rounding; the step file names all machines). Whoever finds all blocks of a step joins them into the
draft that a single process would have written, and makes the step file from it as a single process does, so that both
files are equal byte for byte.

Measured with real files and tasks that cost nothing, 10^5 of them (500 steps of 200 blocks) by 16 processes at places
of 1,000 workers, on 2 busy cores and a local disk (`tests/benchmarks/bench_cluster.py --tasks 100000 --steps 500
--workers 16 --of 1000`): 225 tasks a second in all, 4.7 ms of a core and 15.5 calls of `os` a task (6 stat, 4 open,
3 unlink, 1 rename, 1 fsync; the claim takes 3 of them), at most 3,152 files of blocks and claims at a time, 201 names
in a listing, 0.05 listings a task, 7.4 MiB and 2.3 s for `status`, 313 MiB for a worker without a model (PyTorch).

Calculated from that, not measured, for 10^6 tasks and 1,000 workers: 15,500 metadata operations divided by the seconds
of a task are asked of the file system each second (260 at a minute a task; a task of less than 10 s is too small,
raise `BLOCK_STATES` or --block), and 150 a second by heartbeats and the workers' accounts, whatever the tasks.
What keeps it there:
- a folder for each step, so that a listing is as long as a step has blocks, not T. A worker lists it when it comes to
  it, and again when it finds a block made that it did not see; it asks for no block that it sees made or claimed.
- teams (`start_of`): W workers have some `BLOCKS_A_STEP` × W blocks on the disk at a time, not T. A worker alone with a
  step would be cheaper in listings, and leave the blocks of W steps there at once.
- workers that have to wait ask less often the more they are (`_POLLS_A_SECOND`), and look at few claims each time.
- nobody reads the file of a step that another has made; the file of a block is synced, its folder is not and is not
  swept; blocks and claims go with their folder when the step is joined.
Not kept small: each worker reads all checkpoints' headers and verifies all step files that are there when it starts;
steps that are scored wait as drafts until ζ is known; a join has all scores of one step in memory.

Of a network file system this needs, besides what `claims` says: a rename within a folder is atomic, and
that a file opened after its rename has all its bytes. A listing or a "no such file" that is old costs work done twice
(the same bytes), or a wait of some seconds, not a result. None was tried.
A block that fails for a reason of its own ends every worker that comes to it, with one line each.
"""

import random
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from sftscope.decomposition.noise_bound import RANGE
from sftscope.extraction.equal_steps import FinishedSteps
from sftscope.extraction.finished import BASE_STEP, is_done_by_now
from sftscope.extraction.job import Entered, Work, enter_step, made_on
from sftscope.extraction.step_scores import draft_of, scored_step
from sftscope.extraction.zeta import known_zeta
from sftscope.files.opening import is_there
from sftscope.foundation.errors import SftscopeError
from sftscope.store import Sample, StepRecord
from sftscope.store.sharing.worker_status import WAITING, WORKING, Worker

_Thing = TypeVar("_Thing")
BLOCK_STATES = 2**14  # masked states in a block: 16 probes of 10 words, one of 14 or more
BLOCKS_A_STEP = 8  # a worker's share of a step: its weights are worth loading, few steps are in work at once
_POLL = 1.0
_POLLS_A_SECOND = 100.0  # of all workers that wait together
_LOOKS = 8  # claims of others that a visit looks at


def blocks_of(n_states: Sequence[int], size: int | None = None) -> tuple[range, ...]:
    """The probes in blocks of `size`, or of at most `BLOCK_STATES` masked states; the same for every worker.

    n_states: masked states of each probe.
    """
    if size is not None:
        return tuple(range(i, min(i + size, len(n_states))) for i in range(0, len(n_states), size))
    blocks, first, states = [], 0, 0
    for number, own in enumerate(n_states):
        if number > first and states + own > BLOCK_STATES:
            blocks.append(range(first, number))
            first, states = number, 0
        states += own
    return (*blocks, range(first, len(n_states)))


class BlockWorker:
    """One worker: a loaded model, and the step whose weights it has at present."""

    def __init__(self, work: Work, worker: Worker, *, size: int | None = None) -> None:
        self.work, self.worker = work, worker
        self.blocks = blocks_of([prompt.n_states for prompt in work.prompts], size)
        self._entered: tuple[int, Entered] | None = None
        self._finished = FinishedSteps(work.folder, work.provenance["identity"])

    def score_blocks(self, step: int, start: float) -> bool:
        """Make the blocks of a step that are there for the taking; whether there were any. start: in [0, 1).

        A block that another was faster with shows that the listing is old. Where all that is left has a claim, some
        of these claims are looked at: they may be over.
        """
        made, blocks = False, _turned(self.blocks, start)
        while not self._is_joined(step):
            names = self.work.folder.in_blocks_folder(step)
            left = [block for block in blocks if self.work.folder.block_file(step, block).name not in names]
            free = [block for block in left if self.work.folder.block_claim(block) not in names]
            for block in free:
                if not self._score(step, block):
                    break
                made = True
            else:
                if made or not left:
                    return made
                return any(self._score(step, block) for block in random.sample(left, min(_LOOKS, len(left))))
            blocks = random.sample(free, len(free))
        return made

    def is_scored(self, step: int) -> bool:
        """Whether the scores of a step are there: as a draft, in blocks, or in its file."""
        folder = self.work.folder
        return self._is_joined(step) or not self._missing(folder.blocks(step), step)

    def join(self, step: int) -> bool:
        """Put the blocks of a step together as its draft; whether it is there. The caller has the step's claim.

        NotReadError where a block cannot be read now: it stays.
        """
        folder = self.work.folder
        if is_there(folder.draft_file(step)):
            return True
        if self._missing(folder.blocks(step), step):
            return False
        records = []
        for block in self.blocks:
            file = folder.block_file(step, block)
            record = draft_of(self.work, step, block, lambda block=block: folder.read_block(step, block), file)  # type: ignore[misc]
            if record is None or record.n_variables.size != len(block):
                folder.drop_block(step, block)  # damaged, or of other settings: recomputed
                return False
            records.append(record)
        if len({record.provenance.get("adapter_sha256") for record in records}) > 1:
            folder.drop_blocks(step)  # the checkpoint was replaced in between
            return False
        folder.write_draft(joined(records))
        folder.drop_blocks(step)
        return True

    def forget_weights(self) -> None:
        """Another part of the extraction may have put in the weights of another step."""
        self._entered = None

    def _score(self, step: int, block: range) -> bool:
        """Make a block if it can be claimed and is not there yet; whether it was."""
        folder = self.work.folder
        with folder.claimed_block(step, block) as mine:
            if not mine or is_there(folder.block_file(step, block)) or self._is_joined(step):
                return False
            self.worker.state, self.worker.task = WORKING, f"step {step}, probes {block.start}-{block.stop - 1}"
            if self._is_new(step) and self._took_results_of_an_equal_step(step):
                return False
            try:
                record = scored_step(self.work, step, lambda note: None, block=block, enter=self._enter)
                folder.write_block(record, block)
            except SftscopeError:
                if not self._is_joined(step):
                    raise
                return False  # this process was stopped for long: others made the step, and removed the folder
        self.worker.probes += len(block)
        return True

    def _missing(self, names: frozenset[str], step: int) -> bool:
        return any(self.work.folder.block_file(step, block).name not in names for block in self.blocks)

    def _is_joined(self, step: int) -> bool:
        folder = self.work.folder
        return is_there(folder.draft_file(step)) or is_there(folder.step_file(step))

    def _took_results_of_an_equal_step(self, step: int) -> bool:
        """Whether a finished step has the same weights, so that its results are those of this step too, and stored."""
        same = self._finished.as_step(step, self._enter(self.work, step))
        if same is None:
            return False
        with self.work.folder.claimed(step) as mine:
            if mine and not self._is_joined(step):
                self.work.folder.write_step(same)
        return self._is_joined(step)

    def _is_new(self, step: int) -> bool:
        """Whether the weights that are in place are those of another step."""
        return self._entered is None or self._entered[0] != step

    def _enter(self, work: Work, step: int) -> Entered:
        if self._entered is None or self._entered[0] != step:
            self._entered = None
            self._entered = step, enter_step(work, step)
        return self._entered[1]


def joined(records: Sequence[StepRecord]) -> StepRecord:
    """Blocks of one step, in order, as the record that scores all their probes at once."""
    first = records[0]
    verify: dict[str, Any] = dict(first.provenance["verify"])
    verify["largest_difference"] = [
        value for record in records for value in record.provenance["verify"]["largest_difference"]
    ]
    return StepRecord(
        step=first.step,
        n_variables=np.concatenate([record.n_variables for record in records]),
        target=np.concatenate([record.target for record in records]),
        scores=np.concatenate([record.scores for record in records]),
        noise=np.concatenate([record.noise for record in records]),
        effects=None,
        sample=Sample.of([record.states_of(p) for record in records for p in range(record.n_variables.size)]),
        losses=first.losses,
        provenance={**first.provenance, **made_on(record.provenance for record in records), "verify": verify},
    )


def can_tell_zeta(work: Work, todo: Sequence[int]) -> bool:
    """Whether ζ is known, or step 0 is scored, or not among what is to do; else a step has to wait for others.

    A ζ that moves with the steps needs no other step.
    """
    if work.settings.extraction.zeta_of == RANGE:
        return True
    if BASE_STEP not in todo or is_there(work.folder.draft_file(BASE_STEP)):
        return True
    return known_zeta(work.folder, work.provenance["identity"])[0] is not None


def work_through(
    blocks: BlockWorker, todo: Sequence[int], make: Any, *, place: tuple[int, int], poll: float = _POLL
) -> None:
    """Score blocks and finish steps until all of `todo` are done, whoever does them.

    make: makes the step file from the step's draft. place: (I, N), where this worker begins.
    """
    folder, identity = blocks.work.folder, blocks.work.provenance["identity"]
    first, within = start_of(place, len(blocks.blocks))
    left = _turned(todo, first)
    damaged = {step for step in todo if is_there(folder.step_file(step))}  # else it would not be to do
    touched: set[int] = set()
    while left:
        moved = False
        for step in tuple(left):
            if is_there(folder.step_file(step)) and (step not in damaged or is_done_by_now(folder, step, identity)):
                if step in touched:  # a worker that was stopped for long may have put these there again
                    folder.drop_blocks(step)
                    folder.drop_draft(step)
                left.remove(step)
                moved = True
                continue
            touched.add(step)
            if not is_there(folder.draft_file(step)):
                moved |= blocks.score_blocks(step, within)
            if not blocks.is_scored(step):
                continue
            with folder.claimed(step) as mine:
                if mine and blocks.join(step) and can_tell_zeta(blocks.work, todo):
                    blocks.worker.state, blocks.worker.task = WORKING, f"step {step}, decomposition"
                    make(step)
                    blocks.forget_weights()
                    moved = True
        if left and not moved:
            blocks.worker.state, blocks.worker.task = WAITING, "other workers are processing what is left"
            time.sleep(max(poll, place[1] / _POLLS_A_SECOND))


def start_of(place: tuple[int, int], blocks: int) -> tuple[float, float]:
    """Where the I-th of N workers begins: among the steps, and among the `blocks` of each; both in [0, 1).

    Teams of as many workers as have `BLOCKS_A_STEP` blocks each go through the steps together, one after another, so
    that a team has one step in work and its blocks are soon joined; teams begin at steps far apart.
    """
    number, total = place[0] - 1, place[1]
    size = max(1, blocks // BLOCKS_A_STEP)
    team, member = divmod(number, size)
    teams = -(-total // size)
    return team / teams, member / min(size, total)


def _turned(things: Sequence[_Thing], start: float) -> list[_Thing]:
    first = int(start * len(things))
    return [*things[first:], *things[:first]]
