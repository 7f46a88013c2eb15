"""When should this SFT have stopped? Interactions and held-out loss side by side, and what both say.

A pure function of the trends. It never says "stop" while held-out loss clearly improves after
denoising has ended: the end of denoising is not by itself the moment to stop.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sftscope.analysis.run.run_history import ACCURACY
from sftscope.analysis.sets.boundary import Boundary
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.views import Trends

CLEAR_LOSS = 0.02  # a smaller relative change of held-out loss is not called an improvement
CLEAR_ACCURACY = 0.02  # a smaller difference of held-out accuracy (a share of 1) is not called one
PATIENCE = 3  # checkpoints without a new minimum after which early stopping gives up
GROWTH = 2.0  # this many times as many newly emerged interactions are much more
CANCELLING = 1 / 3  # below this uncancelled ratio a class is called noise-like


class Agreement(StrEnum):
    """What interactions and held-out loss say of the moment to stop."""

    AGREE = "agree"
    CONFLICT = "conflict"
    NOT_ENOUGH = "not enough evidence"


@dataclass(frozen=True)
class HeldOut:
    """What held-out loss says alone, in nats per response token.

    best_step, best_loss: its minimum. patience_step: where early stopping would have given up, None
    where it would not. improves_after: whether it clearly improves after the boundary's interval,
    None where there is no boundary or nothing to compare.
    """

    best_step: int
    best_loss: float
    last_step: int
    last_loss: float
    patience_step: int | None
    improves_after: bool | None


@dataclass(frozen=True)
class Verdict:
    """The answer in words.

    stop_step: only where both agree. latest_step: elsewhere, the one past which nothing speaks for
    training on; None where there is none yet. held_out: None without held-out loss.
    """

    agreement: Agreement
    sentence: str
    evidence: tuple[str, ...]
    stop_step: int | None
    latest_step: int | None
    held_out: HeldOut | None


def judge(trends: Trends) -> Verdict:
    """The verdict on a run from its trends against the first step."""
    measured = _measured(trends, "eval")
    evidence = [_about_boundary(trends), _about_loss(measured), *_about_emerged(trends)]
    agreement, sentence, improves = _compare(trends, measured)
    held_out = None
    if measured:
        best_step, best_loss = min(measured, key=lambda pair: pair[1])
        held_out = HeldOut(best_step, best_loss, *measured[-1], patience_step(measured), improves)
    stop = trends.boundary.step if agreement is Agreement.AGREE else None
    latest = None if agreement is Agreement.AGREE else latest_step(trends)
    if latest is not None:
        ratio = trends.classes[Change.EMERGED].uncancelled_mean[-1]
        sentence = (
            f"Stop by step {latest}: after it, held-out loss rises and what emerged is noise-like "
            f"(uncancelled ratio {ratio:.2f}). {sentence}"
        )
    return Verdict(agreement, sentence, tuple(evidence), stop, latest, held_out)


def in_plain_words(verdict: Verdict, boundary: Boundary) -> str:
    """Where to stop, why, how sure that is, and what held-out loss alone would have said: one paragraph."""
    held_out = verdict.held_out
    if held_out is None:
        alone = "No held-out loss was recorded to compare with."
    elif held_out.patience_step is not None:
        alone = (
            f"Held-out loss alone would have stopped at step {held_out.patience_step} (lowest at {held_out.best_step})"
        )
        alone += "." if boundary.step is None else f"; interactions alone at step {boundary.step}."
    else:
        alone = f"Held-out loss alone would not have stopped (lowest at {held_out.best_step})"
        alone += "." if boundary.step is None else f"; interactions alone at step {boundary.step}."
    sure = ""
    if boundary.step is not None:
        sure = f" The end of denoising lies in steps {boundary.low} to {boundary.high} with 95 % confidence: "
        sure += f"{boundary.reason}."
    return f"{verdict.sentence}{sure} {alone}"


def patience_step(measured: Sequence[tuple[int, float]], patience: int = PATIENCE) -> int | None:
    """The step at which `patience` checkpoints in a row brought no new minimum; None where that never is."""
    best, waited = math.inf, 0
    for step, loss in measured:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            return step
    return None


def latest_step(trends: Trends) -> int | None:
    """The last checkpoint that held-out loss or accuracy speaks for, where all three turn after it.

    Held-out loss must have clearly risen from its minimum to the last step, what has emerged by the last
    step must be noise-like and much more than at the minimum, and no later checkpoint be clearly more
    accurate. None where that is not so, or where the minimum lies before the end of denoising; whether
    that end can be determined does not matter.
    """
    measured, boundary = _measured(trends, "eval"), trends.boundary
    if not measured:
        return None
    best_step, best = _lowest(measured)
    emerged = trends.classes[Change.EMERGED]
    more = emerged.count_mean[-1] > GROWTH * emerged.count_mean[trends.steps.index(best_step)]
    if not (more and emerged.uncancelled_mean[-1] < CANCELLING):
        return None
    accuracies = _measured(trends, ACCURACY)
    if (boundary.step is not None and best_step < boundary.step) or not _clearly_below(best, measured[-1][1]):
        return None
    later = [step for step, _ in measured if step >= best_step and not _more_accurate(accuracies, step)]
    return later[0] if later and later[0] != measured[-1][0] else None


def _compare(trends: Trends, measured: Sequence[tuple[int, float]]) -> tuple[Agreement, str, bool | None]:
    """Agreement, its sentence, and whether held-out loss clearly improves after the boundary."""
    boundary = trends.boundary
    if boundary.step is None or boundary.low is None or boundary.high is None:
        sentence = f"Not enough evidence: the end of denoising cannot be determined; {boundary.reason}."
        return Agreement.NOT_ENOUGH, sentence, None
    low, high = min(boundary.low, boundary.step), max(boundary.high, boundary.step)
    before = [pair for pair in measured if pair[0] < low]
    within = [pair for pair in measured if low <= pair[0] <= high]
    after = [pair for pair in measured if pair[0] > high]
    over = f"denoising ended at step {boundary.step}"
    if not within or not after:
        missing = "at the end of denoising" if not within else "after it"
        sentence = f"Not enough evidence: {over}, but no held-out loss was measured {missing}."
        return Agreement.NOT_ENOUGH, sentence, None
    (_, here), (later_step, later) = _lowest(within), _lowest(after)
    if _clearly_below(later, here):
        until = "still improves" if later_step == measured[-1][0] else f"improves until step {later_step}"
        sentence = (
            f"Conflict: {over}, but held-out loss {until} ({here:.3f} → {later:.3f}); "
            "interactions alone are no reason to end the training there."
        )
        return Agreement.CONFLICT, sentence, True
    accuracies = [pair for pair in _measured(trends, ACCURACY) if pair[0] >= low]
    if better := _more_accurate(accuracies, high):
        sentence = (
            f"Conflict: {over} and held-out loss does not clearly improve after it, but held-out accuracy does "
            f"({better[0]:.3f} → {better[1]:.3f}); interactions alone are no reason to end the training there."
        )
        return Agreement.CONFLICT, sentence, False
    if before and _clearly_below(_lowest(before)[1], here):
        earlier_step, earlier = _lowest(before)
        sentence = (
            f"Conflict: {over}, but held-out loss was lowest before that, at step {earlier_step} "
            f"({earlier:.3f}, then {here:.3f})."
        )
        return Agreement.CONFLICT, sentence, False
    sentence = f"Agree: stop at step {boundary.step}; {over}, and held-out loss does not clearly improve after it."
    return Agreement.AGREE, sentence, False


def _measured(trends: Trends, name: str) -> list[tuple[int, float]]:
    """Step and value of what was measured under this name at the checkpoints."""
    values = trends.losses.get(name, [])
    return [(step, value) for step, value in zip(trends.steps, values, strict=False) if math.isfinite(value)]


def _more_accurate(accuracies: Sequence[tuple[int, float]], high: int) -> tuple[float, float] | None:
    """The best accuracy up to the step `high` and after it, where the latter is clearly larger."""
    here = [value for step, value in accuracies if step <= high]
    later = [value for step, value in accuracies if step > high]
    clear = here and later and max(later) >= max(here) + CLEAR_ACCURACY
    return (max(here), max(later)) if clear else None


def _lowest(measured: Sequence[tuple[int, float]]) -> tuple[int, float]:
    return min(measured, key=lambda pair: pair[1])


def _clearly_below(loss: float, reference: float) -> bool:
    return loss < reference - CLEAR_LOSS * abs(reference)


def _about_boundary(trends: Trends) -> str:
    boundary = trends.boundary
    if boundary.step is None:
        return f"End of denoising: none; {boundary.reason}."
    return (
        f"End of denoising: step {boundary.step}, 95 % bootstrap interval "
        f"{boundary.low}–{boundary.high}; {boundary.reason}."
    )


def _about_loss(measured: Sequence[tuple[int, float]]) -> str:
    if not measured:
        return "Held-out loss: none was recorded."
    best_step, best = _lowest(measured)
    last_step, last = measured[-1]
    gave_up = patience_step(measured)
    patience = (
        f"early stopping with a patience of {PATIENCE} checkpoints would have ended at step {gave_up}"
        if gave_up is not None
        else f"early stopping with a patience of {PATIENCE} checkpoints would not have ended the training"
    )
    trend = "still at its lowest at the last step" if best_step == last_step else f"{last:.3f} at step {last_step}"
    return f"Held-out loss alone: lowest at step {best_step} ({best:.3f}), {trend}; {patience}."


def _about_emerged(trends: Trends) -> list[str]:
    """What the newly emerged interactions of the last step are like."""
    emerged, preserved = trends.classes[Change.EMERGED], trends.classes[Change.PRESERVED]
    count, ratio = emerged.count_mean[-1], emerged.uncancelled_mean[-1]
    if math.isnan(ratio):
        return []
    likeness = "noise-like, they mostly cancel" if ratio < CANCELLING else "not noise-like, they do not cancel"
    order, kept_order = _number(emerged.order_mean[-1]), _number(preserved.order_mean[-1])
    kept, kept_ratio = preserved.count_mean[-1], _number(preserved.uncancelled_mean[-1])
    return [
        f"Newly emerged at step {trends.steps[-1]}: {count:.1f} per probe, mean order {order}, "
        f"uncancelled ratio {ratio:.2f} ({likeness}); preserved: {kept:.1f} per probe, "
        f"mean order {kept_order}, uncancelled ratio {kept_ratio}."
    ]


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}"
