"""What each checkpoint of a run belongs to: denoising, learning, overfitting. Where nothing is known, to nothing."""

from collections.abc import Sequence
from enum import StrEnum

from sftscope.analysis.conclusions.verdict import Verdict
from sftscope.analysis.course.events import Events


class Stage(StrEnum):
    """Denoising lasts until the sparsest step. Overfitting begins once held-out loss clearly rises: after its lowest
    point, and after the step that the verdict says to stop at or by, where accuracy speaks for a later one. What lies
    between the two is learning."""

    DENOISING = "denoising"
    LEARNING = "learning"
    OVERFITTING = "overfitting"


def stages(steps: Sequence[int], events: Events, verdict: Verdict | None) -> list[Stage | None]:
    """The stage of each of the steps (T,)."""
    sparsest = events.sparsest.step
    return [_stage(step, sparsest, _last_before_overfitting(verdict)) for step in steps]


def _last_before_overfitting(verdict: Verdict | None) -> int | None:
    """None where nothing is called overfitting."""
    if verdict is None or verdict.held_out is None or verdict.held_out.turn_step is None:
        return None
    named = (verdict.held_out.turn_step, verdict.stop_by)
    return max(step for step in named if step is not None)


def _stage(step: int, sparsest: int | None, last: int | None) -> Stage | None:
    if sparsest is not None and step <= sparsest:
        return Stage.DENOISING
    if last is not None and step > last:
        return Stage.OVERFITTING
    return Stage.LEARNING if sparsest is not None else None
