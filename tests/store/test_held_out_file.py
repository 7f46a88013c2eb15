"""Rows come back as they were stored; what is torn, hostile or of other rows is never used, and said."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftscope.foundation.errors import SftscopeError
from sftscope.store import RunFolder
from sftscope.store.held_out_file import append_correct, append_losses, read_held_out, steps_with, torn_lines

TOKENS = np.array([2, 1, 5])


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path)
    append_losses(folder, 0, "abc", np.array([2.0, 1.5, 10.0]), TOKENS)
    append_losses(folder, 4, "abc", np.array([1.0, 0.5, 4.0]), TOKENS)
    append_correct(folder, 4, "xyz", np.array([True, False]))
    return folder


def test_by_hand(folder):
    found, problems = read_held_out(folder)
    assert problems == ()
    assert found.steps.tolist() == [0, 4]
    assert found.loss.tolist() == [[2.0, 1.5, 10.0], [1.0, 0.5, 4.0]]
    assert found.tokens.tolist() == [2, 1, 5]
    assert found.loss_per_token.tolist() == [13.5 / 8, 5.5 / 8]
    assert found.loss_per_row.tolist() == pytest.approx([(1 + 1.5 + 2) / 3, (0.5 + 0.5 + 0.8) / 3])
    assert found.correct_steps.tolist() == [4]
    assert found.correct.tolist() == [[True, False]]
    assert found.accuracy.tolist() == [0.5]


def test_until_a_step(folder):
    found, _ = read_held_out(folder)
    early = found.until(3)
    assert early.steps.tolist() == [0]
    assert early.loss.tolist() == [[2.0, 1.5, 10.0]]
    assert early.correct.shape == (0, 2)
    assert early.until(-1) is None
    assert found.until(4).loss.tolist() == found.loss.tolist()


def test_a_run_without_the_file_has_none(tmp_path):
    folder = RunFolder(tmp_path)
    assert read_held_out(folder) == (None, ())
    assert steps_with(folder, "loss") == set()
    assert torn_lines(folder) == (0, 0)


def test_the_last_line_of_a_step_counts(folder):
    append_losses(folder, 0, "abc", np.array([9.0, 9.0, 9.0]), TOKENS)
    found, problems = read_held_out(folder)
    assert found.loss.tolist() == [[9.0, 9.0, 9.0], [1.0, 0.5, 4.0]]
    assert problems == ()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_a_loss_comes_back_to_eight_digits(tmp_path_factory, losses):
    folder = RunFolder(tmp_path_factory.mktemp("rows"))
    append_losses(folder, 7, "abc", np.array(losses), np.full(len(losses), 3))
    found, problems = read_held_out(folder)
    assert problems == ()
    np.testing.assert_allclose(found.loss[0], losses, rtol=1e-7)


def test_a_torn_line_is_left_out_and_the_next_one_is_whole(folder):
    whole = folder.held_out_file.read_bytes()
    folder.held_out_file.write_bytes(whole[:-20])
    append_losses(folder, 8, "abc", np.array([1.0, 1.0, 1.0]), TOKENS)
    found, problems = read_held_out(folder)
    assert found.steps.tolist() == [0, 4, 8]
    assert found.correct_steps.tolist() == []
    assert problems == ()
    assert torn_lines(folder) == (1, 4)


def test_losses_that_are_no_numbers_are_said_and_not_used(folder):
    append_losses(folder, 8, "abc", np.array([np.nan, np.inf, 1.0]), TOKENS)
    found, problems = read_held_out(folder)
    assert found.steps.tolist() == [0, 4]
    assert problems == ("held_out.jsonl: entry 4: step 8: 2 of 3 rows have no loss that is a number; not used",)


GOOD = {"step": 8, "rows": "abc", "loss": [1.0, 2.0, 3.0], "tokens": [2, 1, 5]}


@pytest.mark.parametrize(
    "changed",
    [
        {"step": -1},
        {"step": True},
        {"step": 10**13},
        {"rows": 3},
        {"rows": "a" * 65},
        {"loss": [1.0, 2.0]},
        {"loss": [1.0, 2.0, -0.5]},
        {"loss": [1.0, 2.0, 1e300]},
        {"loss": [1.0, 2.0, "3"]},
        {"loss": [1.0, 2.0, [3.0]]},
        {"loss": {"0": 1}},
        {"loss": [], "tokens": []},
        {"tokens": [2, 1, 0]},
        {"tokens": [2, 1, 5.0]},
        {"tokens": [2, 1, 2**40]},
        {"tokens": [2, 1, 4]},
        {"rows": "\x1b]0;evil\x07"},
        {"right": "012"},
        {"right": ""},
        {"right": [1, 0]},
    ],
)
def test_a_line_of_another_shape_or_of_other_rows_is_said_and_not_used(folder, changed):
    line = {**GOOD, **changed}
    with folder.held_out_file.open("a") as file:
        file.write(json.dumps(line) + "\n")
    found, problems = read_held_out(folder)
    assert found.steps.tolist() == [0, 4]
    assert found.correct_steps.tolist() == [4]
    assert len(problems) == 1
    assert "not used" in problems[0]
    assert problems[0].isprintable()


def test_the_rows_of_most_steps_are_those_of_the_run(folder):
    """Also where the first step is the odd one."""
    append_losses(folder, 0, "other", np.array([1.0]), np.array([1]))
    append_losses(folder, 8, "abc", np.array([1.0, 1.0, 1.0]), TOKENS)
    found, problems = read_held_out(folder)
    assert found.steps.tolist() == [4, 8]
    assert problems == ("held_out.jsonl: step 0: of other rows than most steps; not used",)
    assert steps_with(folder, "loss") == {0, 4, 8}
    assert steps_with(folder, "loss", "abc") == {4, 8}


def test_what_is_no_regular_file_is_an_error(tmp_path):
    folder = RunFolder(tmp_path)
    os.mkfifo(folder.held_out_file)
    with pytest.raises(SftscopeError, match="held_out"):
        read_held_out(folder)


def test_ten_thousand_rows_at_a_hundred_checkpoints_stay_small(tmp_path):
    """13 bytes a row and step: 13 MB."""
    folder = RunFolder(tmp_path)
    rng = np.random.default_rng(0)
    append_losses(folder, 8, "abc", rng.gamma(2, 4, size=10_000), rng.integers(1, 60, size=10_000))
    append_correct(folder, 8, "abc", rng.random(10_000) < 0.5)
    assert folder.held_out_file.stat().st_size < 150_000
