"""Many workers on one run: blocks, claims, who is lost, what is submitted; the bytes are those of one process."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import command
from run_results import assert_same_results
from sftscope.distributed import submit as cluster
from sftscope.extraction.blocks import BLOCK_STATES, BLOCKS_A_STEP, blocks_of, start_of
from sftscope.files.claims import EXPIRES
from sftscope.files.opening import private_folder
from sftscope.foundation.errors import SftscopeError
from sftscope.runs import pipeline
from sftscope.scoring.scorer import Scorer
from sftscope.store import RunFolder
from sftscope.store.sharing.run_status import run_status
from sftscope.store.sharing.worker_status import at_work, read_workers
from sftscope.store.sharing.writer_progress import writer_progress


@given(st.lists(st.integers(1, 16), min_size=1, max_size=60), st.none() | st.integers(1, 70))
def test_blocks_are_the_probes_in_order_and_no_larger_than_they_may_be(n_variables, size) -> None:
    n_states = [2**n for n in n_variables]
    blocks = blocks_of(n_states, size)
    assert [number for block in blocks for number in block] == list(range(len(n_states)))
    for block in blocks:
        states = sum(n_states[number] for number in block)
        assert len(block) == 1 or (len(block) <= size if size else states <= BLOCK_STATES)


def test_blocks_joined_are_the_bytes_of_a_single_process(extracted, unextracted) -> None:
    pipeline.extract(unextracted.path, place=(2, 3), block=1)
    assert_same_results(unextracted, extracted[1])
    assert not (unextracted.path / "blocks").exists()


def test_an_interruption_loses_no_finished_probe_and_another_worker_goes_on(
    extracted, unextracted, monkeypatch
) -> None:
    """Interrupted after every second probe, in blocks of two: none of the probes is scored twice."""
    scored, left, score = [], [0], Scorer.score

    def interrupted(self, prompt, *watched):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        scored.append(1)
        return score(self, prompt)

    monkeypatch.setattr(Scorer, "score", interrupted)
    for worker in range(30):
        left[0] = 1 + worker % 2
        try:
            pipeline.extract(unextracted.path, place=(worker % 4 + 1, 4), block=2)
            break
        except KeyboardInterrupt:
            assert read_workers(unextracted.workers_folder)[0].state == "interrupted"
    assert len(scored) == 5 * 3  # steps × probes
    assert_same_results(unextracted, extracted[1])


def test_a_damaged_block_is_made_again(extracted, unextracted) -> None:
    file = unextracted.block_file(0, range(1))
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    pipeline.extract(unextracted.path, place=(1, 1), block=1)
    assert_same_results(unextracted, extracted[1])


@pytest.mark.campaign
def test_workers_that_are_killed_and_stopped_lose_nothing(extracted, unextracted) -> None:
    """One is killed, one is stopped and goes on when the others are done, two finish."""
    code = (
        "import sys; from pathlib import Path; from sftscope.distributed.submit import Worker; "
        "import sftscope.files.claims as c\n"
    )
    code += "c.EXPIRES = 2.0; c._REFRESH = 0.2\nWorker(Path(sys.argv[1]), int(sys.argv[2]), 4, block=1)()"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(unextracted.path), str(i)], stderr=subprocess.DEVNULL)
        for i in (1, 2, 3)
    ]
    blocks, until = unextracted.path / "blocks", time.monotonic() + 120
    while not any(blocks.rglob("*.h5")) and not unextracted.steps() and time.monotonic() < until:
        time.sleep(0.005)
    workers[0].kill()
    workers[1].send_signal(signal.SIGSTOP)
    assert workers[2].wait(180) == 0
    workers[1].send_signal(signal.SIGCONT)
    assert workers[1].wait(180) == 0
    workers[0].wait()
    unextracted.sweep()
    assert_same_results(unextracted, extracted[1])


@pytest.mark.campaign
def test_workers_of_this_host_by_command_then_status(extracted, unextracted) -> None:
    made = subprocess.run(
        command("extract", unextracted.path, "--workers", "2", "--block", "1"), capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    assert_same_results(unextracted, extracted[1])
    told = subprocess.run(command("status", unextracted.path, "--json"), capture_output=True, text=True)
    status = json.loads(told.stdout)
    assert (status["extracted"], status["probes_scored"]) == (5, 15)
    assert sum(worker["probes"] for worker in status["workers"]) == 15
    assert status["states"] == {"ended": 2}


def test_a_failure_and_a_lost_worker_are_shown(unextracted) -> None:
    folder = unextracted.workers_folder

    def fail() -> None:
        with at_work(folder) as worker:
            worker.probes, worker.state = 4, "working"
            raise SftscopeError("out of \x1b[31m luck")

    with pytest.raises(SftscopeError):
        fail()
    (mine,) = folder.iterdir()
    other = folder / "0badhost-12.json"
    other.write_text(json.dumps(json.loads(mine.read_text()) | {"state": "working", "failure": "", "seconds": 2.0}))
    (folder / "foreign.json").write_text("[1]")
    now = other.stat().st_mtime
    assert {each.state for each in read_workers(folder, now + 1)} == {"failed", "working"}
    told = run_status(unextracted, now + 1)
    assert told.sentence == "1 working, 1 failed, 2 probes/s, 0:00:07 left"
    assert told.sentence in writer_progress(unextracted, now + 1).sentence  # which is the explorer's
    later = run_status(unextracted, now + EXPIRES + 5)
    assert {each.state for each in later.workers} == {"failed", "lost"}
    assert "luck" in later.as_text()
    assert "\x1b" not in later.as_text()
    assert later.rate is None


def test_submitit_runs_the_workers(extracted, unextracted) -> None:
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    jobs = cluster.submit("local", 2, cluster.Worker(unextracted.path, 1, 1, block=1), cluster.Resources(minutes=5))
    assert [job.result() for job in jobs] == [None, None]
    assert_same_results(unextracted, extracted[1])


SLOW = """
import os, time
from pathlib import Path
from sftscope.distributed import submit as cluster

class SlowWorker(cluster.Worker):
    def __call__(self):
        from sftscope.scoring.scorer import Scorer
        score, told = Scorer.score, self.run / "scored"
        def slowly(scorer, prompt, *watched):
            made = score(scorer, prompt)
            with told.open("a") as file:
                file.write(f"{os.getpid()}\\n")
            time.sleep(0.5)
            return made
        Scorer.score = slowly
        super().__call__()
"""


@pytest.mark.campaign
@pytest.mark.long
def test_a_requeue_signal_in_the_middle_of_a_block_loses_at_most_that_block(
    extracted,
    unextracted,
    tmp_path,
    monkeypatch,
) -> None:
    """The signal of a preemption, to a real job of submitit, in the middle of its second block of three probes."""
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    (tmp_path / "slow_worker.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(tmp_path)
    slow = importlib.import_module("slow_worker")
    (job,) = cluster.submit("local", 1, slow.SlowWorker(unextracted.path, 1, 1, block=3), cluster.Resources(minutes=9))
    told, until = unextracted.path / "scored", time.monotonic() + 120
    lines: list[str] = []
    while len(lines) < 5:  # the first of two blocks is done, two probes of the second are scored
        assert time.monotonic() < until, job.stderr()
        assert not job.done(), job.stderr()
        time.sleep(0.02)
        lines = told.read_text().split() if told.exists() else []
    os.kill(int(lines[0]), signal.SIGUSR2)
    assert job.result() is None
    scored = told.read_text().split()
    assert len(set(scored)) == 2, "the job went on as another process"
    assert len(scored) <= 5 * 3 + 3, "steps × probes, and at most the block in work again"
    told.unlink()
    assert_same_results(unextracted, extracted[1])


def test_a_preempted_job_is_queued_again_as_the_same_worker() -> None:
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    worker = cluster.Worker(Path("run"), 3, 8, steps=(0, 2), block=4)
    assert worker.checkpoint().function == worker


def test_the_slurm_submission_is_an_array_with_the_resources(tmp_path, monkeypatch) -> None:
    """The script that sbatch would be given; only sbatch itself is not there, so that a stand-in records it."""
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    for name in ("srun", "sbatch"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\nfor last; do :; done\ncp "$last" {tmp_path}/submitted\necho Submitted batch job 7\n'
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    resources = cluster.Resources(minutes=90, memory_gb=24, gpus=1, cpus=6, partition="spot")
    jobs = cluster.submit("slurm", 3, cluster.Worker(tmp_path / "run", 1, 1), resources)
    assert [job.job_id for job in jobs] == ["7_0", "7_1", "7_2"]
    script = (tmp_path / "submitted").read_text()
    for option in (
        "--array=0-2%3",
        "--time=90",
        "--mem=24GB",
        "--cpus-per-task=6",
        "--partition=spot",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {option}" in script, script
    assert "#SBATCH --gpus-per-node=1" in script
    assert "-P -u -c 'from sftscope.distributed.submit import run_job; run_job()'" in script
    assert (tmp_path / "run" / "cluster").stat().st_mode & 0o777 == 0o700


def test_each_worker_of_a_host_sees_one_gpu(monkeypatch, tmp_path) -> None:
    """Where there are two: in turn; what a worker may see is set before anything uses CUDA."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5d")
    team = cluster.team_of(3, cluster.Worker(tmp_path, 1, 1))
    assert [(each.number, each.total, each.gpu) for each in team] == [(1, 3, "3"), (2, 3, "GPU-5d"), (3, 3, "3")]
    seen: list[str] = []
    monkeypatch.setattr(pipeline, "extract", lambda *_, **__: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]))
    for each in team:
        each()
    assert seen == ["3", "GPU-5d", "3"]


def test_without_gpus_the_environment_is_left_alone(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [each.gpu for each in cluster.team_of(2, cluster.Worker(tmp_path, 1, 1))] == [None, None]


PLAN = {
    "seconds": {"training": 9e9, "scoring": 40_000.0, "decomposition": 5_000.0, "loading": 60.0, "total": 9e9},
    "memory_gb": {"host": 33.2, "device": 17.0},
}


def test_jobs_ask_for_what_the_plan_says_and_what_is_given_comes_first(tmp_path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN))
    resources = cluster.resources(file, 10, {"memory_gb": None, "partition": "spot", "cpus": 4})
    assert resources == cluster.Resources(minutes=152, memory_gb=34, gpus=1, cpus=4, partition="spot")
    assert cluster.resources(file, 10, {"memory_gb": 80.0, "gpus": 0}).memory_gb == 80
    assert cluster.resources(file, 10**6, {}).minutes == 30
    assert cluster.resources(file, 1, {}).minutes == 24 * 60
    file.write_text(json.dumps({**PLAN, "memory_gb": {"host": 6, "device": 0.0}}))
    assert cluster.resources(file, 10, {}).gpus == 0
    assert cluster.resources(None, 10, {"minutes": None}) == cluster.Resources()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seconds": {}, "memory_gb": []}', "\x00"])
def test_a_file_that_is_no_plan_is_refused_in_one_line(tmp_path, content) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    with pytest.raises(SftscopeError, match=r"not a plan.*sftscope plan RUN --json"):
        cluster.planned(file, 2)
    with pytest.raises(SftscopeError, match="cannot be read"):
        cluster.planned(tmp_path / "missing", 2)


def test_without_submitit_one_line_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(SftscopeError, match=r"pip install 'sftscope\[cluster\]'"):
        cluster.make_executor("slurm", tmp_path, cluster.Resources())


@pytest.mark.parametrize("kind", ["writable by others", "a link", "another user's"])
def test_a_job_unpickles_nothing_that_another_user_could_have_written(kind, tmp_path, monkeypatch, capsys) -> None:
    """submitit's pickles are run as code: neither are they written into such a folder, nor read from it."""
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    folder = tmp_path / "run" / "cluster"
    (tmp_path / "elsewhere").mkdir()
    folder.parent.mkdir()
    if kind == "a link":
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir(mode=0o755)
        folder.chmod(0o777 if kind == "writable by others" else 0o755)
    if kind == "another user's":
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SftscopeError, match=r"cluster: (others may write to it|belongs to another user|not a folder)"):
        cluster.submit("local", 1, cluster.Worker(tmp_path / "run", 1, 1), cluster.Resources())
    assert not any(folder.iterdir())
    monkeypatch.setattr(sys, "argv", ["-c", "-u", "-m", "submitit.core._submit", str(folder)])
    monkeypatch.setattr("submitit.core.submission.process_job", lambda _: pytest.fail("it was read"))
    with pytest.raises(SystemExit):
        cluster.run_job()
    assert "sftscope: " in capsys.readouterr().err


def test_a_folder_exchanged_after_the_look_at_it_is_not_read(tmp_path, monkeypatch) -> None:
    """Who may write into the run can give its `cluster` another name, and put a folder in its place."""
    pytest.importorskip("submitit", reason="the extra `cluster` is not installed")
    folder, read = private_folder(tmp_path / "cluster"), []
    (folder / "x").write_text("mine")

    def exchange(path) -> None:
        folder.rename(tmp_path / "away")
        folder.mkdir()
        (folder / "x").write_text("a stranger's")
        read.append((Path(path) / "x").read_text())

    monkeypatch.setattr(sys, "argv", ["-c", str(folder)])
    monkeypatch.setattr("submitit.core.submission.process_job", exchange)
    cluster.run_job()
    assert read == ["mine"]


def test_a_worker_that_fails_makes_the_command_fail(unextracted) -> None:
    (unextracted.path / "probes.jsonl").write_text("{}\n")
    with pytest.raises(SftscopeError, match="1 of 1 workers failed"):
        cluster.run_here(1, replace(cluster.Worker(RunFolder(unextracted.path).path, 1, 1)))


@pytest.mark.campaign
@pytest.mark.parametrize("rounds", [6, pytest.param(20, marks=pytest.mark.long)])
def test_chaos_loses_nothing_and_makes_nothing_twice_but_what_was_given_up(rounds) -> None:
    """Workers killed, stopped for longer than a claim lasts, and with clocks that are wrong, in forked processes."""
    made = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "benchmarks" / "bench_cluster.py"), "--rounds", str(rounds)],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    found = dict(re.findall(r"(\w+)=(\d+)", made.stdout))
    assert int(found["rounds"]) == rounds
    assert int(found["killed"]) > 0
    assert int(found["stopped"]) > 0
    for name in ("failed", "lost", "wrong", "left_over", "unexplained"):
        assert found[name] == "0", (name, found, made.stderr)


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 300))
def test_teams_have_all_workers_at_places_of_their_own(total, blocks, steps) -> None:
    """No two workers of a team begin at the same block; there are as few teams as have blocks enough for each."""
    starts = [start_of((number, total), blocks) for number in range(1, total + 1)]
    assert all(0 <= first < 1 and 0 <= within < 1 for first, within in starts)
    assert len(set(starts)) == total
    assert len({first for first, _ in starts}) == -(-total // max(1, blocks // BLOCKS_A_STEP))


def test_verify_knows_the_folders_of_workers(extracted, unextracted) -> None:
    from sftscope.verification.verify import verify

    pipeline.extract(unextracted.path, place=(1, 1))
    (unextracted.path / "cluster").mkdir()
    assert unextracted.workers_folder.is_dir()
    found = verify(unextracted.path).as_text()
    assert "not a file of sftscope" not in found
