"""Kill -9 at random points of `run`, `extract` and `report`, again and again: nothing torn, nothing lost.

    python tests/benchmarks/bench_kills.py --kills 1000

Each job is started in a fresh folder, killed, and started again until it is done. Half of the kills come after a
random time, half at a random file operation. After each of them every file that has its final name must hold the
bytes of an uninterrupted job; at the end the folder must, and nothing else may be in it. Prints the counts as JSON;
exit code 1 where one is not 0 that should be.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from faults import CALLS
from run_configs import write_config
from sftscope.extraction import extract as _  # noqa: F401  # imported once, here: children are forked
from sftscope.reporting.forms import write_report
from sftscope.runs import pipeline
from sftscope.training import sft as __  # noqa: F401
from sftscope.verification.verify import verify

KILLED, DONE, FAILED = "killed", "done", "failed"


class Job:
    """Something that makes files in a folder: in a child, so that it can be killed."""

    def __init__(self, name: str, source: Path, act: Callable[[Path], None]) -> None:
        self.name, self.source, self._act = name, source, act
        began = time.monotonic()
        self.reference = self.fresh("reference")
        assert self.attempt(self.reference, None, 0) == DONE
        self.seconds = time.monotonic() - began
        self.operations = int(self.reference.with_name("operations").read_text())
        self.expected = finals(self.reference)

    def fresh(self, name: str) -> Path:
        """A folder as it is before the job."""
        path = self.source.parent / f"{self.source.name}-{self.name}" / name / "run"  # its name is in the report
        shutil.copytree(self.source, path)
        return path

    def attempt(self, folder: Path, seconds: float | None, operation: int | None) -> str:
        """Do the job in a child that ends after `seconds`, or at its `operation`-th file operation, if not before."""
        child = os.fork()
        if not child:
            self._child(folder, operation)
        until = time.monotonic() + (600 if seconds is None else seconds)
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                break
            time.sleep(0.001)
        if os.WIFSIGNALED(status):
            return KILLED
        return DONE if os.WEXITSTATUS(status) == 0 else FAILED

    def _child(self, folder: Path, operation: int | None) -> None:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        log = (folder.parent / f"{folder.name}.error").open("w")
        counted = die_at(operation) if operation is not None else None
        try:
            self._act(folder)
            if counted is not None:
                folder.with_name("operations").write_text(str(counted[0]))
        except BaseException:  # the child's end must not become the parent's
            traceback.print_exc(file=log)
            log.flush()
            os._exit(3)
        os._exit(0)


def die_at(operation: int) -> list[int]:
    """End this process by SIGKILL at its `operation`-th file operation; every second time after it is done.

    Returns how many there were, in a list that grows with them.
    """
    count = [0]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            count[0] += 1
            if count[0] == operation and operation % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **options)
            if count[0] == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    return count


def finals(folder: Path) -> dict[str, bytes]:
    """The files that must be the same in every job: results, weights, reports; not logs, times, lists that grow."""
    names = (
        "steps/*.h5",
        "placebo/*.h5",
        "*.npy",
        "probes.jsonl",
        "report/**/*",
        "checkpoints/*/adapter_model.safetensors",
    )
    files = sorted(file for pattern in names for file in folder.glob(pattern) if file.is_file())
    return {
        str(file.relative_to(folder)): file.read_bytes() for file in files if not file.name.startswith((".", "made_by"))
    }


def wrong_files(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """Files under their final name with other bytes. Weights are the Trainer's: torn ones are known by their size."""
    return [
        name
        for name, content in finals(folder).items()
        if content != expected.get(name) and not name.startswith("checkpoints") and not name.endswith(".scores.h5")
    ]


def jobs(folder: Path) -> list[Job]:
    """`run` from nothing, `extract` of a trained run, `report` of an extracted one."""
    config = write_config(folder / "config")
    nothing = folder / "config" / "nothing"
    nothing.mkdir()
    run = Job("run", nothing, lambda out: pipeline.run(config, out))
    trained = folder / "config" / "trained"
    shutil.copytree(run.reference, trained, ignore=shutil.ignore_patterns("steps"))
    extract = Job("extract", trained, lambda out: pipeline.extract(out))
    whole = folder / "config" / "whole"
    shutil.copytree(extract.reference, whole)

    def report(out: Path) -> None:
        write_report(out, out / "report", ("md", "json", "csv", "shapiq"))

    return [run, extract, Job("report", whole, report)]


def kill(job: Job, rng: random.Random, counts: Counter[str], problems: list[str], until: tuple[int, float]) -> None:
    """One job, killed until it is done, or there were enough kills or seconds."""
    folder = job.fresh(f"n{counts['jobs']}")
    counts["jobs"] += 1
    while True:
        last = counts["kills"] >= until[0] or time.monotonic() > until[1]
        seconds = None if last or rng.random() < 0.5 else job.seconds * rng.random() ** 2
        operation = rng.randint(1, job.operations) if not last and seconds is None else None
        ended = job.attempt(folder, seconds, operation)
        counts["kills"] += ended == KILLED
        counts[f"kills of {job.name}"] += ended == KILLED
        if ended == FAILED:
            error = folder.parent / f"{folder.name}.error"
            problems.append(f"{folder}: {error.read_text()}")
            return
        if wrong := wrong_files(folder, job.expected):
            problems.append(f"{folder}: wrong after a kill: {wrong}")
            return
        if ended == DONE:
            break
    made = finals(folder)
    if other := [name for name in made.keys() | job.expected.keys() if made.get(name) != job.expected.get(name)]:
        problems.append(f"{folder}: differs from an uninterrupted {job.name}: {sorted(other)}")
    if damaged := verify(folder).damaged:
        problems.append(f"{folder}: damaged: {damaged}")
    if left := [file.name for file in folder.rglob(".sftscope*")]:
        problems.append(f"{folder}: left behind: {left}")
    counts["finished as if never interrupted"] += 1
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=7200)
    parser.add_argument("--jobs", default="run,extract,report")
    parser.add_argument("--keep", type=Path, help="Where to copy the folders of a failure.")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    rng, counts, problems = random.Random(asked.seed), Counter[str](), list[str]()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = [job for job in jobs(Path(name)) if job.name in asked.jobs.split(",")]
        while counts["kills"] < asked.kills and time.monotonic() - began < asked.seconds and not problems:
            kill(work[counts["jobs"] % len(work)], rng, counts, problems, (asked.kills, began + asked.seconds))
        if problems and asked.keep is not None:
            shutil.copytree(name, asked.keep)
        operations = {job.name: job.operations for job in work}
    print(json.dumps({**counts, "seconds": round(time.monotonic() - began), "file operations": operations}))
    print("\n".join(problems), file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
