"""What could have been said at each checkpoint of a run from the checkpoints up to it, and nothing later.

The online form of the verdict. A run that is looked at after every checkpoint has many chances to show by accident what
is looked for, so that every test asks for more here (`looks`): over the whole run a false claim stays below 5 %.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from sftscope.analysis.conclusions.paired import draw_all
from sftscope.analysis.conclusions.verdict import Verdict, judge
from sftscope.analysis.course.events import Events, events_so_far
from sftscope.analysis.run.run_history import ACCURACY
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, Trends, trends


@dataclass(frozen=True)
class Said:
    """eval_loss, accuracy: held-out, at the step itself; NaN where they were not measured."""

    step: int
    eval_loss: float
    accuracy: float
    events: Events
    verdict: Verdict


def as_it_went(evolution: Evolution) -> list[Said]:
    """One for each extracted step, in order: T of them.

    What a step has does not change when later steps arrive, except under a rule for τ, or with a noise floor, that
    looks at all steps: where a set differs for that reason, the curves are recomputed.
    """
    history, said = evolution.history, []
    if history.held_out is not None:
        draw_all(history.held_out)
    whole = trends(evolution, Selection(history.steps.size - 1))
    undefined = [float("nan")] * history.steps.size
    for last, step in enumerate(history.steps.tolist()):
        past, events = history.until(last), events_so_far(history.until(last))
        then = replace(evolution, history=past)
        so_far = (
            _cut(whole, events, step)
            if _has_same_sets(then, evolution)
            else trends(then, Selection(last), events=events)
        )
        eval_loss, accuracy = (history.losses.get(name, undefined)[last] for name in ("eval", ACCURACY))
        said.append(
            Said(step, float(eval_loss), float(accuracy), so_far.events, judge(so_far, past.held_out, looks=True))
        )
    return said


def _has_same_sets(past: Evolution, whole: Evolution) -> bool:
    """Whether all sets of the steps that `past` has are those of the whole run."""
    return all(
        np.array_equal(now := past.kept(p, loose=loose), whole.kept(p, loose=loose)[: now.size])
        for p in range(len(past.history.probes))
        for loose in (False, True)
    )


def _cut(whole: Trends, events: Events, last: int) -> Trends:
    """The curves up to the step `last`."""
    count = whole.steps.index(last) + 1

    def curves(part: Any) -> Any:
        if isinstance(part, list):
            return part[:count]
        if isinstance(part, dict):
            return {name: curves(each) for name, each in part.items()}
        return replace(part, **{each.name: curves(getattr(part, each.name)) for each in fields(part)})

    kept = ("base_step", "events", "measured", "accuracy_rows", "same_weights")
    cut = {each.name: curves(getattr(whole, each.name)) for each in fields(whole) if each.name not in kept}
    measured = {name: [pair for pair in pairs if pair[0] <= last] for name, pairs in whole.measured.items()}
    same = {step: first for step, first in whole.same_weights.items() if step <= last}
    return replace(whole, **cut, events=events, measured=measured, same_weights=same)
