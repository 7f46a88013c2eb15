"""Three events of a training: removal is over, interactions are sparsest, new ones clearly emerge.

SFT first removes interactions of the base, then invents others. Between the two may lie many checkpoints, so that one
"end of denoising" says too little. None of the events depends on a threshold τ:

    removal over   the first checkpoint with 95 % of the most strength that is ever removed (soft classes)
    sparsest       the fewest effective interactions, N_eff; only where N_eff clearly falls and then clearly grows
    emergence      from here on clearly more strength has emerged than at its low point after the removal

Each has an interval: the checkpoints that do not clearly differ from it, by differences between checkpoints paired
over the probes, with the noise that a checkpoint as a whole has. Read together they cover the true checkpoint in at
least 90 % of simulated runs, on plateaus too (`tests/benchmarks/bench_events.py`).
"""

from dataclasses import dataclass, replace
from math import ceil, exp
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.course.turning_point import (
    CLEAR,
    MIN_STEPS,
    TurningPoint,
    checkpoint_noise,
    find_turning_point,
    limit,
)
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.soft.effective import effective_numbers
from sftscope.analysis.soft.soft_classes import share, soft_classes
from sftscope.lattice.transforms import Floats

OVER = 0.95  # of the most that is ever removed
LEAST_REMOVED = 0.1  # of ‖I_0‖₁; where less is removed, there is no removal to be over
DOUBLED, TREBLED = 0.69, 1.1  # in logs: clear growth of what emerged, and growth beyond what any noise here does
SURE = 2.0  # standard errors
_LEAST_SHARE = 0.05  # added to shares of ‖I_0‖₁ before the logarithm, so that next to nothing is no growth
_FOUND: WeakKeyDictionary[RunHistory, "Events"] = WeakKeyDictionary()  # every view asks for them


@dataclass(frozen=True)
class Event:
    """index, step: None where it cannot be determined. low, high: interval of the step. reason: one clause."""

    index: int | None
    step: int | None
    low: int | None
    high: int | None
    reason: str

    @property
    def where(self) -> str:
        """The step with its interval; empty where there is none."""
        if self.step is None:
            return ""
        return f"{self.step}" if self.low == self.high else f"{self.step} ({self.low}–{self.high})"


@dataclass(frozen=True)
class Events:
    """The three events of a run."""

    removal: Event
    sparsest: Event
    emergence: Event

    @property
    def two_stages(self) -> bool:
        """Whether the number of interactions clearly falls and then clearly grows."""
        return self.sparsest.index is not None


def find_events(history: RunHistory) -> Events:
    """The events over all probes, against the first extracted step."""
    if history not in _FOUND:
        _FOUND[history] = _events(history, looks=False)
    return _FOUND[history]


def events_so_far(history: RunHistory) -> Events:
    """The same for a run that is looked at after every checkpoint, until something is found."""
    return _events(history, looks=True)


def sparsest_in(history: RunHistory, numbers: Floats) -> Event:
    """As `sparsest_of`, of a number of interactions (P, T) over the steps of a run."""
    own = history.independent
    return _among(sparsest_of(numbers[:, own], history.steps[own]), own)


def _events(history: RunHistory, *, looks: bool) -> Events:
    """Of the steps with weights of their own: a checkpoint that repeats another is no second piece of evidence."""
    own = history.independent
    soft = [soft_classes(part.table) for part in history.probes]
    removed, emerged = (
        np.array([share(getattr(each, name), each.at_base) for each in soft]) for name in ("removed", "emerged")
    )
    effective = effective_numbers(history)
    found = events_of(effective[:, own], removed[:, own], emerged[:, own], history.steps[own], looks=looks)
    return Events(*(_among(event, own) for event in (found.removal, found.sparsest, found.emergence)))


def events_of(
    effective: Floats, removed: Floats, emerged: Floats, steps: NDArray[np.int64], *, looks: bool = False
) -> Events:
    """The events of N_eff, and of soft removed and emerged as shares of ‖I_0‖₁: (P, T) each, at the steps (T,).

    looks: as of `find_turning_point`. A probe without effects at some step is left out of what needs that step.
    """
    removal = _removal_over(removed[np.isfinite(removed).all(axis=1)], steps)
    sparsest = sparsest_of(effective, steps, looks=looks)
    begin = removal.index if removal.index is not None else min(1, steps.size - 1)
    emergence = _emergence(emerged[np.isfinite(emerged).all(axis=1)], steps, begin, looks=looks)
    return Events(removal, sparsest, emergence)


def sparsest_of(numbers: Floats, steps: NDArray[np.int64], *, looks: bool = False) -> Event:
    """Where a number of interactions (P, T), such as N_eff, is lowest; none where there are no two stages."""
    numbers = numbers[np.isfinite(numbers).all(axis=1) & (numbers > 0).all(axis=1)]
    if steps.size < MIN_STEPS:
        return _none(f"two stages need at least {MIN_STEPS} extracted steps, this run has {steps.size}")
    if not len(numbers):
        return _none("no probe has interactions at every step")
    logs = np.log(numbers)
    turn = find_turning_point(logs, looks=looks)
    mean = numbers.mean(axis=0)
    if missing := _missing(turn, mean, steps, len(numbers)):
        return _none(missing)
    index = int(logs.mean(axis=0).argmin())
    inside = _not_above(logs, index)
    low, high = _around(inside, index)
    peak = index + int(mean[index:].argmax())
    reason = (
        f"interactions per probe fall from {mean[0]:.1f} to {mean[index]:.1f} by step {int(steps[index])}, then grow "
        f"to {mean[peak]:.1f} by step {int(steps[peak])}; {turn.both.probes} of {len(numbers)} probes do so by "
        "themselves"
    )
    if len(numbers) == 1:
        reason += "; with one probe the interval says little"
    return _event(index, low, high, steps, reason)


def _missing(turn: TurningPoint, mean: Floats, steps: NDArray[np.int64], probes: int) -> str:
    """What speaks against two stages; empty if nothing does."""
    fewest, step, last = float(mean[turn.index]), int(steps[turn.index]), int(steps[-1])
    if turn.fall.depth < CLEAR and mean.min() >= mean[0]:
        return "the number of interactions never falls below its start"
    if turn.fall.depth < CLEAR:
        lowest = float(mean.min())
        varies = "falls, but no further than it varies between checkpoints"
        why = "hardly falls" if lowest > mean[0] * exp(-CLEAR) else varies
        return f"the number of interactions {why} ({mean[0]:.1f} → {lowest:.1f} per probe)"
    if turn.growth.depth < CLEAR and turn.index == steps.size - 1:
        return f"interactions are still being removed at step {last} ({fewest:.1f} per probe)"
    fall = f"interactions per probe fall from {mean[0]:.1f} to {fewest:.1f} by step {step}"
    if turn.growth.depth < CLEAR:
        return f"{fall}, and hardly any emerge until step {last}"
    if not turn.fall.is_clear or not turn.growth.is_clear:
        which = "the fall before" if not turn.fall.is_clear else "the growth after"
        if not (turn.fall.typical >= CLEAR / 2 and turn.growth.typical >= CLEAR / 2):
            return f"the mean over probes has its fewest at step {step}, but most probes do not fall and grow"
        return f"{fall}, but {which} it is within the variation between checkpoints"
    if not turn.both.is_clear:
        return f"only {turn.both.probes} of {probes} probes fall and grow by themselves"
    return ""


def _removal_over(removed: Floats, steps: NDArray[np.int64]) -> Event:
    """removed: share of ‖I_0‖₁, (P, T)."""
    if not len(removed) or steps.size < 2:
        return _none("nothing to remove")
    mean = removed.mean(axis=0)
    most = float(mean.max())
    if most < LEAST_REMOVED:
        return _none(f"hardly anything is removed ({most:.0%} of the strength at the start)")
    apart = removed - OVER * removed[:, [int(mean.argmax())]]
    error = _standard_error(apart, mean)
    ahead = apart.mean(axis=0)
    index = int((ahead >= 0).argmax())
    low = int((ahead + SURE * error >= 0).argmax())
    sure = np.flatnonzero(ahead - SURE * error >= 0)
    high = int(sure[0]) if sure.size else int(mean.argmax())
    last = steps.size - 1
    if index == last and mean[-1] - mean[-2] > SURE * checkpoint_noise(mean):
        return _none(f"interactions of the start are still being removed at step {int(steps[-1])} ({most:.0%})")
    reason = f"{mean[index]:.0%} of the strength at the start is removed, of at most {most:.0%}"
    return _event(index, min(low, index), max(high, index), steps, reason)


def _emergence(emerged: Floats, steps: NDArray[np.int64], begin: int, *, looks: bool) -> Event:
    """emerged: share of ‖I_0‖₁, (P, T); looked at from the index `begin` on."""
    if not len(emerged):
        return _none("nothing to compare with")
    logs = np.log(emerged[:, begin:] + _LEAST_SHARE)
    mean, share = logs.mean(axis=0), emerged.mean(axis=0)
    low = int(mean.argmin())
    last = f"{share[-1]:.2f} times the strength at the start at step {int(steps[-1])}"
    # the fall before the low point is no part of it, and short curves have no ratio: the noise is that of the whole
    noise = checkpoint_noise(np.log(emerged + _LEAST_SHARE).mean(axis=0))
    apart = logs - logs[:, [low]]
    error = np.maximum(_paired_error(apart), np.sqrt(2) * noise)
    wide = SURE + 1.0 if looks else SURE
    clear = (apart.mean(axis=0) > wide * error) & (np.arange(mean.size) > low)
    growth = find_turning_point(logs, looks=looks).growth
    beyond_noise = growth.ratio >= limit(max(mean.size, MIN_STEPS + 1), looks=looks) or growth.depth >= TREBLED
    doubles = growth.depth >= DOUBLED and growth.typical >= DOUBLED / 2
    if steps.size < MIN_STEPS or not (clear[-1] and doubles and beyond_noise):
        return _none(f"no clear growth; what emerged has {last}")
    index = mean.size - int((~clear[::-1]).argmax()) if not clear.all() else 0
    # the growth from its beginning to where it is clear takes this many checkpoints at its own pace
    ahead = apart.mean(axis=0)
    span = min(index + 3, mean.size) - index
    pace = max(float(ahead[index + span - 1] - ahead[index - 1]) / span, 1e-9)
    late = ceil(2 * SURE * float(error[index]) / pace)
    first = max(low + 1, index - late)
    return _event(
        begin + index,
        begin + first,
        begin + index,
        steps,
        f"what emerged grows from {share[begin + low]:.2f} to {last}",
    )


def _not_above(logs: Floats, index: int) -> NDArray[np.bool_]:
    """Which checkpoints are not clearly above that of the index: (T,)."""
    apart = logs - logs[:, [index]]
    inside: NDArray[np.bool_] = apart.mean(axis=0) <= SURE * _standard_error(apart, logs.mean(axis=0))
    return inside


def _standard_error(apart: Floats, mean: Floats) -> Floats:
    """Of the mean of differences between checkpoints, (P, T), in a curve whose mean over probes is `mean`: (T,)."""
    return np.maximum(_paired_error(apart), np.sqrt(2) * checkpoint_noise(mean))


def _paired_error(apart: Floats) -> Floats:
    """Standard error over probes of the mean of (P, T): (T,); 0 with one probe."""
    probes = len(apart)
    if probes < 2:
        return np.zeros(apart.shape[1])
    error: Floats = apart.std(axis=0, ddof=1) / np.sqrt(probes)
    return error


def _around(inside: NDArray[np.bool_], index: int) -> tuple[int, int]:
    """The first and last of the run of true values around an index."""
    low, high = index, index
    while low > 0 and inside[low - 1]:
        low -= 1
    while high < inside.size - 1 and inside[high + 1]:
        high += 1
    return low, high


def _among(event: Event, places: NDArray[np.int64]) -> Event:
    """The event with its index among all steps of a run, of which those at `places` were looked at."""
    return event if event.index is None else replace(event, index=int(places[event.index]))


def _event(index: int, low: int, high: int, steps: NDArray[np.int64], reason: str) -> Event:
    return Event(index, int(steps[index]), int(steps[low]), int(steps[high]), reason)


def _none(reason: str) -> Event:
    return Event(None, None, None, None, reason)
