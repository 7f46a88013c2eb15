"""Workers with real claims, blocks, joins and step files, and a scorer that costs next to nothing; and chaos for them.

A worker is a forked process. It reads step files in itself: the process apart that a real one starts for that is
most of what a round would cost, and a worker that is stopped while it waits for it takes the file for a damaged one.
What it does is written into the file `events` of its run, a line each, so that what was made twice can be told from
what was made once.
"""

import contextlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from sftscope.extraction import blocks as block_work
from sftscope.extraction.blocks import BlockWorker, work_through
from sftscope.extraction.finished import is_done_by_now
from sftscope.extraction.job import Entered, Work
from sftscope.extraction.step_scores import scored_step
from sftscope.files import claims
from sftscope.inputs.settings import settings_from_tables
from sftscope.lattice.masked_states import every_state
from sftscope.store import RunFolder, StepRecord
from sftscope.store.sharing.worker_status import Worker, at_work
from sftscope.store.steps import step_file
from sftscope.store.steps.step_reader import read_datasets
from sftscope.store.steps.step_record import Effects

WORDS = 2
IDENTITY = "cheap"
STEPS, PROBES, WORKERS = 4, 6, 4  # of a round of chaos
EXPIRES, REFRESH = 0.6, 0.1  # seconds, of its claims


class CheapScorer:
    """Scores that depend on the step and the probe; `busy` seconds of a core for each."""

    precision = "float32"

    def __init__(self, busy: float) -> None:
        self.busy, self.step = busy, -1

    def score(self, prompt: Any, *watched: Any) -> Any:
        until = time.process_time() + self.busy
        while time.process_time() < until:
            pass
        return np.random.default_rng((self.step, prompt.target)).normal(size=2**WORDS) + 3.0 * np.arange(2**WORDS)


def cheap_prompt(number: int) -> SimpleNamespace:
    """What the blocks and the records ask of a `MaskedPrompt`."""
    states = every_state(WORDS)
    return SimpleNamespace(n_variables=WORDS, n_states=states.subset.size, states=states, target=number)


def cheap_work(run: Path, probes: int, busy: float = 0.0) -> Work:
    """A `Work` without an LLM."""
    settings = settings_from_tables(
        {"extraction": {"check_states": 0}, "model": {"path": "none"}, "probes": {"file": "none"}}, trained_here=False
    )
    work: Any = SimpleNamespace(
        folder=RunFolder(run),
        settings=settings,
        scorer=CheapScorer(busy),
        prompts=tuple(cheap_prompt(number) for number in range(probes)),
        probe_ids=tuple(map(str, range(probes))),
        provenance={"identity": IDENTITY, "dtype": "float32"},
    )
    return work


def enter(work: Any, step: int) -> Entered:
    """Make the scorer that of `step`."""
    work.scorer.step = step
    return Entered({}, f"adapter {step}")


def make_step(work: Work, step: int) -> bool:
    """Write the step file from the draft, or from the scorer; whether it was not there yet."""
    if is_done_by_now(work.folder, step, IDENTITY):
        return False
    record = scored_step(work, step, lambda note: None, enter=enter)
    nothing, zeros = np.zeros(len(record.scores)), np.zeros(record.n_variables.size)
    provenance = {**record.provenance, "zeta_source": ["none"] * record.n_variables.size}
    work.folder.write_step(
        StepRecord(
            step=record.step,
            n_variables=record.n_variables,
            target=record.target,
            scores=record.scores,
            noise=record.noise,
            effects=Effects(nothing, nothing, zeros, zeros, zeros),
            losses={},
            provenance=provenance,
        )
    )
    return True


def work_as(place: tuple[int, int], work: Work, steps: int, *, poll: float = 0.05) -> Worker:
    """One worker, from its start to the end of the run; what it did at last."""
    block_work.enter_step = enter  # a forked process has these modules to itself
    step_file.read_apart = read_datasets
    with at_work(work.folder.workers_folder) as state:
        work_through(
            BlockWorker(work, state, size=1), range(steps), lambda step: make_step(work, step), place=place, poll=poll
        )
    return state


@dataclass
class Found:
    """What chaos did, and what came of it. again: blocks, or step files, that were made again after a claim expired."""

    rounds: int = 0
    killed: int = 0
    stopped: int = 0
    failed: int = 0  # workers that ended with an error
    lost: int = 0  # step files that are not there
    wrong: int = 0  # that differ from those of a single process
    left_over: int = 0  # files that nobody needs, and that a later command does not sweep
    expired: int = 0  # claims that ran out, and were put away
    blocks_again: int = 0
    steps_again: int = 0
    unexplained: int = 0  # made again although no claim on it expired
    seconds: float = field(default=0.0, compare=False)


class Chaos:
    """Rounds of four workers that are killed, or stopped for longer than a claim lasts, with clocks that differ."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.draw, self.found = folder, random.Random(seed), Found()
        claims.EXPIRES, claims._REFRESH = EXPIRES, REFRESH  # of the forked processes too
        whole = cheap_work(folder / "whole", PROBES)
        for step in range(STEPS):
            make_step(whole, step)
        self.whole = {step: whole.folder.step_file(step).read_bytes() for step in range(STEPS)}

    def round(self) -> None:
        begun, run = time.monotonic(), RunFolder(self.folder / "run")
        run.path.mkdir()
        team = [self._start(run, number) for number in range(1, WORKERS + 1)]
        stopped = self._disturb(team)
        for pid in team:
            if pid not in stopped:
                self._end(pid)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
            if self.draw.random() < 0.3:  # while the last one is at work
                continue
            self._end(pid)
            team.remove(pid)
        last = self._start(run, 1)  # what is queued again
        for pid in stopped:
            if pid in team:
                self._end(pid)
        self._end(last)
        self._count(run)
        self.found.rounds += 1
        self.found.seconds += time.monotonic() - begun
        shutil.rmtree(run.path)

    def _disturb(self, team: list[int]) -> list[int]:
        """Kill some, stop some; some of these go on while others are at work. Returns who is still stopped."""
        stopped = []
        for pid in self.draw.sample(team, self.draw.randint(2, WORKERS)):
            time.sleep(self.draw.random() * 0.08)
            kind = signal.SIGKILL if self.draw.random() < 0.5 else signal.SIGSTOP
            os.kill(pid, kind)
            if kind == signal.SIGKILL:
                self.found.killed += 1
            else:
                self.found.stopped += 1
                stopped.append(pid)
        for pid in tuple(stopped):
            if self.draw.random() < 0.4:
                time.sleep(self.draw.random() * EXPIRES)
                os.kill(pid, signal.SIGCONT)
                stopped.remove(pid)
        return stopped

    def _start(self, run: RunFolder, number: int) -> int:
        skew = self.draw.choice((-1e6, -5.0, 0.0, 5.0, 1e6))
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            _skew_clocks(skew)
            _tell_events(run.path / "events")
            work_as((number, WORKERS), cheap_work(run.path, PROBES, busy=0.008), STEPS, poll=0.02)
            run.sweep()
            for step in run.steps_with_blocks():
                run.drop_blocks(step)
            code = 0
        except BaseException:  # a forked process must not go on as its parent; told, and counted by its exit
            traceback.print_exc()
        finally:
            os._exit(code)

    def _end(self, pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        self.found.failed += os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0

    def _count(self, run: RunFolder) -> None:
        events = (
            Counter((run.path / "events").read_text().splitlines()) if (run.path / "events").exists() else Counter()
        )
        found, there = self.found, set(run.steps())
        found.lost += len(set(self.whole) - there)
        found.wrong += sum(run.step_file(step).read_bytes() != self.whole[step] for step in there)
        needed = {run.path / "events", *(run.step_file(step) for step in there)}
        if _files(run) - needed:
            time.sleep(EXPIRES)
            run.sweep()  # as the next `extract` begins: a kill may come between a result and what it makes useless
            for step in there:
                run.drop_draft(step)
                run.drop_blocks(step)
        for file in _files(run) - needed:
            print(f"left over: {file.relative_to(run.path)}: {file.read_bytes()[:80]!r}", file=sys.stderr)
            found.left_over += 1
        for event, times in events.items():
            kind, _, what = event.partition(" ")
            expired = events[f"expired {what}"]
            if kind == "expired":
                found.expired += times
                continue
            found.blocks_again += (times - 1) * (kind == "block")
            found.steps_again += (times - 1) * (kind == "file")
            found.unexplained += max(times - 1 - expired, 0)


def _files(run: RunFolder) -> set[Path]:
    return {file for file in run.path.rglob("*") if file.is_file() and file.suffix != ".json"}


def _tell_events(file: Path) -> None:
    """Have this process write down the blocks and step files that it makes and the claims that it puts away."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def tell(event: str) -> None:
        os.write(descriptor, f"{event}\n".encode())

    write_block, write_step, put_away = RunFolder.write_block, RunFolder.write_step, claims._put_away

    def block(folder: RunFolder, record: StepRecord, block: range) -> None:
        write_block(folder, record, block)
        tell(f"block {record.step}/{block.start}-{block.stop}")

    def step(folder: RunFolder, record: StepRecord) -> None:
        write_step(folder, record)
        tell(f"file step-{record.step}")

    def away(claim: Path, over: Any) -> None:
        if not claims.is_dead(claims._owner(claim)):
            task = claim.name.removeprefix(claims.claim_name(""))
            tell(f"expired {task}" if task.startswith("step") else f"expired {int(claim.parent.name[5:])}/{task}")
        put_away(claim, over)

    RunFolder.write_block, RunFolder.write_step, claims._put_away = block, step, away  # type: ignore[method-assign]


def _skew_clocks(skew: float) -> None:
    """This process tells the time wrong by `skew` seconds, and so does the time of the claims that it writes.

    As on a file system whose clients stamp the files (Lustre), with a host whose clock is wrong.
    """
    clock, monotonic, utime, sign = time.time, time.monotonic, os.utime, claims._sign
    time.time = lambda: clock() + skew
    time.monotonic = lambda: monotonic() + skew  # each host counts from its own start

    def stamp(path: Any, times: Any = None, **named: Any) -> None:
        if times is None and "ns" not in named:
            times = (time.time(), time.time())
        utime(path, times, **named)

    def signed(descriptor: int, owner: str) -> bool:
        done = sign(os.dup(descriptor), owner)
        with contextlib.suppress(OSError):
            utime(descriptor, (time.time(), time.time()))
        os.close(descriptor)
        return done

    os.utime, claims._sign = stamp, signed


@contextlib.contextmanager
def counted_operations(names: tuple[str, ...]) -> Iterator[Counter[str]]:
    """How often this process calls these functions of `os`, and opens files by Python."""
    import io

    counts: Counter[str] = Counter()
    real = {name: getattr(os, name) for name in names}
    opens = io.open

    def counting(name: str, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **named)

        return call

    for name, function in real.items():
        setattr(os, name, counting(name, function))
    io.open = counting("open", opens)  # type: ignore[assignment]
    try:
        yield counts
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        io.open = opens
