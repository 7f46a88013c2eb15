"""What could have been said at each checkpoint of a run from the checkpoints up to it, and nothing later.

The online form of the verdict: τ is what its rule gives for the steps so far, as in a run that is still training.
"""

from dataclasses import dataclass

from sftscope.analysis.conclusions.verdict import Verdict, judge
from sftscope.analysis.run.run_history import ACCURACY
from sftscope.analysis.sets.boundary import Boundary
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, trends


@dataclass(frozen=True)
class Said:
    """eval_loss, accuracy: held-out, at the step itself; NaN where they were not measured."""

    step: int
    eval_loss: float
    accuracy: float
    boundary: Boundary
    verdict: Verdict


def as_it_went(evolution: Evolution) -> list[Said]:
    """One for each extracted step, in order: T of them. The cost grows with T²."""
    history, said = evolution.history, []
    undefined = [float("nan")] * history.steps.size
    for last, step in enumerate(history.steps.tolist()):
        so_far = trends(Evolution(history.until(last), evolution.rule), Selection(last))
        eval_loss, accuracy = (history.losses.get(name, undefined)[last] for name in ("eval", ACCURACY))
        said.append(Said(step, float(eval_loss), float(accuracy), so_far.boundary, judge(so_far)))
    return said
