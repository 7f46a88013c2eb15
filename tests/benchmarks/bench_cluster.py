"""Many workers with real files and tasks that cost nothing: what a task costs, how two scale, what chaos breaks.

--tasks T: T blocks over --steps steps by --workers processes, which take the places of as many teams as --of workers
would make: tasks a second, operations a task (calls of `os`, counted in the workers), number and size of files,
listings, time and memory of `status`.
--scaling: one worker, then two, on tasks that keep a core busy; needs two idle cores.
--rounds R: R runs by four workers that are killed, or stopped for longer than a claim lasts, with clocks that differ;
every step file is compared with that of a single process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from cheap_workers import Chaos, cheap_work, counted_operations, work_as
from sftscope.store import RunFolder
from sftscope.store.sharing.run_status import run_status

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
MIB = 2**20


def forked(work: Callable[[], dict[str, Any]], file: Path) -> int:
    """A process that does `work` and writes into `file` what it returns."""
    pid = os.fork()
    if pid:
        return pid
    try:
        file.write_text(json.dumps(work()))
        os._exit(0)
    finally:
        os._exit(1)


def together(
    run: Path, steps: int, probes: int, workers: int, *, of: int = 0, busy: float = 0.0
) -> list[dict[str, Any]]:
    """What each of some workers counted and how long it took; `of`: as how many workers they take their places."""
    total = max(of, workers)

    def one(number: int) -> dict[str, Any]:
        begun, cpu, slept, sleep = time.monotonic(), time.process_time(), [0.0], time.sleep

        def sleeping(seconds: float) -> None:
            slept[0] += seconds
            sleep(seconds)

        time.sleep = sleeping  # of this process
        with counted_operations(COUNTED) as counts:
            state = work_as((1 + number * total // workers, total), cheap_work(run, probes, busy), steps)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        took = {"seconds": time.monotonic() - begun, "cpu": time.process_time() - cpu, "slept": slept[0]}
        return {"scored": state.probes, "memory": memory, **took, **counts}

    run.mkdir(parents=True, exist_ok=True)
    files = [run / f"told-{number}" for number in range(workers)]
    team = [forked(lambda number=number: one(number), file) for number, file in enumerate(files)]  # type: ignore[misc]
    for pid in team:
        if os.waitpid(pid, 0)[1]:
            raise SystemExit("a worker failed")
    told = [json.loads(file.read_text()) for file in files]
    for file in files:
        file.unlink()
    return told


def described(run: Path, steps: int, probes: int) -> RunFolder:
    """A run folder whose status can be asked: checkpoints that are ready, and probes."""
    folder = RunFolder(run)
    folder.write_run({"format": 1})
    row = {"instruction": "say", "input": "one two", "response": "three", "words": [[0, 3], [4, 7]]}
    folder.probes_file.write_text("".join(json.dumps({"id": str(i), **row}) + "\n" for i in range(probes)))
    header = b"{}"
    for step in range(1, steps):
        checkpoint = folder.checkpoints / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        (checkpoint / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


class Watch(threading.Thread):
    """Looks at a run as it goes on: files at most, the longest listing, what a status costs."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(daemon=True)
        self.folder, self.done = folder, threading.Event()
        self.files = self.longest = self.largest_mb = 0
        self.status_seconds = self.status_mib = 0.0

    def run(self) -> None:
        while not self.done.wait(2):
            lengths = [len(self.folder.in_blocks_folder(step)) for step in self.folder.steps_with_blocks()]
            self.files, self.longest = max(self.files, sum(lengths)), max([self.longest, *lengths])
            tracemalloc.start()
            begun = time.monotonic()
            run_status(self.folder)
            self.status_seconds = max(self.status_seconds, time.monotonic() - begun)
            self.status_mib = max(self.status_mib, tracemalloc.get_traced_memory()[1] / MIB)
            tracemalloc.stop()


def simulate(tasks: int, steps: int, workers: int, of: int, run: Path) -> None:
    probes = tasks // steps
    folder = described(run, steps, probes)
    watch = Watch(folder)
    begun = time.monotonic()
    pid = os.fork()  # the watch is a thread, and threads do not survive the forks of workers
    if not pid:
        told = together(run, steps, probes, workers, of=of)
        (run.parent / "told").write_text(json.dumps(told))
        os._exit(0)
    watch.start()
    os.waitpid(pid, 0)
    watch.done.set()
    watch.join()
    seconds, told = time.monotonic() - begun, json.loads((run.parent / "told").read_text())
    total = Counter({name: sum(each.get(name, 0) for each in told) for name in COUNTED})
    scored, cpu = sum(each["scored"] for each in told), sum(each["cpu"] for each in told)
    sizes = [file.stat().st_size for file in folder.steps_folder.iterdir()]
    assert scored >= tasks
    assert len(folder.steps()) == steps
    print(f"{steps} steps × {probes} blocks, {workers} workers of {max(of, workers)}: {seconds:.0f} s, {scored} made")
    print(f"  {scored / seconds:.0f} tasks/s in all, {1e3 * cpu / scored:.2f} ms of a core a task")
    print(
        f"  {sum(total.values()) / scored:.1f} operations a task: "
        + ", ".join(f"{name} {total[name] / scored:.2f}" for name in COUNTED)
    )
    print(f"  at most {watch.files} files of blocks and claims at a time, {watch.longest} names in a listing")
    print(f"  left: {len(sizes)} step files, {sum(sizes) / 1e6:.1f} MB")
    print(f"  status: {watch.status_seconds:.2f} s, {watch.status_mib:.1f} MiB, at most")
    print(f"  memory of a worker: {max(each['memory'] for each in told):.0f} MiB at most")


def scale(folder: Path) -> None:
    """Start-up apart (a new process that imports what a worker needs), then one worker against two.

    By the clock, which is fair on an idle machine only; and by the seconds of a core that a worker needed and those
    that it waited for others, which is what the clock would say if each had a core to itself.
    """
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import sftscope.extraction.extract"], check=True)
    start, busy, steps, probes = time.monotonic() - begun, 0.1, 8, 40
    clock, alone = {}, {}
    for workers in (1, 2):
        begun = time.monotonic()
        told = together(folder / str(workers), steps, probes, workers, busy=busy)
        clock[workers] = time.monotonic() - begun
        alone[workers] = max(each["cpu"] + each["slept"] for each in told)
        over = sum(each["cpu"] for each in told) - steps * probes * busy
        print(
            f"{workers} workers: {clock[workers]:.2f} s by the clock, {alone[workers]:.2f} s of a core and waiting, "
            f"{1e3 * over / (steps * probes):.1f} ms of a core a task on top of its work"
        )
    print(
        f"1 → 2: {clock[1] / clock[2]:.3f}× by the clock, {alone[1] / alone[2]:.3f}× with a core each; "
        f"start-up of a process, not in it: {start:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--of", type=int, default=0)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.tasks:
            simulate(chosen.tasks, chosen.steps, chosen.workers, chosen.of, Path(folder) / "tasks")
        if chosen.scaling:
            scale(Path(folder))
        if chosen.rounds:
            chaos = Chaos(Path(folder), chosen.seed)
            for number in range(chosen.rounds):
                chaos.round()
                if number % 20 == 19 or number + 1 == chosen.rounds:
                    print(f"seed {chosen.seed}: {chaos.found}", flush=True)


if __name__ == "__main__":
    main()
