"""What a training measured keeps its own steps, also between checkpoints."""

import numpy as np
import pytest

from sftscope.analysis.run.measured import measured_losses

OWN = [
    {"step": 0, "kind": "checkpoint", "eval": 3.0},
    {"step": 0, "kind": "checkpoint", "train": 2.9},
    {"step": 1, "kind": "batch", "train": 9.0},
    {"step": 4, "kind": "checkpoint", "eval": 2.0},
    {"step": 4, "kind": "checkpoint", "train": 1.9},
    {"step": 4, "kind": "checkpoint", "accuracy": 0.5},
]
ATTACHED = [
    {"step": 1, "kind": "batch", "train": 9.0},
    {"step": 2, "kind": "batch", "train": 8.0},
    {"step": 3, "kind": "eval", "eval": 2.5},
    {"step": 4, "kind": "checkpoint", "eval": 2.25},
    {"step": 6, "kind": "eval", "eval": float("nan")},
]
NAMES = ("train", "eval", "accuracy")


def pairs(found, name):
    return list(zip(found[name].steps.tolist(), found[name].values.tolist(), strict=True))


def test_own_training_has_what_was_measured_on_fixed_rows():
    found = measured_losses(NAMES, OWN, [], {})
    assert pairs(found, "eval") == [(0, 3.0), (4, 2.0)]
    assert pairs(found, "train") == [(0, 2.9), (4, 1.9)]
    assert pairs(found, "accuracy") == [(4, 0.5)]


def test_evaluations_between_checkpoints_keep_their_steps():
    found = measured_losses(NAMES, ATTACHED, [0, 4], {"eval": [np.nan, 2.25], "train": [np.nan, np.nan]})
    assert pairs(found, "eval") == [(3, 2.5), (4, 2.25)]
    assert pairs(found, "train") == [(1, 9.0), (2, 8.0)]
    assert "accuracy" not in found


def test_what_the_step_files_have_is_part_of_it_and_counts():
    found = measured_losses(NAMES, OWN, [0, 4, 8], {"eval": [3.0, 2.125, 1.0], "accuracy": [np.nan, 0.5, 0.75]})
    assert pairs(found, "eval") == [(0, 3.0), (4, 2.125), (8, 1.0)]
    assert pairs(found, "accuracy") == [(4, 0.5), (8, 0.75)]


@pytest.mark.parametrize(("step", "kept"), [(2, []), (3, [3]), (4, [3, 4]), (99, [3, 4])])
def test_until_a_step(step, kept):
    assert measured_losses(NAMES, ATTACHED, [], {})["eval"].until(step).steps.tolist() == kept
