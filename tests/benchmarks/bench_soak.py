"""A soak: a run is extracted, killed, resumed and begun again, with the explorer open on it all the time.

    python tests/benchmarks/bench_soak.py --seconds 1800

The explorer runs here without a terminal, follows, and is scrubbed; a second process writes, and is killed by a third.
Prints rounds, kills, and the explorer's memory over time as JSON; exit code 1 where the explorer fails, a finished run
differs, or memory grows by more than 64 MiB after the first quarter.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS / "benchmarks")]
MOST_GROWTH = 64  # MiB


def write(folder: Path) -> None:
    """Extract the run in `folder` again and again; each round is killed a few times. Never returns."""
    from collections import Counter

    import bench_kills

    config = bench_kills.write_config(folder / "config")
    run = folder / "run"
    bench_kills.pipeline.run(config, run)
    expected = bench_kills.finals(run)
    job = object.__new__(bench_kills.Job)
    job._act = lambda out: bench_kills.pipeline.extract(out)
    rng, counts = random.Random(0), Counter[str]()
    while True:
        shutil.rmtree(run / "steps")
        while job.attempt(run, rng.uniform(0.0, 3.0) if rng.random() < 0.8 else None, None) != bench_kills.DONE:
            counts["kills"] += 1
        counts["rounds"] += 1
        counts["rounds that differ"] += bench_kills.finals(run) != expected
        (folder / "counts.tmp").write_text(json.dumps(counts))
        (folder / "counts.tmp").replace(folder / "counts.json")
        time.sleep(3)  # seen whole


def memory() -> float:
    """Resident memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def explore(run: Path, seconds: float) -> list[float]:
    """Follow and scrub for `seconds`; memory, once a minute at most sixty times."""
    from sftscope_tui.app.actions import ExplorerApp

    app, rng, found = ExplorerApp(run), random.Random(1), [memory()]
    began = last = time.monotonic()
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("f")
        while time.monotonic() - began < seconds:
            await pilot.press(rng.choice(["1", "2", "3", "4", "5", "8", "left", "right", "j", "k", "p", "d"]))
            await asyncio.sleep(0.2)
            if time.monotonic() - last > max(seconds / 60, 5):
                last = time.monotonic()
                found.append(memory())
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--writer", type=Path, help="Be the process that writes, in this folder.")
    asked = parser.parse_args()
    if asked.writer is not None:
        write(asked.writer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        with (folder / "writer.log").open("w") as log:
            call = [sys.executable, __file__, "--writer", name]
            writer = subprocess.Popen(call, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 300
            while not (folder / "run" / "steps").is_dir() or not list((folder / "run" / "steps").glob("*.h5")):
                if writer.poll() is not None or time.monotonic() > until:
                    sys.exit((folder / "writer.log").read_text())
                time.sleep(0.5)
            found = asyncio.run(explore(folder / "run", asked.seconds))
        finally:
            writer.kill()
            writer.wait()
        counts = json.loads((folder / "counts.json").read_text())
    growth = max(found) - max(found[: max(len(found) // 4, 2)])
    print(json.dumps({**counts, "seconds": asked.seconds, "memory, MiB": [round(each) for each in found]}))
    sys.exit(1 if counts["rounds that differ"] or growth > MOST_GROWTH else 0)


if __name__ == "__main__":
    main()
