"""A history has the held-out rows and all measured losses of its run, and says what of them it cannot use."""

import json
from pathlib import Path

import numpy as np
import pytest

from sample_history import write_sample_run
from sftscope.analysis.run.read_run import GrowingHistory, load_history
from sftscope.analysis.trust.caveats import caveats
from sftscope.store import RunFolder
from sftscope.store.held_out_file import append_losses


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(write_sample_run(tmp_path / "run", n_steps=5, n_probes=1))


def test_a_run_of_an_earlier_version_has_no_rows(run: RunFolder) -> None:
    history = load_history(run.path)
    assert history.held_out is None
    assert history.log_problems == ()
    assert history.measured["eval"].steps.tolist() == history.steps.tolist()
    assert np.array_equal(history.measured["eval"].values, history.losses["eval"])


def test_rows_and_losses_between_checkpoints_are_those_up_to_a_step(run: RunFolder) -> None:
    steps = load_history(run.path).steps.tolist()
    between = steps[-1] - 1
    assert between not in steps
    run.append_log({"step": between, "kind": "eval", "eval": 0.125})
    for step in (steps[0], steps[2], steps[-1]):
        append_losses(run, step, "abc", np.array([1.0 + step, 2.0]), np.array([1, 2]))
    history = load_history(run.path)
    assert history.held_out is not None
    assert history.held_out.steps.tolist() == [steps[0], steps[2], steps[-1]]
    assert dict(zip(history.measured["eval"].steps, history.measured["eval"].values, strict=True))[between] == 0.125
    early = history.until(len(steps) - 2)
    assert early.held_out is not None
    assert early.held_out.steps.tolist() == [steps[0], steps[2]]
    assert early.measured["eval"].steps.tolist() == steps[:-1]


def test_what_cannot_be_used_is_said(run: RunFolder) -> None:
    run.held_out_file.write_text(json.dumps({"step": 1, "rows": "a", "loss": [1.0], "tokens": [0]}) + "\n")
    history = load_history(run.path)
    assert history.held_out is None
    assert "step 1" in history.log_problems[0]
    assert any(line.startswith("Not used: held_out.jsonl: ") for line in caveats(history))
    run.held_out_file.unlink()
    run.held_out_file.mkdir()
    refused = load_history(run.path)
    assert refused.held_out is None
    assert "held_out.jsonl" in refused.log_problems[0]
    assert refused.left_out == ()


def test_rows_that_come_later_are_seen_with_the_next_step(run: RunFolder, tmp_path: Path) -> None:
    last = run.steps()[-1]
    kept = run.step_file(last).read_bytes()
    run.step_file(last).unlink()
    growing = GrowingHistory(run.path, first_passes=())
    growing.look()
    first = growing.read(60)
    assert first is not None
    assert first.held_out is None
    append_losses(run, last, "abc", np.array([1.0]), np.array([1]))
    run.step_file(last).write_bytes(kept)
    assert growing.look()
    second = growing.read(60)
    assert second is not None
    assert second.held_out is not None
    assert second.held_out.steps.tolist() == [last]
