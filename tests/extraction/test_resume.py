"""Interrupted, sharded, without memory or disk: what is finished is kept, and the result is the same, byte for byte."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from command_line import command
from run_results import assert_same_results
from sftscope.foundation.errors import SftscopeError
from sftscope.runs import pipeline
from sftscope.scoring.scorer import Scorer
from sftscope.store import RunFolder
from sftscope.store.checkpoints import ready_checkpoints


def test_finished_probes_survive_an_interruption(extracted, unextracted, monkeypatch) -> None:
    """Interrupted at every probe of every step in turn: none is scored twice, the files are those of a whole run."""
    scored: list[int] = []
    score = Scorer.score
    calls = {"left": 0}

    def interrupted(self, prompt, *watched):
        if calls["left"] == 0:
            raise KeyboardInterrupt
        calls["left"] -= 1
        scored.append(1)
        return score(self, prompt)

    monkeypatch.setattr(Scorer, "score", interrupted)
    for _ in range(100):
        calls["left"] = 2
        try:
            pipeline.extract(unextracted.path)
            break
        except KeyboardInterrupt:
            continue
    assert len(scored) == 5 * 3  # steps × probes
    assert_same_results(unextracted, extracted[1])


def test_shards_share_the_steps_without_overlap(extracted, unextracted) -> None:
    """Each shard alone makes its steps, and ζ is the same in all of them."""
    pipeline.extract(unextracted.path, shard=(2, 3))
    assert unextracted.steps() == (1, 6)
    pipeline.extract(unextracted.path, shard=(3, 3))
    assert unextracted.steps() == (1, 2, 6)
    pipeline.extract(unextracted.path, shard=(1, 3))
    assert_same_results(unextracted, extracted[1])


def test_a_draft_that_a_kill_left_beside_its_result_goes_with_the_next_call(extracted, unextracted) -> None:
    pipeline.extract(unextracted.path)
    unextracted.draft_file(2).write_bytes(b"left")
    pipeline.extract(unextracted.path)
    assert_same_results(unextracted, extracted[1])


@pytest.mark.campaign
def test_two_extractors_at_once_give_one_result(extracted, unextracted) -> None:
    """Both end well and leave no claim, no draft and no temporary file."""
    workers = [
        subprocess.Popen(command("extract", unextracted.path), stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for worker in workers:
        assert worker.wait(180) == 0, worker.stderr.read()
        worker.stderr.close()
    assert_same_results(unextracted, extracted[1])


@pytest.mark.campaign
def test_sigterm_is_an_interruption(unextracted) -> None:
    """A scheduler's SIGTERM ends extraction with exit code 143 and one line."""
    worker = subprocess.Popen(command("extract", unextracted.path), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not unextracted.steps() and time.monotonic() < until:
        time.sleep(0.005)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) in (143, 0)  # 0: it was done before the signal came
    said = worker.stderr.read()
    worker.stderr.close()
    assert "Traceback" not in said
    assert worker.returncode == 0 or "the same command resumes from here" in said


def test_no_memory_halves_what_is_scored_at_once_and_then_is_one_line(extracted, unextracted, monkeypatch) -> None:
    """A CPU that refuses memory twice: the same results. One that always refuses: a line that says what to lower."""
    from sftscope.scoring import prefix_tree

    walk, refusals = prefix_tree.TreeWalk.scores, {"left": 2}

    def scores(self):
        if refusals["left"]:
            refusals["left"] -= 1
            torch.empty(2**60)  # what a CPU says then
        return walk(self)

    monkeypatch.setattr(prefix_tree.TreeWalk, "scores", scores)
    pipeline.extract(unextracted.path, steps=[0])
    made, whole = unextracted.read_step(0), extracted[1].read_step(0)
    np.testing.assert_allclose(made.scores, whole.scores, atol=1e-4)
    refusals["left"] = 10**6
    with pytest.raises(SftscopeError, match=r"extraction: out of memory; use a smaller .* the same command resumes"):
        pipeline.extract(unextracted.path)
    assert unextracted.steps() == (0,)


LOST = {
    "memory": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        "out of memory; use a smaller",
    ),
    "gone": (
        torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later"),
        "the device failed: CUDA error: unspecified launch failure; ",
    ),
    "unplugged": (RuntimeError("CUDA driver error: device is lost\n\x1b[2J"), "the device failed: CUDA driver error"),
    "library": (RuntimeError("cuBLAS error: CUBLAS_STATUS_EXECUTION_FAILED when calling"), "the device failed: cuBLAS"),
}


@pytest.mark.parametrize("kind", LOST)
def test_a_gpu_that_fails_is_one_line_and_what_was_scored_is_kept(extracted, unextracted, monkeypatch, kind) -> None:
    """With the errors that PyTorch raises then, at the second probe of the second step; it goes on elsewhere."""
    error, said = LOST[kind]
    score, calls = Scorer.score, {"left": 4}

    def fails(self, prompt, *watched):
        calls["left"] -= 1
        if calls["left"] < 0:
            raise error
        return score(self, prompt)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score", fails)
        with pytest.raises(SftscopeError) as caught:
            pipeline.extract(unextracted.path)
    assert str(caught.value).isprintable()
    assert said in str(caught.value)
    assert str(caught.value).endswith("what is finished is kept, and the same command resumes")
    assert unextracted.steps() == (0,)
    assert unextracted.read_draft(1).n_variables.size == 1
    pipeline.extract(unextracted.path)
    assert_same_results(unextracted, extracted[1])


def test_a_checkpoint_that_was_replaced_is_not_mixed_with_what_was_scored_before(extracted, unextracted, monkeypatch):
    """A draft begun with other weights of the same step is scored again from its first probe."""
    score, calls = Scorer.score, {"left": 2}

    def interrupted(self, prompt, *watched):
        if calls["left"] == 0:
            raise KeyboardInterrupt
        calls["left"] -= 1
        return score(self, prompt)

    pipeline.extract(unextracted.path, steps=[0])
    monkeypatch.setattr(Scorer, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.extract(unextracted.path, steps=[2])
    assert unextracted.read_draft(2).n_variables.size == 2
    weights = [unextracted.checkpoints / f"checkpoint-{step}" / "adapter_model.safetensors" for step in (2, 6)]
    old = weights[0].read_bytes()
    weights[0].write_bytes(weights[1].read_bytes())
    calls["left"] = 3
    pipeline.extract(unextracted.path, steps=[2])
    assert unextracted.read_step(2).scores.tolist() == extracted[1].read_step(6).scores.tolist()
    weights[0].write_bytes(old)


LIMITED = """
import resource, signal, sys
limit = int(sys.argv.pop(1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from sftscope_tui.cli import main
main()
"""


@pytest.mark.campaign
@pytest.mark.parametrize("limit", [3000])
def test_a_write_that_the_system_cuts_short_is_one_line(extracted, unextracted, limit: int) -> None:
    """A real limit on the size of files stops the write in the middle: the old state stands; without it all goes on."""
    call = [sys.executable, "-c", LIMITED, str(limit), "extract", str(unextracted.path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert unextracted.steps() == ()
    pipeline.extract(unextracted.path)
    assert_same_results(unextracted, extracted[1])


@pytest.mark.campaign
def test_training_without_space_is_one_line(extracted, tmp_path) -> None:
    """The Trainer's own files cannot be written: a line, and the same command goes on to the same checkpoints."""
    config, whole = extracted
    call = [sys.executable, "-c", LIMITED, "20000", "train", str(config), "--out", str(tmp_path / "run")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("sftscope: training: ")
    assert "Traceback" not in done.stderr
    assert not ready_checkpoints(tmp_path / "run" / "checkpoints")
    pipeline.run(config, tmp_path / "run")
    assert_same_results(RunFolder(tmp_path / "run"), whole)


def test_probes_that_were_changed_are_not_scored(extracted, unextracted) -> None:
    """Extraction refuses another probes.jsonl; the run's own command writes it again."""
    text = unextracted.probes_file.read_text()
    unextracted.probes_file.write_text(text.replace("glad", "sad", 1))
    with pytest.raises(SftscopeError, match=r"probes\.jsonl: is not what the run was begun with"):
        pipeline.extract(unextracted.path)
    pipeline.train(extracted[0], unextracted.path)
    assert unextracted.probes_file.read_text() == text
