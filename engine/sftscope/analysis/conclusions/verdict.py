"""When should this SFT have stopped? Held-out loss and interactions side by side, and what both say.

A pure function of the trends and the held-out rows. Held-out loss decides whether training on was worth it, the
interactions say what it did: removal over, sparsest, emergence (`events`). It never says "stop" while held-out loss or
accuracy clearly improves, and "clearly" is a test (`held_out`), not a threshold on a noisy number.

Whatever shows a verdict shows this object: its sentence as it is, its fields by their names.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from weakref import WeakKeyDictionary

import numpy as np

from sftscope.analysis.conclusions.evidence import evidence_lines
from sftscope.analysis.conclusions.held_out import (
    Curve,
    Difference,
    loss_improves_after,
    loss_rises,
    more_accurate_after,
    patience_step,
)
from sftscope.analysis.course.events import Events, events_so_far
from sftscope.analysis.run.run_history import ACCURACY
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import Selection, Trends, trends
from sftscope.store.held_out_file import HeldOutRows

GROWN = 1.2  # times as much strength has emerged by the last step: less is not what a rising loss is put down to
LEAST_EMERGED = 0.05  # of the strength at the start; of less, no ratio is formed
_NOT_ENOUGH = "Not enough evidence to stop: "


class Decision(StrEnum):
    """What to do."""

    STOP_AT = "stop at"
    STOP_BY = "stop by"
    DO_NOT_STOP = "do not stop"
    NOT_ENOUGH = "not enough evidence"


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

    decision: what to do. stop_by: the checkpoint to stop at or by, and to use; None where there is none yet. Stop at:
    of the checkpoints that interactions cannot tell from the sparsest one, that with the lowest held-out loss. Stop
    by: the one past which nothing speaks for training on. past_stop: whether the run has checkpoints after it.
    held_out: None without held-out loss.
    """

    decision: Decision
    stop_by: int | None
    past_stop: bool
    agreement: Agreement
    sentence: str
    evidence: tuple[str, ...]
    held_out: HeldOut | None

    @property
    def headline(self) -> str:
        """What to do, as the sentence begins: "Stop by step 48", "Not enough evidence to stop"."""
        return self.sentence.partition(":")[0]


_FOUND: WeakKeyDictionary[Evolution, dict[bool, Verdict]] = WeakKeyDictionary()  # every view asks for it


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
            much = f"what emerged has {self.emerged[-1]:.1f} times the strength at the start"
        else:
            much = f"{self.grown_since(step):.1f} times as much has emerged"
        return f"by step {self.steps[-1]}, {much}"

    def more_accurate_by(self, step: int, end: int) -> str:
        """From the best accuracy up to `step` to the best up to `end`, in words; empty where none is better."""
        pairs = [] if self.accuracy is None else self.accuracy.pairs
        before, until = ([each for each in pairs if each[0] <= at] for at in (step, end))
        if not before:
            return ""
        first, later = (max(part, key=lambda each: each[1]) for part in (before, until))
        return f"{first[1]:.3f} at {first[0]} → {later[1]:.3f} at {later[0]}" if later[1] > first[1] else ""

    def checkpoint_near(self, step: int) -> int:
        """The checkpoint nearest to a step at which something was measured; the earlier of two equally near."""
        return min(self.steps, key=lambda at: (abs(at - step), at))

    def _emerged_at(self, step: int) -> float:
        return [value for at, value in zip(self.steps, self.emerged, strict=True) if at <= step or at == self.steps[0]][
            -1
        ]


def verdict_of(evolution: Evolution, *, looks: bool = False) -> Verdict:
    """The verdict on a run: over all probes, against its first extracted step.

    looks: as of `judge`.
    """
    found, history = _FOUND.setdefault(evolution, {}), evolution.history
    if looks not in found:
        events = events_so_far(history) if looks else None
        over_time = trends(evolution, Selection(history.steps.size - 1), events=events)
        found[looks] = judge(over_time, history.held_out, looks=looks)
    return found[looks]


def judge(trends: Trends, rows: HeldOutRows | None = None, *, looks: bool = False) -> Verdict:
    """The verdict on a run from its trends over all probes against the first step.

    rows: what the run measured of each held-out row, where it did. looks: as of `events_of`, for a run that is looked
    at after every checkpoint.
    """
    loss, accuracy = (_curve(trends, name, rows) for name in ("eval", ACCURACY))
    case = _Case(trends.events, loss, accuracy, trends.steps, trends.soft.emerged_mean, looks)
    rise = None if loss is None else loss_rises(loss, looks=looks)
    agreement, sentence, improves = _compare(case, rise)
    decision = {
        Agreement.AGREE: Decision.STOP_AT,
        Agreement.CONFLICT: Decision.DO_NOT_STOP,
        Agreement.NOT_ENOUGH: Decision.NOT_ENOUGH,
    }[agreement]
    stop_by = _best_of_sparsest(case) if decision is Decision.STOP_AT else _latest_step(case, rise)
    if stop_by is not None and rise is not None and decision is not Decision.STOP_AT:
        decision, sentence = Decision.STOP_BY, _stop_by(case, stop_by, rise, sentence, improves)
    held_out = None
    if loss is not None:
        best_step, best_loss = min(loss.pairs, key=lambda pair: pair[1])
        turn = rise.step if rise is not None and rise.is_clear else None
        clearly = None if improves is None else improves.is_clear
        held_out = HeldOut(best_step, best_loss, *loss.pairs[-1], patience_step(loss.pairs), clearly, turn)
    past = stop_by is not None and trends.steps[-1] > stop_by
    return Verdict(decision, stop_by, past, agreement, sentence, evidence_lines(trends, loss, rise), held_out)


def _best_of_sparsest(case: _Case) -> int | None:
    """Of the checkpoints in the sparsest step's interval, that with the lowest held-out loss."""
    sparsest, loss = case.events.sparsest, case.loss
    if sparsest.low is None or sparsest.high is None or loss is None:
        return sparsest.step
    inside = (loss.steps >= sparsest.low) & (loss.steps <= sparsest.high) & np.isin(loss.steps, case.steps)
    return int(loss.steps[inside][loss.values[inside].argmin()]) if inside.any() else sparsest.step


def _stop_by(case: _Case, stop_by: int, rise: Difference, otherwise: str, improves: Difference | None) -> str:
    """otherwise: what would be said without this step. improves: of held-out loss after the sparsest step."""
    sparsest = case.events.sparsest
    why = _why_by(case, stop_by, rise)
    if sparsest.low is not None and rise.step < sparsest.low:
        rest = f"Interactions are sparsest only later, at step {sparsest.where}: the two disagree"
        return f"Stop by step {stop_by}: {why}. {rest}."
    why += f" and {case.grown_in_words(stop_by)}"
    if sparsest.step is None:
        rest = f"No sparsest step: {sparsest.reason}"
    elif improves is not None and improves.is_clear:
        rest = f"At step {sparsest.where}, where interactions are sparsest, it still improves ({_from_to(improves)}): "
        rest += "no reason to stop there"
    else:
        said = otherwise.removeprefix(_NOT_ENOUGH).removesuffix(".")
        rest = said[:1].upper() + said[1:]
    return f"Stop by step {stop_by}: {why}. {rest}."


def _why_by(case: _Case, stop_by: int, rise: Difference) -> str:
    """Why this checkpoint is the last that held-out loss or accuracy speaks for."""
    if stop_by == rise.step:
        return f"after it, held-out loss rises {_sure(rise)}"
    if stop_by > rise.step and (gain := case.more_accurate_by(rise.step, stop_by)):
        return f"accuracy improves until it ({gain}), but held-out loss rises from step {rise.step} on {_sure(rise)}"
    return (
        f"it is the checkpoint nearest to step {rise.step}, where held-out loss is lowest; it rises then {_sure(rise)}"
    )


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


def _compare(case: _Case, rise: Difference | None) -> tuple[Agreement, str, Difference | None]:
    """Agreement, its sentence, and how held-out loss changes after the sparsest step; None where that is not tested."""
    sparsest, loss = case.events.sparsest, case.loss
    if sparsest.step is None or sparsest.low is None or sparsest.high is None:
        return Agreement.NOT_ENOUGH, f"{_NOT_ENOUGH}{_without_stages(case)}", None
    over = f"interactions are sparsest at step {sparsest.where}"
    improves = None if loss is None else loss_improves_after(loss, sparsest.low, sparsest.high, looks=case.looks)
    if loss is None or improves is None:
        return Agreement.NOT_ENOUGH, f"{_NOT_ENOUGH}{over}, but {_missing(loss, sparsest.high)}.", None
    if not improves.is_tested:
        return Agreement.NOT_ENOUGH, f"{_NOT_ENOUGH}{over}, but held-out loss cannot be judged ({improves.sure}).", None
    not_here = f"Do not stop at step {sparsest.step}: {over}"
    if improves.is_clear:
        until = "still improves" if improves.later_step == loss.steps[-1] else f"improves until {improves.later_step}"
        return Agreement.CONFLICT, f"{not_here}, but held-out loss {until} {_sure(improves)}.", improves
    better = None if case.accuracy is None else more_accurate_after(case.accuracy, sparsest.high, looks=case.looks)
    if better is not None and better.is_clear:
        sentence = f"{not_here} and held-out loss does not clearly improve after it, but accuracy does, until "
        return Agreement.CONFLICT, f"{sentence}{better.later_step} {_sure(better)}.", improves
    rises = rise if rise is not None and rise.is_clear else None
    if rises is not None and rises.step < sparsest.low:
        sentence = f"{not_here}, but held-out loss is lowest before that, at step {rises.step}, and rises from there on"
        return Agreement.CONFLICT, f"{sentence} {_sure(rises)}.", improves
    return Agreement.AGREE, f"{_stop_at(case, over, rises, improves)}.", improves


def _stop_at(case: _Case, over: str, rises: Difference | None, improves: Difference) -> str:
    """rises: of held-out loss from its minimum, which may lie in the sparsest step's interval or after it."""
    stop = _best_of_sparsest(case)
    sentence = f"Stop at step {stop}: {over}, "
    if stop != case.events.sparsest.step:
        sentence += f"held-out loss is lowest at {stop} of these, "
    if rises is not None and rises.step == stop:
        return f"{sentence}and after it held-out loss rises {_sure(rises)}"
    sentence += f"and held-out loss does not clearly improve after it {_sure(improves)}"
    if rises is None:
        return sentence
    return f"{sentence}; from step {rises.step} on it rises {_sure(rises)}"


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
    was = "was measured once," if len(case.loss.pairs) == 1 else "is lowest"
    return f"{reason}. Held-out loss {was} at step {step} ({value:.3f})."


def _curve(trends: Trends, name: str, each: HeldOutRows | None) -> Curve | None:
    pairs = [pair for pair in trends.measured.get(name, []) if pair[0] not in trends.same_weights]
    if not pairs:
        return None
    each = None if each is None else each.without(trends.same_weights)
    steps, values = zip(*pairs, strict=True)
    rows = trends.accuracy_rows if name == ACCURACY else 0
    return Curve(np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64), rows, each)


def _from_to(change: Difference) -> str:
    return f"{change.value:.3f} at {change.step} → {change.later:.3f} at {change.later_step}"


def _sure(change: Difference) -> str:
    return f"({_from_to(change)}; {change.sure})"
