"""Workers of one run: processes of this host, or jobs of a cluster through submitit, which does the scheduling.

Each is the same `Worker`, given only its place among N; what is to be done, it finds in the run folder. A job that is
preempted, or reaches its time limit, is queued again by submitit as the same worker; what it had of its block is kept.
"""

import math
import multiprocessing
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from sftscope.files.json_text import json_object
from sftscope.files.opening import open_private_folder, private_folder, read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import own_command, safe_text
from sftscope.foundation.signals import interrupt_on_signals, interrupted_exit_code
from sftscope.foundation.streams import protect_streams
from sftscope.foundation.threads import set_thread_defaults

_MOST_BYTES = 2**24  # of a plan
_JOB = "from sftscope.distributed.submit import run_job; run_job()"  # submitit's own module checks nothing
_REQUEUES = 1000  # submitit's default, 3, counts preemptions that have nothing to do with the work
_ARRAY_AT_ONCE = 1000
_SPARE = 2.0  # times the time that was planned: a node may be busy, or slower than the one that was timed
_LEAST_MINUTES, _MOST_MINUTES = 30, 24 * 60  # a job that needs more is queued again


@dataclass(frozen=True)
class Resources:
    """What a job asks for. minutes: until it is stopped and queued again; memory_gb: of the host."""

    minutes: int = 240
    memory_gb: float = 32.0
    gpus: int = 1
    cpus: int = 4
    partition: str = ""


def resources(plan: Path | None, workers: int, given: Mapping[str, Any]) -> Resources:
    """What each job asks for: what is given, not None, by the names of the fields; else the plan's, else a default."""
    base = Resources() if plan is None else planned(plan, workers)
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def planned(file: Path, workers: int) -> Resources:
    """What each of `workers` jobs needs by the plan in `file`, the JSON of `sftscope plan` on a machine like theirs."""
    try:
        plan = json_object(read_plain(file, _MOST_BYTES))
        seconds, memory = plan["seconds"], plan["memory_gb"]
        share = (float(seconds["scoring"]) + float(seconds["decomposition"])) / workers + float(seconds["loading"])
        return Resources(
            minutes=min(max(math.ceil(_SPARE * share / 60), _LEAST_MINUTES), _MOST_MINUTES),
            memory_gb=math.ceil(float(memory["host"])),
            gpus=int(float(memory["device"]) > 0),
        )
    except OSError as error:
        raise SftscopeError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        reason = safe_text(str(error), max_length=100)
        raise SftscopeError(
            f"{file}: not a plan ({reason}); make one with: sftscope plan RUN --json > {file}"
        ) from None


@dataclass(frozen=True)
class Worker:
    """The `number`-th of `total` workers on a run, as something that submitit can send and call.

    gpu: the only one that it may see, as CUDA_VISIBLE_DEVICES names it; None where somebody else sees to that.
    """

    run: Path
    number: int
    total: int
    steps: tuple[int, ...] | None = None
    verify: int | None = None
    block: int | None = None
    gpu: str | None = None

    def __call__(self) -> None:
        """Work until nothing is left to do in the run."""
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu  # read when CUDA is first used, which is below
        set_thread_defaults(os.environ)  # read when PyTorch is first imported, which is here
        from sftscope.runs import pipeline

        pipeline.extract(
            self.run, steps=self.steps, verify=self.verify, place=(self.number, self.total), block=self.block
        )

    def checkpoint(self) -> Any:
        """What submitit queues when the job is preempted or out of time: the same worker again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def team_of(workers: int, worker: Worker) -> tuple[Worker, ...]:
    """`workers` on this host, each with a GPU of its own as far as there are any."""
    gpus = _gpus()
    return tuple(
        replace(worker, number=i + 1, total=workers, gpu=gpus[i % len(gpus)] if gpus else None) for i in range(workers)
    )


def run_here(workers: int, worker: Worker) -> None:
    """`workers` processes of this host; SftscopeError if one fails."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_run_one, args=(each,), name=f"worker-{each.number}")
        for each in team_of(workers, worker)
    ]
    for process in processes:
        process.start()
    try:
        while alive := [process for process in processes if process.is_alive()]:  # which also buries the others:
            wait([process.sentinel for process in alive])  # what one that was killed had is taken over at once
    except BaseException:  # Ctrl-C, SIGTERM: passed on, so that they keep what they have; raised again
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        raise
    failed = sum(process.exitcode != 0 for process in processes)
    if failed:
        raise SftscopeError(
            f"{worker.run}: {failed} of {workers} workers failed; {own_command('status', worker.run)} says why; what "
            "is finished is kept, the same command resumes from there"
        )


def submit(cluster: str, workers: int, worker: Worker, resources: Resources) -> tuple[Any, ...]:
    """`workers` jobs, as one array on SLURM; returns submitit's jobs. Their logs are in the run's `cluster` folder."""
    executor = make_executor(cluster, worker.run, resources)
    # SLURM gives each job its GPU; submitit's own executor hides all of them, which a worker's `gpu` overrules
    on_slurm = [replace(worker, number=i + 1, total=workers) for i in range(workers)]
    team = on_slurm if cluster == "slurm" else team_of(workers, worker)
    with executor.batch():
        jobs = [executor.submit(each) for each in team]
    names = ", ".join(str(job.job_id) for job in jobs[:4]) + (", …" if len(jobs) > 4 else "")
    say(f"{workers} workers submitted to {cluster}: {names}; {own_command('status', worker.run)} shows them")
    return tuple(jobs)


def make_executor(cluster: str, run: Path, resources: Resources) -> Any:
    """submitit's executor with these resources."""
    if find_spec("submitit") is None:
        raise SftscopeError("--cluster needs submitit; install it with: pip install 'sftscope[cluster]'")
    import submitit

    folder = private_folder(run.absolute() / "cluster")
    try:
        # -P: no module is looked for in the working folder
        python = f"{shlex.quote(sys.executable)} -P -u -c {shlex.quote(_JOB)}"
        options = {f"{cluster}_max_num_timeout": _REQUEUES, f"{cluster}_python": python}
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, **options)
    except RuntimeError as error:  # submitit looks for srun
        raise SftscopeError(
            f"--cluster {cluster}: {str(error).partition(chr(10))[0]}; run this on a login node"
        ) from None
    executor.update_parameters(timeout_min=resources.minutes, **_slurm(resources) if cluster == "slurm" else {})
    return executor


def run_job() -> None:
    """In a job: what submitit pickled into the folder sys.argv[-1], unless another user could have written it.

    The folder is opened once and reached by its descriptor: one that takes its name later is not read.
    """
    try:
        descriptor = open_private_folder(Path(sys.argv[-1]))
    except SftscopeError as error:
        say(f"sftscope: {error}")
        sys.exit(1)
    from submitit.core.submission import process_job

    process_job(f"/proc/self/fd/{descriptor}")


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
    protect_streams()
    interrupt_on_signals()
    try:
        worker()
    except SftscopeError as error:
        say(f"worker {worker.number}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(interrupted_exit_code())


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return sorted(file.name[6:] for file in Path("/dev").glob("nvidia[0-9]*"))
