"""What could have been said at each checkpoint of a run from the checkpoints up to it, and nothing later.

The online form of the verdict. A run that is looked at after every checkpoint has many chances to show by accident what
is looked for, so that every test asks for more here (`looks`): over the whole run a false claim stays below 5 %.
"""

from dataclasses import dataclass, replace

from sftscope.analysis.conclusions.verdict import Verdict, judge
from sftscope.analysis.course.events import Events, events_so_far
from sftscope.analysis.run.run_history import ACCURACY
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, trends


@dataclass(frozen=True)
class Said:
    """eval_loss, accuracy: held-out, at the step itself; NaN where they were not measured."""

    step: int
    eval_loss: float
    accuracy: float
    events: Events
    verdict: Verdict


def as_it_went(evolution: Evolution) -> list[Said]:
    """One for each extracted step, in order: T of them. The cost grows with T²."""
    history, said = evolution.history, []
    undefined = [float("nan")] * history.steps.size
    for last, step in enumerate(history.steps.tolist()):
        past = history.until(last)
        so_far = trends(replace(evolution, history=past), Selection(last), events=events_so_far(past))
        eval_loss, accuracy = (history.losses.get(name, undefined)[last] for name in ("eval", ACCURACY))
        said.append(
            Said(step, float(eval_loss), float(accuracy), so_far.events, judge(so_far, past.held_out, looks=True))
        )
    return said
