"""When should this SFT have stopped? Held-out loss and interactions side by side, and what both say.

A pure function of the trends and the held-out rows. Held-out loss decides whether training on was worth it, the
interactions say what it did: removal over, sparsest, emergence (`events`). It never says "stop" while held-out loss or
accuracy clearly improves, and "clearly" is a test (`held_out`), not a threshold on a noisy number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sftscope.analysis.conclusions.held_out import (
    Curve,
    Difference,
    loss_improves_after,
    loss_rises,
    more_accurate_after,
    patience_step,
)
from sftscope.analysis.course.events import Event, Events
from sftscope.analysis.run.run_history import ACCURACY
from sftscope.analysis.sets.evolution import Change
from sftscope.analysis.sets.views import Trends
from sftscope.store.held_out_file import HeldOutRows

GROWN = 1.2  # times as much strength has emerged by the last step: less is not what a rising loss is put down to
LEAST_EMERGED = 0.05  # of the strength at the start; of less, no ratio is formed


class Agreement(StrEnum):
    """What interactions and held-out loss say of the moment to stop."""

    AGREE = "agree"
    CONFLICT = "conflict"
    NOT_ENOUGH = "not enough evidence"


@dataclass(frozen=True)
class HeldOut:
    """What held-out loss says alone, in nats per response token.

    best_step, best_loss: its minimum. patience_step: where early stopping would have given up, None
    where it would not. improves_after: whether it clearly improves after the sparsest step's interval,
    None where there is no such step or nothing to compare. turn_step: after it the loss clearly rises, None where
    it does not.
    """

    best_step: int
    best_loss: float
    last_step: int
    last_loss: float
    patience_step: int | None
    improves_after: bool | None
    turn_step: int | None


@dataclass(frozen=True)
class Verdict:
    """The answer in words: `sentence` begins with what to do.

    stop_step: where both agree; of the checkpoints that interactions cannot tell from the sparsest one, that with the
    lowest held-out loss. latest_step: elsewhere, the one past which nothing speaks for training on; None where
    there is none yet. held_out: None without held-out loss.
    """

    agreement: Agreement
    sentence: str
    evidence: tuple[str, ...]
    stop_step: int | None
    latest_step: int | None
    held_out: HeldOut | None


@dataclass(frozen=True, eq=False)
class _Case:
    """What is judged: the events, the two held-out curves, None where there is none, and soft emerged by step."""

    events: Events
    loss: Curve | None
    accuracy: Curve | None
    steps: Sequence[int]
    emerged: Sequence[float]
    looks: bool

    def grown_since(self, step: int) -> float:
        """How many times as much strength has emerged by the last step as at the checkpoint before or at `step`."""
        before, now = self._emerged_at(step), self.emerged[-1]
        return now / max(before, LEAST_EMERGED) if math.isfinite(before) and math.isfinite(now) else 0.0

    def grown_in_words(self, step: int) -> str:
        """The same as the rest of a sentence."""
        if self._emerged_at(step) < LEAST_EMERGED:
            return f"what emerged has {self.emerged[-1]:.1f} times the strength at the start"
        return f"{self.grown_since(step):.1f} times as much has emerged"

    def checkpoint_near(self, step: int) -> int:
        """The checkpoint nearest to a step at which something was measured; the earlier of two equally near."""
        return min(self.steps, key=lambda at: (abs(at - step), at))

    def _emerged_at(self, step: int) -> float:
        return [value for at, value in zip(self.steps, self.emerged, strict=True) if at <= step or at == self.steps[0]][
            -1
        ]


def judge(trends: Trends, rows: HeldOutRows | None = None, *, looks: bool = False) -> Verdict:
    """The verdict on a run from its trends against the first step.

    rows: what the run measured of each held-out row, where it did. looks: as of `events_of`, for a run that is looked
    at after every checkpoint.
    """
    loss, accuracy = (_curve(trends, name, rows) for name in ("eval", ACCURACY))
    case = _Case(trends.events, loss, accuracy, trends.steps, trends.soft.emerged_mean, looks)
    rise = None if loss is None else loss_rises(loss, looks=looks)
    latest = _latest_step(case, rise)
    agreement, sentence, improves = _compare(case)
    stop = _best_of_sparsest(case) if agreement is Agreement.AGREE else None
    if latest is not None and rise is not None and stop is None:
        sentence = _stop_by(case, latest, rise, sentence if not improves else "")
    held_out = None
    if loss is not None:
        best_step, best_loss = min(loss.pairs, key=lambda pair: pair[1])
        turn = rise.step if rise is not None and rise.is_clear else None
        held_out = HeldOut(best_step, best_loss, *loss.pairs[-1], patience_step(loss.pairs), improves, turn)
    return Verdict(
        agreement, sentence, tuple(_evidence(case, trends, rise)), stop, None if stop is not None else latest, held_out
    )


def in_plain_words(verdict: Verdict, events: Events) -> str:
    """Where to stop, why, how sure that is, and what held-out loss alone would have said: one paragraph."""
    held_out, sparsest = verdict.held_out, events.sparsest
    if held_out is None:
        alone = "No held-out loss was recorded to compare with."
    elif held_out.patience_step is not None:
        alone = f"Early stopping on held-out loss would have ended at step {held_out.patience_step}"
        alone += f" (lowest at {held_out.best_step})."
    else:
        alone = f"Early stopping on held-out loss would not have ended the training (lowest at {held_out.best_step})."
    sure = "" if sparsest.step is None else f" Sparsest at step {sparsest.where}: {sparsest.reason}."
    return f"{verdict.sentence}{sure} {alone}"


def _best_of_sparsest(case: _Case) -> int | None:
    """Of the checkpoints in the sparsest step's interval, that with the lowest held-out loss."""
    sparsest, loss = case.events.sparsest, case.loss
    if sparsest.low is None or sparsest.high is None or loss is None:
        return sparsest.step
    inside = (loss.steps >= sparsest.low) & (loss.steps <= sparsest.high) & np.isin(loss.steps, case.steps)
    return int(loss.steps[inside][loss.values[inside].argmin()]) if inside.any() else sparsest.step


def _stop_by(case: _Case, latest: int, rise: Difference, otherwise: str) -> str:
    """otherwise: what would be said without this step; empty where held-out loss improves after the sparsest one."""
    sparsest = case.events.sparsest
    lowest = "" if rise.step in case.steps else f", near step {rise.step}, where held-out loss is lowest"
    why = f"after it, held-out loss rises ({_from_to(rise)}; {rise.sure})"
    if sparsest.low is not None and rise.step < sparsest.low:
        rest = f"Interactions are sparsest only later, at step {sparsest.where}: the two disagree"
        return f"Stop by step {latest}{lowest}: {why}. {rest}."
    why += f" and {case.grown_in_words(latest)}"
    if sparsest.step is not None and otherwise:
        rest = otherwise.removesuffix(".")
    elif sparsest.step is not None:
        rest = f"At step {sparsest.where}, where interactions are sparsest, it still improves: no reason to stop there"
    else:
        rest = f"No sparsest step: {sparsest.reason}"
    return f"Stop by step {latest}{lowest}: {why}. {rest}."


def _latest_step(case: _Case, rise: Difference | None) -> int | None:
    """The last checkpoint that held-out loss or accuracy speaks for, where loss clearly rises and more emerges.

    None where that is not so. Where the lowest loss lies before the sparsest step the rise alone decides.
    """
    sparsest = case.events.sparsest
    if rise is None or not rise.is_clear:
        return None
    is_early = sparsest.low is not None and rise.step < sparsest.low
    if not is_early and (case.events.emergence.index is None or case.grown_since(rise.step) < GROWN):
        return None
    assert case.loss is not None
    for step in case.loss.steps[case.loss.steps >= rise.step].tolist():
        better = None if case.accuracy is None else more_accurate_after(case.accuracy, step, looks=case.looks)
        if better is None or not better.is_clear:
            return None if step == case.loss.steps[-1] else case.checkpoint_near(step)
    return None


def _compare(case: _Case) -> tuple[Agreement, str, bool | None]:
    """Agreement, its sentence, and whether held-out loss clearly improves after the sparsest step."""
    sparsest, loss = case.events.sparsest, case.loss
    if sparsest.step is None or sparsest.low is None or sparsest.high is None:
        return Agreement.NOT_ENOUGH, f"Not enough evidence to stop: {_without_stages(case)}", None
    over = f"interactions are sparsest at step {sparsest.where}"
    improves = None if loss is None else loss_improves_after(loss, sparsest.low, sparsest.high, looks=case.looks)
    if loss is None or improves is None:
        return Agreement.NOT_ENOUGH, f"Not enough evidence to stop: {over}, but {_missing(loss, sparsest.high)}.", None
    if not improves.is_tested:
        sentence = f"Not enough evidence to stop: {over}, but held-out loss cannot be judged ({improves.sure})."
        return Agreement.NOT_ENOUGH, sentence, None
    if improves.is_clear:
        until = "still improves" if improves.later_step == loss.steps[-1] else f"improves until {improves.later_step}"
        sentence = f"Do not stop at step {sparsest.step}: {over}, but held-out loss {until} ({_from_to(improves)}; "
        return Agreement.CONFLICT, f"{sentence}{improves.sure}).", True
    better = None if case.accuracy is None else more_accurate_after(case.accuracy, sparsest.high, looks=case.looks)
    if better is not None and better.is_clear:
        sentence = f"Do not stop at step {sparsest.step}: {over} and held-out loss does not clearly improve after it, "
        sentence += f"but accuracy does, until {better.later_step} ({_from_to(better)}; {better.sure})."
        return Agreement.CONFLICT, sentence, False
    rise = loss_rises(loss, looks=case.looks)
    is_clear = rise is not None and rise.is_clear
    if rise is not None and is_clear and rise.step < sparsest.low:
        sentence = f"Do not stop at step {sparsest.step}: {over}, but held-out loss is lowest before that, at step "
        return Agreement.CONFLICT, f"{sentence}{rise.step} ({_from_to(rise)}).", False
    stop = _best_of_sparsest(case)
    sentence = f"Stop at step {stop}: {over}, "
    sentence += "" if stop == sparsest.step else f"held-out loss is lowest at {stop} of these, "
    if rise is not None and is_clear:
        return Agreement.AGREE, f"{sentence}and after it held-out loss rises ({_from_to(rise)}; {rise.sure}).", False
    sentence += "and held-out loss does not clearly improve after it"
    return Agreement.AGREE, f"{sentence} ({_from_to(improves)}; {improves.sure}).", False


def _missing(loss: Curve | None, high: int) -> str:
    """Why held-out loss says nothing of what came after the sparsest step, whose interval ends at the step `high`."""
    if loss is None:
        return "no held-out loss was recorded"
    if loss.steps[-1] <= high:
        return "no held-out loss was measured after the checkpoints that could be the sparsest"
    return "no held-out loss was measured there"


def _without_stages(case: _Case) -> str:
    """What can be said without a sparsest step, and without the story of denoising."""
    reason = f"{case.events.sparsest.reason}"
    if case.loss is None:
        return f"{reason}, and no held-out loss was recorded."
    step, value = min(case.loss.pairs, key=lambda pair: pair[1])
    return f"{reason}. Held-out loss is lowest at step {step} ({value:.3f})."


def _evidence(case: _Case, trends: Trends, rise: Difference | None) -> list[str]:
    lines = [
        _about("Removal over", case.events.removal),
        _about("Sparsest", case.events.sparsest),
        _about("Emergence", case.events.emergence),
        _about_loss(case.loss, rise),
        _about_classes(trends),
    ]
    return [*lines, *_about_strength(trends, case.events.sparsest.index)]


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
    gave_up = patience_step(loss.pairs)
    patience = f"would {'not ' if gave_up is None else ''}have ended the training"
    patience += "" if gave_up is None else f" at step {gave_up}"
    last_step, last = loss.pairs[-1]
    trend = "which is the last step" if step == last_step else f"{last:.3f} at step {last_step}"
    if rise is not None and step != last_step:
        trend += f", {'a clear' if rise.is_clear else 'no clear'} rise ({rise.sure})"
    return f"Held-out loss: lowest at step {step} ({value:.3f}), {trend}; early stopping {patience}."


def _curve(trends: Trends, name: str, each: HeldOutRows | None) -> Curve | None:
    pairs = [pair for pair in trends.measured.get(name, []) if pair[0] not in trends.same_weights]
    if not pairs:
        return None
    each = None if each is None else each.without(trends.same_weights)
    steps, values = zip(*pairs, strict=True)
    rows = trends.accuracy_rows if name == ACCURACY else 0
    return Curve(np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64), rows, each)


def _from_to(change: Difference) -> str:
    return f"{change.value:.3f} → {change.later:.3f}"
