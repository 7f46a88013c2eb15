"""What a verdict rests on, a line each: the events, held-out loss, the signs of the classes, strengths."""

import math
from collections.abc import Sequence

from sftscope.analysis.conclusions.held_out import Curve, Difference, patience_step
from sftscope.analysis.course.events import Event
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.views import Trends


def evidence_lines(trends: Trends, loss: Curve | None, rise: Difference | None) -> tuple[str, ...]:
    """loss: held-out loss where it was measured. rise: of it, from its minimum to the last evaluation."""
    events = trends.events
    return (
        _about("Removal over", events.removal),
        _about("Sparsest", events.sparsest),
        _about("Emergence", events.emergence),
        _about_loss(loss, rise),
        _about_classes(trends),
        *_about_strength(trends, events.sparsest.index),
    )


def _about_strength(trends: Trends, sparsest: int | None) -> list[str]:
    """Soft removed and emerged at the sparsest step and the last; nothing where they are undefined."""
    soft, last = trends.soft, len(trends.steps) - 1
    known = [i for i in (sparsest, last) if i is not None and math.isfinite(soft.emerged_mean[i])]
    shares = [
        f"step {trends.steps[i]}: {soft.removed_mean[i]:.2f} removed, {soft.emerged_mean[i]:.2f} emerged" for i in known
    ]
    begin = f"Shares of the strength at step {trends.base_step}, whatever the threshold"
    return [f"{begin}: {'; '.join(shares)}."] if shares else []


def _about(name: str, event: Event) -> str:
    return f"{name}: {f'step {event.where}; ' if event.step is not None else 'none; '}{event.reason}."


def _about_classes(trends: Trends) -> str:
    """How far the signs of each class agree, and how much of what is preserved is no coincidence, at the last step."""
    parts = {
        "removed": trends.classes[Change.REMOVED],
        "preserved": trends.same_sign,
        "emerged": trends.classes[Change.EMERGED],
    }
    signs = [f"{name} {_signed(part.z_mean)} ± {_last(part.z_error)}" for name, part in parts.items()]
    return (
        f"At step {trends.steps[-1]}, z of {', '.join(signs)} (random signs: 0 ± 1 a probe); preserved with the same "
        f"sign: {_last(trends.same_sign.count_mean)} per probe, by chance {_last(trends.same_sign_by_chance)}."
    )


def _signed(values: Sequence[float]) -> str:
    return "undefined" if not values or math.isnan(values[-1]) else f"{values[-1]:+.2f}"


def _last(values: Sequence[float]) -> str:
    return "undefined" if not values or math.isnan(values[-1]) else f"{values[-1]:.2f}"


def _about_loss(loss: Curve | None, rise: Difference | None) -> str:
    if loss is None:
        return "Held-out loss: none was recorded."
    step, value = min(loss.pairs, key=lambda pair: pair[1])
    if len(loss.pairs) == 1:
        return f"Held-out loss: measured once, at step {step} ({value:.3f}), so that no change of it is known."
    gave_up = patience_step(loss.pairs)
    patience = f"would {'not ' if gave_up is None else ''}have ended the training"
    patience += "" if gave_up is None else f" at step {gave_up}"
    last_step, last = loss.pairs[-1]
    trend = f"the last of {len(loss.pairs)} evaluations" if step == last_step else f"{last:.3f} at step {last_step}"
    if rise is not None and step != last_step:
        trend += f", {'a clear' if rise.is_clear else 'no clear'} rise ({rise.sure})"
    return f"Held-out loss: lowest at step {step} ({value:.3f}), {trend}; early stopping {patience}."
