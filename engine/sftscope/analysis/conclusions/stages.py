"""What each checkpoint of a run belongs to: denoising, learning, overfitting. Where nothing is known, to nothing."""

from collections.abc import Sequence
from enum import StrEnum

from sftscope.analysis.conclusions.verdict import Verdict
from sftscope.analysis.course.events import Events


class Stage(StrEnum):
    """Denoising lasts until the sparsest step; overfitting begins after the lowest held-out loss, once that clearly
    rises; what lies between the two is learning."""

    DENOISING = "denoising"
    LEARNING = "learning"
    OVERFITTING = "overfitting"


def stages(steps: Sequence[int], events: Events, verdict: Verdict | None) -> list[Stage | None]:
    """The stage of each of the steps (T,)."""
    sparsest = events.sparsest.step
    turn = verdict.held_out.turn_step if verdict is not None and verdict.held_out is not None else None
    return [_stage(step, sparsest, turn) for step in steps]


def _stage(step: int, sparsest: int | None, turn: int | None) -> Stage | None:
    if sparsest is not None and step <= sparsest:
        return Stage.DENOISING
    if turn is not None and step > turn:
        return Stage.OVERFITTING
    return Stage.LEARNING if sparsest is not None else None
