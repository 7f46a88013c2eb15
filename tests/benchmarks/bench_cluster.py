"""Many workers with real files and cheap tasks: what a task costs, how two workers scale, what chaos breaks.

--tasks T: T blocks over --steps steps by --workers processes: claims a second, metadata operations a task (calls of
`os`, counted in the worker), number and size of files, memory of the reader of the status.
--scaling: one worker, then two, on tasks that keep a core busy; needs two idle cores.
--rounds R: R runs by four workers of which some are killed, some stopped for longer than a claim lasts and let go on,
all with clocks that differ; every step file is compared with that of one undisturbed worker.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.config import settings_from_tables
from engine.extraction import blocks as block_work
from engine.extraction.blocks import BlockWorker, work_through
from engine.extraction.step_scores import scored_step
from engine.extraction.work import Work
from engine.store import RunFolder, StepRecord, claims
from engine.store.step_record import Effects
from engine.store.workers import at_work

COUNTED = (
    "open",
    "stat",
    "lstat",
    "unlink",
    "rename",
    "replace",
    "mkdir",
    "rmdir",
    "utime",
    "listdir",
    "scandir",
    "link",
    "fsync",
)
WORDS = 2


class CheapScorer:
    """Scores that depend on the probe only; `busy` seconds of a core for each."""

    precision = "float32"

    def __init__(self, busy: float) -> None:
        self.busy = busy

    def score(self, prompt: Any) -> Any:
        until = time.process_time() + self.busy
        while time.process_time() < until:
            pass
        return np.random.default_rng(prompt.target).normal(size=2**WORDS) + 3.0 * np.arange(2**WORDS)


def cheap_work(run: Path, probes: int, busy: float) -> Work:
    settings = settings_from_tables(
        {"extraction": {"check_states": 0}, "model": {"path": "none"}, "probes": {"file": "none"}}, trained_here=False
    )
    prompts = [SimpleNamespace(n_variables=WORDS, target=number) for number in range(probes)]
    work: Any = SimpleNamespace(
        folder=RunFolder(run),
        settings=settings,
        scorer=CheapScorer(busy),
        prompts=tuple(prompts),
        probe_ids=tuple(map(str, range(probes))),
        provenance={"identity": "cheap", "dtype": "float32"},
    )
    return work


def worker(run: Path, steps: int, probes: int, number: int, total: int, busy: float) -> None:
    """One worker from its start to the end of the run; prints what it counted."""
    counts = count_operations()
    work, begun = cheap_work(run, probes, busy), time.monotonic()

    def make(step: int) -> None:
        record = scored_step(work, step, lambda note: None, enter=entered)
        nothing = np.zeros(len(record.scores))
        zeros = np.zeros(probes)
        effects = Effects(nothing, nothing, zeros, zeros, zeros)
        provenance = {**record.provenance, "zeta_source": ["none"] * probes}
        work.folder.write_step(
            StepRecord(
                record.step, record.n_variables, record.target, record.scores, record.noise, effects, {}, provenance
            )
        )

    def entered(work: Any, step: int) -> Any:
        return {}, "none"

    with at_work(work.folder.workers_folder) as state:
        one = BlockWorker(work, state, size=1)
        one._enter = entered  # type: ignore[method-assign]
        work_through(one, range(steps), make, place=(number, total), poll=0.05)
        print(json.dumps({"scored": state.probes, "seconds": time.monotonic() - begun, **counts}), flush=True)


def count_operations() -> Counter[str]:
    counts: Counter[str] = Counter()

    def counted(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return real(*arguments, **named)

        setattr(os, name, call)

    for name in COUNTED:
        counted(name)
    return counts


def start(run: Path, steps: int, probes: int, number: int, total: int, *, busy: float = 0.0, skew: float = 0.0) -> Any:
    arguments = [run, steps, probes, number, total, busy, skew]
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def together(run: Path, steps: int, probes: int, workers: int, busy: float = 0.0) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of the slowest worker, start not counted, and what each counted."""
    team = [start(run, steps, probes, i + 1, workers, busy=busy) for i in range(workers)]
    told = [json.loads(each.communicate()[0]) for each in team]
    return max(each["seconds"] for each in told), told


def simulate(tasks: int, steps: int, workers: int, folder: Path) -> None:
    probes = tasks // steps
    seconds, told = together(folder / "run", steps, probes, workers)
    total = Counter({name: sum(each.get(name, 0) for each in told) for name in COUNTED})
    scored = sum(each["scored"] for each in told)
    files = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    print(f"{steps} steps × {probes} blocks, {workers} workers: {seconds:.1f} s, {scored} scored")
    print(f"  {scored / seconds:.0f} claims/s, {1e3 * seconds * workers / scored:.2f} ms a task and worker")
    print(
        f"  {sum(total.values()) / scored:.1f} operations a task: "
        + ", ".join(f"{n} {total[n] / scored:.2f}" for n in COUNTED)
    )
    print(f"  left: {len(files)} files, {sum(files) / 1e6:.1f} MB, largest {max(files) / 1e6:.2f} MB")
    print(f"  peak memory of a worker {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")


def scale(folder: Path) -> None:
    one = together(folder / "one", 8, 50, 1, busy=0.1)[0]
    two = together(folder / "two", 8, 50, 2, busy=0.1)[0]
    print(
        f"1 worker {one:.1f} s, 2 workers {two:.1f} s: {one / two:.2f}×, extra {1e3 * (one - 40) / 400:.1f} ms a task"
    )


def chaos(rounds: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """What was wrong, lost and made twice in `rounds` disturbed runs."""
    steps, probes, draw = 4, 6, random.Random(seed)
    together(folder / "whole", steps, probes, 1)
    whole = {step: RunFolder(folder / "whole").step_file(step).read_bytes() for step in range(steps)}
    found = {"rounds": 0, "killed": 0, "stopped": 0, "lost": 0, "wrong": 0, "left over": 0}
    for number in range(rounds):
        run = RunFolder(folder / f"run-{number}")
        team = [
            start(run.path, steps, probes, i + 1, 4, busy=0.005, skew=draw.choice((-1e6, 0, 1e6))) for i in range(4)
        ]
        until = time.monotonic() + 60
        while not (run.path / "blocks").exists() and not run.steps() and time.monotonic() < until:
            time.sleep(0.002)
        stopped = []
        for each in draw.sample(team, 3):
            time.sleep(draw.random() * 0.05)
            if draw.random() < 0.5:
                each.kill()
                found["killed"] += 1
            else:
                each.send_signal(signal.SIGSTOP)
                stopped.append(each)
                found["stopped"] += 1
        rest = [each for each in team if each not in stopped]
        for each in rest:
            each.communicate()
        for each in stopped:
            each.send_signal(signal.SIGCONT)
        for each in stopped:
            each.communicate()
        run.sweep()
        there = set(run.steps())
        found["rounds"] += 1
        found["lost"] += len(set(whole) - there)
        found["wrong"] += sum(run.step_file(step).read_bytes() != whole[step] for step in there)
        found["left over"] += (
            len([file for file in run.path.rglob("*") if file.is_file() and file.suffix != ".json"]) - steps
        )
        shutil.rmtree(run.path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--rounds", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.tasks:
            simulate(chosen.tasks, chosen.steps, chosen.workers, Path(folder) / "tasks")
        if chosen.scaling:
            scale(Path(folder))
        if chosen.rounds:
            print(chaos(chosen.rounds, Path(folder)))


def _worker_main(arguments: list[str]) -> None:
    run, steps, probes, number, total, busy, skew = arguments
    if float(busy):  # in chaos, and in scaling, where nothing expires
        claims.EXPIRES, claims._REFRESH = 1.5, 0.2
    clock = time.time
    time.time = lambda: clock() + float(skew)
    block_work._POLL = 0.05
    worker(Path(run), int(steps), int(probes), int(number), int(total), float(busy))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _worker_main(sys.argv[2:])
    else:
        main()
