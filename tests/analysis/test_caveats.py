"""What a run's own files say against it, as lines that are safe to show."""

from dataclasses import replace

import pytest

from sample_history import write_sample_run
from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.trust.caveats import caveats


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    return load_history(write_sample_run(tmp_path_factory.mktemp("run"), n_steps=2, n_probes=1, n=3))


def test_a_float32_run_has_none(history):
    assert caveats(history) == []
    assert caveats(replace(history, precision={"asked": "auto", "taken": "float32", "candidates": []})) == []


def test_a_reduced_precision_comes_with_what_was_measured(history):
    def with_precision(**precision):
        return replace(history, precision=precision)

    trial = {"precision": "bfloat16", "jaccard": 0.3, "sigma": 0.1, "speed": 3.0, "steps": [0]}
    (line,) = caveats(with_precision(asked="bfloat16", taken="bfloat16", candidates=[trial]))
    assert "bfloat16" in line
    assert "0.30" in line
    assert "below 0.95" in line
    (line,) = caveats(with_precision(taken="tf32", candidates=[{**trial, "precision": "tf32", "jaccard": 0.99}]))
    assert "below" not in line
    (line,) = caveats(with_precision(taken="bfloat16", candidates="lies"))
    assert "not measured" in line


def test_labels_that_look_the_same_are_named_and_made_safe(history):
    run = {**history.run, "collisions": {"dis": ["disgust\x1b[2J", "disapproval"]}}
    (line,) = caveats(replace(history, run=run))
    assert "disapproval" in line
    assert "\x1b" not in line
    assert caveats(replace(history, run={**run, "collisions": "x"})) == []
