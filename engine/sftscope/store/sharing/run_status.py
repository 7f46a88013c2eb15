"""All workers of a run in one place: progress, rate, failures, time left. Reads listings and the workers' own files.

One listing of `steps/`, one of `workers/`, one of the blocks of each step that is not done: with 1,000 workers that is
1,000 small files a look, whatever the number of tasks.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from sftscope.store import RunFolder
from sftscope.store.checkpoints import ready_checkpoints
from sftscope.store.sharing.worker_status import FAILED, LOST, WAITING, WORKING, Worker, read_workers

SCHEMA = "sftscope-status"
VERSION = 1


@dataclass(frozen=True)
class RunStatus:
    """steps: how many can be made; probes: of one step; scored: probes that are scored, over all steps (those of
    blocks at work are not counted); rate: probes a second of the workers that are at work, None without any."""

    steps: int
    extracted: int
    probes: int
    scored: int
    rate: float | None
    workers: tuple[Worker, ...]

    @property
    def seconds_left(self) -> float | None:
        """At the present rate; None while nothing runs."""
        todo = self.steps * self.probes - self.scored
        return todo / self.rate if self.rate else None

    @property
    def sentence(self) -> str:
        """The workers in a few words: "3 working, 1 failed, 0.42 probes/s, 0:12:00 left"; empty where all ended
        in order."""
        states = Counter(worker.state for worker in self.workers)
        if not any(states[state] for state in (WORKING, WAITING, FAILED, LOST)):
            return ""
        parts = [f"{count} {state}" for state, count in sorted(states.items(), reverse=True)]
        return ", ".join(parts + self._pace)

    @property
    def _pace(self) -> list[str]:
        rate = [f"{self.rate:.3g} probes/s"] if self.rate else []
        return rate + ([f"{_duration(self.seconds_left)} left"] if self.seconds_left else [])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "steps": self.steps,
            "extracted": self.extracted,
            "probes_total": self.steps * self.probes,
            "probes_scored": self.scored,
            "probes_per_second": self.rate,
            "seconds_left": self.seconds_left,
            "states": dict(Counter(worker.state for worker in self.workers)),
            "workers": [asdict(worker) for worker in self.workers],
        }

    def as_text(self) -> str:
        """A headline, a line for each worker, the failures last."""
        done = [
            f"{self.extracted} of {self.steps} steps extracted",
            f"{self.scored} of {self.steps * self.probes} probes scored",
        ]
        lines = [", ".join(done + self._pace)]
        if self.workers:
            lines += ["", f"{'worker':<20} {'state':<12} {'probes':>7} {'time':>9}  task"]
        for each in self.workers:
            lines.append(f"{each.name:<20} {each.state:<12} {each.probes:>7} {_duration(each.seconds):>9}  {each.task}")
        lines += [f"{each.name}: {each.failure}" for each in self.workers if each.failure]
        return "\n".join(line.rstrip() for line in lines)


def run_status(folder: RunFolder, now: float | None = None) -> RunStatus:
    """The status of a run folder that was begun, at the time `now` (seconds since 1970)."""
    folder.read_run()
    probes, extracted = len(folder.read_probes()), set(folder.steps())
    steps = {0, *extracted, *ready_checkpoints(folder.checkpoints)}
    workers = read_workers(folder.workers_folder, now)
    at_work = [worker for worker in workers if worker.state in (WORKING, WAITING) and worker.seconds > 0]
    rate = sum(worker.probes / worker.seconds for worker in at_work)
    return RunStatus(
        steps=len(steps),
        extracted=len(extracted),
        probes=probes,
        scored=sum(probes if step in extracted else _scored(folder, step, probes) for step in steps),
        rate=rate or None,
        workers=workers,
    )


def _scored(folder: RunFolder, step: int, probes: int) -> int:
    if folder.draft_file(step).exists():
        return probes
    ends = (name.removesuffix(".h5").split("-") for name in folder.blocks(step))
    return min(sum(max(int(end) - int(first), 0) for first, end in ends), probes)


def _duration(seconds: float | None) -> str:
    whole = int(min(seconds or 0, 10**8))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
