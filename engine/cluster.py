"""Workers of one run: processes of this host, or jobs of a cluster through submitit, which does the scheduling.

Each is the same `Worker`, told only its place among N; what is to be done, it finds in the run folder. A job that is
preempted, or reaches its time limit, is queued again by submitit as the same worker; what it had of its block is kept.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.errors import SftscopeError
from engine.progress import say

CLUSTERS = ("slurm", "local")
_REQUEUES = 1000  # submitit's default, 3, counts preemptions that have nothing to do with the work
_ARRAY_AT_ONCE = 1000


@dataclass(frozen=True)
class Resources:
    """What a job asks for. minutes: until it is stopped and queued again; memory_gb: of the host."""

    minutes: int = 240
    memory_gb: float = 32.0
    gpus: int = 1
    cpus: int = 4
    partition: str = ""


@dataclass(frozen=True)
class Worker:
    """The `number`-th of `total` workers on a run, as something that submitit can send and call."""

    run: Path
    number: int
    total: int
    steps: tuple[int, ...] | None = None
    verify: int | None = None
    block: int | None = None

    def __call__(self) -> None:
        """Work until nothing is left to do in the run."""
        from engine import pipeline

        pipeline.extract(
            self.run, steps=self.steps, verify=self.verify, place=(self.number, self.total), block=self.block
        )

    def checkpoint(self) -> Any:
        """What submitit queues when the job is preempted or out of time: the same worker again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_here(workers: int, worker: Worker) -> None:
    """`workers` processes of this host, each with a GPU of its own where there are any; SftscopeError if one fails."""
    context, gpus = multiprocessing.get_context("spawn"), _gpus()
    team = [replace(worker, number=i + 1, total=workers) for i in range(workers)]
    processes = []
    for i, each in enumerate(team):
        with _environment({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}):
            process = context.Process(target=_run_one, args=(each,), name=f"worker-{i + 1}")
            process.start()
            processes.append(process)
    try:
        for process in processes:
            process.join()
    except BaseException:  # Ctrl-C, SIGTERM: passed on, so that they keep what they have; raised again
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        raise
    failed = sum(process.exitcode != 0 for process in processes)
    if failed:
        raise SftscopeError(
            f"{worker.run}: {failed} of {workers} workers failed; 'sftscope status {worker.run}' says why; what is "
            "finished is kept, the same command goes on from there"
        )


def submit(cluster: str, workers: int, worker: Worker, resources: Resources) -> tuple[Any, ...]:
    """`workers` jobs, as one array on SLURM; returns submitit's jobs. Their logs are in the run's `cluster` folder."""
    executor = make_executor(cluster, worker.run, resources)
    with executor.batch():
        jobs = [executor.submit(replace(worker, number=i + 1, total=workers)) for i in range(workers)]
    names = ", ".join(str(job.job_id) for job in jobs[:4]) + (", …" if len(jobs) > 4 else "")
    say(f"{workers} workers submitted to {cluster}: {names}; 'sftscope status {worker.run}' shows them")
    return tuple(jobs)


def make_executor(cluster: str, run: Path, resources: Resources) -> Any:
    """submitit's executor with these resources."""
    if find_spec("submitit") is None:
        raise SftscopeError("--cluster needs submitit; install it with: pip install 'sftscope[cluster]'")
    import submitit

    folder = run.absolute() / "cluster"
    try:
        executor = submitit.AutoExecutor(
            folder=folder, cluster=cluster, **({"slurm_max_num_timeout": _REQUEUES} if cluster == "slurm" else {})
        )
    except RuntimeError as error:  # submitit looks for srun
        raise SftscopeError(
            f"--cluster {cluster}: {str(error).partition(chr(10))[0]}; run this on a login node"
        ) from None
    executor.update_parameters(timeout_min=resources.minutes, **_slurm(resources) if cluster == "slurm" else {})
    return executor


def _slurm(resources: Resources) -> dict[str, Any]:
    partition = {"slurm_partition": resources.partition} if resources.partition else {}
    return {
        "name": "sftscope",
        "mem_gb": resources.memory_gb,
        "gpus_per_node": resources.gpus,
        "cpus_per_task": resources.cpus,
        "slurm_array_parallelism": _ARRAY_AT_ONCE,
        **partition,
    }


def _run_one(worker: Worker) -> None:
    """A worker as a process of its own: one line for what fails, as any command."""
    import signal
    import sys

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        worker()
    except SftscopeError as error:
        say(f"worker {worker.number}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return sorted(file.name[6:] for file in Path("/dev").glob("nvidia[0-9]*"))


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """What a process that starts in the block inherits."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
