"""The verdict: what is said of events and held-out curves that are made by hand, and how often noise makes it wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest

from histories import counted_history
from sample_history import step_grid
from sftscope.analysis.conclusions.held_out import (
    Curve,
    loss_improves_after,
    loss_rises,
    more_accurate_after,
    patience_step,
)
from sftscope.analysis.conclusions.stages import Stage, stages
from sftscope.analysis.conclusions.verdict import Agreement, Decision, judge
from sftscope.analysis.course.events import Event, Events
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, Trends, trends
from simulated_runs import LossKind, simulate_loss

NAN = math.nan
STEPS = list(step_grid(9))  # 0 1 2 3 5 8 12 16 24
FALLING = [2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.9, 0.8, 0.7]
RISING = [2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.9, 1.1, 1.6]  # lowest at step 12, after the sparsest
AT_5 = Event(4, 5, 5, 8, "made for a test")
NOWHERE = Event(None, None, None, None, "made for a test")
AT_12 = Event(6, 12, 8, 12, "made for a test")


def made_trends(
    losses: list[float],
    *,
    sparsest: Event = AT_5,
    emergence: Event = AT_12,
    emerged: tuple[float, ...] = (0, 0.2, 0.3, 0.4, 0.4, 0.5, 1, 3, 9),
    accuracy: list[float] | None = None,
    accuracy_rows: int = 0,
) -> Trends:
    whole = trends(Evolution(counted_history([[3] * 9])), Selection(8))
    curves = {"eval": losses} | ({"accuracy": accuracy} if accuracy else {})
    return replace(
        whole,
        events=Events(NOWHERE, sparsest, emergence),
        soft=replace(whole.soft, emerged_mean=list(emerged)),
        measured={
            name: [(step, value) for step, value in zip(STEPS, values, strict=True) if math.isfinite(value)]
            for name, values in curves.items()
        },
        accuracy_rows=accuracy_rows,
    )


@pytest.mark.parametrize(
    ("losses", "agreement", "begins", "words"),
    [
        (
            FALLING,
            Agreement.CONFLICT,
            "Do not stop at step 5: ",
            "held-out loss still improves (1.000 at 8 → 0.700 at 24;",
        ),
        (RISING, Agreement.CONFLICT, "Stop by step 12: ", "held-out loss rises (0.900 at 12 → 1.600 at 24;"),
        ([2.0, 1.8, 1.6, 1.4, 1.2, 1.1, 1.2, 1.3, 1.4], Agreement.AGREE, "Stop at step 8: ", "lowest at 8 of these"),
        ([2.0, 1.8, 1.6, 1.4, 1.2, 1.2, 1.2, 1.2, 1.2], Agreement.AGREE, "Stop at step 5: ", "not clearly improve"),
        (
            [2.0, 0.5, 1.6, 1.4, 1.2, 1.2, 1.2, 1.2, 1.2],
            Agreement.CONFLICT,
            "Stop by step 1: ",
            "sparsest only later, at step 5",
        ),
        (
            [2.0, 1.8, 1.6, 1.4, 1.2, 1.0, NAN, NAN, NAN],
            Agreement.NOT_ENOUGH,
            "Not enough evidence",
            "measured after the checkpoints",
        ),
        ([NAN] * 9, Agreement.NOT_ENOUGH, "Not enough evidence", "no held-out loss was recorded"),
    ],
)
def test_what_is_said_begins_with_what_to_do(
    losses: list[float], agreement: Agreement, begins: str, words: str
) -> None:
    verdict = judge(made_trends(losses))
    assert verdict.agreement is agreement
    assert verdict.sentence.startswith(begins)
    assert words in verdict.sentence
    assert verdict.sentence.startswith(f"{verdict.headline}: ")
    assert verdict.decision == next(each for each in Decision if begins.lower().startswith(each))
    assert verdict.stop_by == (int(begins.split()[3][:-1]) if begins.startswith("Stop") else None)
    assert verdict.past_stop is (verdict.stop_by is not None)


def test_losses_between_the_checkpoints_count_at_their_own_steps() -> None:
    """The sparsest step has no loss of its own, but losses lie around it."""
    made = made_trends([2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.9, 0.8, 0.7])
    around = [(step, value) for step, value in made.measured["eval"] if step not in (5, 8)]
    verdict = judge(replace(made, measured={"eval": [*around[:4], (4, 1.3), (10, 0.95), *around[4:]]}))
    assert verdict.agreement is Agreement.CONFLICT
    assert "still improves (0.950 at 10 → 0.700 at 24;" in verdict.sentence


def test_a_lowest_loss_between_checkpoints_names_the_nearest_one() -> None:
    made = made_trends(RISING, sparsest=NOWHERE)
    around = [(step, value + 0.2 * (step == 12)) for step, value in made.measured["eval"]]
    verdict = judge(replace(made, measured={"eval": sorted([*around, (13, 0.8)])}))
    assert verdict.stop_by == 12
    begins = "Stop by step 12: it is the checkpoint nearest to step 13, where held-out loss is lowest; it rises then "
    assert verdict.sentence.startswith(f"{begins}(0.800 at 13 → 1.600 at 24;")


@pytest.mark.parametrize("losses", [[0.703, 0.7, 0.71], [0.71, 0.715, 0.7], [0.7, 0.71, 0.7, 0.71, 0.72]])
def test_too_few_evaluations_say_nothing(losses: list[float]) -> None:
    """A curve with one turn fits three values exactly, so that no noise is left to compare with."""
    made = made_trends([NAN] * 9)
    verdict = judge(replace(made, measured={"eval": list(zip((5, 8, 12, 16, 24), losses, strict=False))}))
    assert verdict.agreement is Agreement.NOT_ENOUGH
    assert (verdict.decision, verdict.stop_by, verdict.past_stop) == (Decision.NOT_ENOUGH, None, False)
    if len(losses) > 3:
        assert "5 evaluations are too few to tell it from noise, 6 are needed" in verdict.sentence


def test_the_first_checkpoint_can_be_the_one_to_use() -> None:
    """Nothing has emerged at the base step, so no ratio is formed; and 0 is a step like any other."""
    rising = [0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4]
    early = judge(made_trends(rising, sparsest=NOWHERE))
    assert early.stop_by == 0
    assert "and by step 24, what emerged has 9.0 times the strength at the start" in early.sentence
    there = judge(made_trends(rising, sparsest=Event(2, 2, 0, 3, "made for a test")))
    assert (there.decision, there.stop_by) == (Decision.STOP_AT, 0)


def test_without_a_sparsest_step_the_story_of_denoising_is_not_told() -> None:
    """An LLM that knows its task exchanges interactions: held-out loss and what emerged speak, denoising does not."""
    losses = [0.95, 0.7, 0.63, 0.64, 0.66, 0.7, 0.8, 0.9, 0.95]
    verdict = judge(made_trends(losses, sparsest=NOWHERE))
    assert verdict.agreement is Agreement.NOT_ENOUGH
    assert verdict.stop_by == 2
    assert verdict.sentence.startswith("Stop by step 2: after it, held-out loss rises (0.630 at 2 → 0.950 at 24;")
    assert verdict.sentence.endswith("No sparsest step: made for a test.")
    assert not any("denois" in line.lower() for line in (verdict.sentence, *verdict.evidence))
    assert stages(STEPS, Events(NOWHERE, NOWHERE, AT_12), verdict) == [None] * 3 + [Stage.OVERFITTING] * 6


@pytest.mark.parametrize(
    ("changes", "latest"),
    [
        ({}, 12),
        ({"emergence": NOWHERE}, None),  # a rising loss alone
        ({"emerged": (0, 1, 1, 1, 1, 1, 1, 1, 1)}, None),  # no more than at the lowest loss
        ({"emerged": (0, 5, 10, 15, 20, 25, 30, 45, 60)}, 12),  # grows all along
        ({"accuracy": [0.1] * 6 + [0.5, 0.7, 0.6], "accuracy_rows": 400}, 16),  # a later checkpoint is more accurate
        ({"accuracy": [0.1] * 6 + [0.5, 0.6, 0.8], "accuracy_rows": 400}, None),  # the last one is
        ({"accuracy": [0.1] * 6 + [0.5, 0.53, 0.5], "accuracy_rows": 400}, 12),  # within the error of 400 rows
        ({"sparsest": Event(7, 16, 16, 24, "made for a test"), "emergence": NOWHERE}, 12),  # lowest before that
        ({"emerged": (NAN,) * 9}, None),  # nothing is known of what emerged
    ],
)
def test_the_step_past_which_nothing_speaks_for_training_on(changes: dict, latest: int | None) -> None:
    verdict = judge(made_trends(RISING, **changes))
    assert verdict.stop_by == latest
    assert verdict.sentence.startswith(f"Stop by step {latest}: ") is (latest is not None)


def test_every_number_of_a_sentence_has_its_step() -> None:
    """A loss that is lower after the sparsest interval, but not clearly, is not shown as one of the interval."""
    low, lower = 1.0, 0.995  # at step 8, which is the one to use, and at step 12
    verdict = judge(made_trends([2.0, 1.8, 1.6, 1.4, 1.2, low, lower, 1.3, 1.9]))
    assert verdict.headline == "Stop at step 8"
    assert "does not clearly improve after it (1.000 at 8 → 0.995 at 12;" in verdict.sentence
    assert "; from step 12 on it rises (0.995 at 12 → 1.900 at 24;" in verdict.sentence


def test_a_checkpoint_that_accuracy_speaks_for_is_named_with_the_accuracy() -> None:
    verdict = judge(made_trends(RISING, accuracy=[0.1] * 6 + [0.5, 0.7, 0.6], accuracy_rows=400))
    begins = "Stop by step 16: accuracy improves until it (0.500 at 12 → 0.700 at 16), but held-out loss rises from "
    assert verdict.sentence.startswith(f"{begins}step 12 on (0.900 at 12 → 1.600 at 24;")


def test_one_evaluation_is_no_course() -> None:
    verdict = judge(replace(made_trends([NAN] * 9, sparsest=NOWHERE), measured={"eval": [(8, 0.9)]}))
    assert verdict.sentence.endswith("Held-out loss was measured once, at step 8 (0.900).")
    assert "Held-out loss: measured once, at step 8 (0.900), so that no change of it is known." in verdict.evidence
    assert not any(word in line for line in (verdict.sentence, *verdict.evidence) for word in ("lowest", "falls"))


def test_accuracy_that_improves_beyond_its_error_speaks_against_stopping() -> None:
    made = made_trends([2.0, 1.8, 1.6, 1.4, 1.2, 1.2, 1.2, 1.2, 1.2], accuracy=[0.1] * 4 + [0.4, 0.4, 0.6, 0.5, 0.5])
    for rows, agreement in ((400, Agreement.CONFLICT), (20, Agreement.AGREE)):
        assert judge(replace(made, accuracy_rows=rows)).agreement is agreement


def test_stages_follow_the_events_and_the_loss() -> None:
    """Between the sparsest step and the turn of the held-out loss nothing is called overfitting."""
    found = stages(STEPS, Events(NOWHERE, AT_5, AT_12), judge(made_trends(RISING)))
    assert found == [Stage.DENOISING] * 5 + [Stage.LEARNING] * 2 + [Stage.OVERFITTING] * 2
    assert stages(STEPS, Events(NOWHERE, NOWHERE, NOWHERE), None) == [None] * 9
    accurate = judge(made_trends(RISING, accuracy=[0.1] * 6 + [0.5, 0.7, 0.6], accuracy_rows=400))
    assert accurate.stop_by == 16  # loss is lowest at 12: what the verdict still allows is no overfitting
    assert stages(STEPS, Events(NOWHERE, AT_5, AT_12), accurate)[-2:] == [Stage.LEARNING, Stage.OVERFITTING]


@pytest.mark.parametrize(
    ("losses", "step"), [([3, 2, 1], None), ([3, 1, 2, 2, 2], 4), ([1, 2, 2, 0, 1, 1], None), ([1, 1, 1, 1], 3)]
)
def test_patience(losses: list[float], step: int | None) -> None:
    assert patience_step(list(enumerate(losses))) == step


# How often noise decides.

RUNS = 200


def test_a_loss_that_stays_is_hardly_ever_said_to_improve_or_to_rise() -> None:
    improves = rises = 0
    for seed in range(RUNS):
        steps, values, turn = simulate_loss(np.random.default_rng(3000 + seed), LossKind.FLAT)
        change = loss_improves_after(Curve(steps, values), int(steps[turn - 1]), int(steps[turn + 1]))
        improves += change is not None and change.is_clear
        rises += loss_rises(Curve(steps, values)).is_clear
    assert max(improves, rises) <= 0.06 * RUNS


@pytest.mark.parametrize(("kind", "improves"), [(LossKind.UP_70, False), (LossKind.DOWN_20, True)])
def test_a_real_change_of_the_loss_is_seen(kind: LossKind, improves: bool) -> None:
    seen = 0
    for seed in range(50):
        steps, values, turn = simulate_loss(np.random.default_rng(4000 + seed), kind)
        curve = Curve(steps, values)
        change = loss_improves_after(curve, int(steps[turn - 1]), int(steps[turn + 1])) if improves else None
        seen += (change if improves else loss_rises(curve)).is_clear
    assert seen >= 47


def test_flat_accuracy_is_hardly_ever_called_better() -> None:
    said = 0
    for seed in range(RUNS):
        values = np.random.default_rng(5000 + seed).binomial(400, 0.5, 10) / 400
        said += more_accurate_after(Curve(np.arange(10), values, rows=400), 1).is_clear
    assert said <= 0.05 * RUNS
