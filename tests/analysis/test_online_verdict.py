"""What could be said at each checkpoint: the same as if each was looked at by itself."""

from dataclasses import replace

import numpy as np
import pytest

from histories import random_history
from sftscope.analysis.conclusions.online_verdict import as_it_went
from sftscope.analysis.conclusions.paired import best_accuracy, best_loss, draw_all, loss_p_value
from sftscope.analysis.conclusions.verdict import judge
from sftscope.analysis.course.events import events_so_far
from sftscope.analysis.run.measured import Measured
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule
from sftscope.analysis.sets.views import Selection, trends
from sftscope.store.held_out_file import HeldOutRows

STEPS = 9


def history_with_rows() -> RunHistory:
    history, rng = random_history(3, steps=STEPS), np.random.default_rng(0)
    loss = rng.gamma(2, 1, (STEPS, 30)) + np.linspace(2, 1, STEPS)[:, None]
    right = rng.random((STEPS, 20)) < np.linspace(0.2, 0.8, STEPS)[:, None]
    tokens = rng.integers(1, 5, 30)
    rows = HeldOutRows(history.steps, loss, tokens, history.steps, right)
    measured = {
        "eval": Measured(history.steps, rows.loss_per_token),
        "accuracy": Measured(history.steps, rows.accuracy),
    }
    return replace(history, held_out=rows, measured=measured, losses={"eval": rows.loss_per_token})


@pytest.mark.parametrize("rule", ["max-step:0.05", "max-run:0.3"])
def test_it_is_what_each_checkpoint_says_by_itself(rule: str) -> None:
    """Also under a rule for τ whose sets change when later steps arrive."""
    evolution = Evolution(history_with_rows(), ThresholdRule.parse(rule))
    for last, said in enumerate(as_it_went(evolution)):
        past = evolution.history.until(last)
        rows = past.held_out
        assert rows is not None
        alone = replace(past, held_out=replace(rows, drawn={}))
        seen = trends(replace(evolution, history=alone), Selection(last), events=events_so_far(alone))
        assert said.events == seen.events
        assert said.verdict == judge(seen, alone.held_out, looks=True)


def test_a_pair_of_checkpoints_has_one_answer_however_it_is_asked() -> None:
    rows = history_with_rows().held_out
    assert rows is not None
    alone = best_loss(rows.loss[4], rows.loss[[5, 2, 8]]).min()
    assert loss_p_value(rows, 4, [5, 2, 8]) == alone
    fresh = replace(rows, drawn={})
    draw_all(fresh)
    kept = dict(fresh.drawn)
    assert loss_p_value(fresh, 4, [5, 2, 8]) == alone
    assert fresh.drawn == kept
    assert best_accuracy(rows.correct[0], rows.correct[0]).tolist() == [1.0]
    assert best_loss(rows.loss[0], rows.loss[0]).tolist() == [1.0]
