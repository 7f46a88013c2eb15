"""How far a run can be believed whose interactions are estimated from a sample of the masked states.

What was held out is predicted: R² and the error by how many words are present. Replicates, estimates from the same
states resampled (the same ones at every step), give every count an interval, of three parts: how much the count
depends on the choice of states; chance; and, upwards, what more states would show, since interactions of many words
are found late. A replicate has 63 % of the different states: by how much the count grows from there to the
estimate is taken to continue up to `MOST_MORE` times the states.

The three constants were chosen once so that the intervals hold about 90 % of the exact counts of real runs: of
SmolLM2-135M and Gemma-3-270M at 9 words, a third and half of the states, and of SmolLM2-135M at 12, 15 %.
`sftscope/decomposition/README.md` has what came of it at other sizes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sftscope.analysis.run.probe_means import mean_over_probes
from sftscope.analysis.run.run_history import ProbeHistory, RunHistory
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.class_sums import class_sums
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.views import Selection
from sftscope.lattice.masked_states import States, candidates, held_out_r2, largest_order
from sftscope.lattice.transforms import Floats, orders_of

PARTS = 4  # of the words present: up to a quarter of them, up to half …
SPREAD = 2.0  # standard deviations of the replicates
CHANCE = 1.0  # times the root of what was counted
MOST_MORE = 8.0  # times the masked states; twice as many words have millions of times as many
DIFFERENT = 1.0 - math.exp(-1.0)  # share of the states that a replicate has, some of them more than once
MOST_GROWTH = 1.5  # from a replicate to the estimate; beyond, counts are too small to tell
SMALL = 2.0  # interactions added to both counts, so that 0 and 1 are no growth
ENCODED = "all"
Interval = tuple[float, float]


@dataclass(frozen=True)
class EstimateView:
    """The estimated probes of those looked at; lists over the steps are T long.

    words, masked_states: fewest and most of a probe. largest_order: up to which all effects were candidates,
    of the probe with the most words. r2_mean, r2_least: R² of the held-out masked states over the probes. error:
    matching error of the held-out states at the present step with up to a quarter, half, three quarters, all of the
    words present, mean over probes. intervals: by class, and of all encoded: of the mean count of a probe, over the
    steps; empty without replicates.
    """

    step: int
    steps: list[int]
    probes: int
    words: tuple[int, int]
    masked_states: tuple[int, int]
    held_out: int
    largest_order: int
    r2_mean: list[float]
    r2_least: list[float]
    error: list[float]
    replicates: int
    intervals: dict[str, list[Interval]]


def estimate_view(evolution: Evolution, selection: Selection) -> EstimateView | None:
    """What the held-out states and the replicates say; None where all masked states were scored."""
    history, probes = evolution.history, selection.probes_of(evolution)
    chosen = [history.probes[p] for p in probes if history.probes[p].is_estimated]
    if not chosen:
        return None
    sizes = [part.states.subset.size for part in chosen]
    r2 = np.array([r2_over_steps(part) for part in chosen])
    return EstimateView(
        step=int(history.steps[selection.now]),
        steps=history.steps.tolist(),
        probes=len(chosen),
        words=(min(part.n_variables for part in chosen), max(part.n_variables for part in chosen)),
        masked_states=(min(sizes), max(sizes)),
        held_out=sum(int(part.states.held_out.sum()) for part in chosen),
        largest_order=largest_order(max(part.n_variables for part in chosen)),
        r2_mean=mean_over_probes(r2),
        r2_least=[float(np.min(column[~np.isnan(column)], initial=np.inf)) for column in r2.T],
        error=mean_over_probes(np.array([_errors(part, selection.now) for part in chosen])),
        replicates=history.n_replicates,
        intervals=count_intervals(evolution, selection),
    )


def estimate_sentence(history: RunHistory) -> str:
    """The label of an estimated run in one line; empty for a run of which all masked states were scored."""
    chosen = [part for part in history.probes if part.is_estimated]
    if not chosen:
        return ""
    r2 = np.array([r2_over_steps(part)[-1] for part in chosen])
    words, sizes = [part.n_variables for part in chosen], [part.states.subset.size for part in chosen]
    return (
        f"ESTIMATED: {len(chosen)} of {len(history.probes)} probes from {_span(sizes)} of 2^{_span(words)} masked "
        f"states, {candidates(max(words))}; at the last step R² of held-out states is "
        f"{float(np.nanmean(r2)):.3f} on average, {float(np.nanmin(r2)):.3f} at the lowest."
    )


def r2_over_steps(part: ProbeHistory) -> Floats:
    """R² of a probe's held-out masked states at every step: (T,), NaN without any."""
    scores = part.scores.astype(np.float64)
    return np.array([held_out_r2(part.states, scores[t], _model(part, t)) for t in range(part.table.n_steps)])


def count_intervals(evolution: Evolution, selection: Selection) -> dict[str, list[Interval]]:
    """Of each class and of all that is encoded: the interval of the mean count of a probe, at every step."""
    history, probes = evolution.history, selection.probes_of(evolution)
    if not evolution.replicates:
        return {}
    own, *others = (_mean_counts(each, selection) for each in (evolution, *evolution.replicates))
    more = times_more([history.probes[p].states for p in probes])
    intervals = {}
    for name, count in own.items():
        low, high = interval_of(count, np.array([each[name] for each in others]), len(probes), more)
        if name in (Change.REMOVED, Change.EMERGED):
            low[selection.base] = high[selection.base] = 0.0  # against itself
        intervals[name] = list(zip(low.tolist(), high.tolist(), strict=True))
    return intervals


def times_more(states: Sequence[States]) -> float:
    """How many times the matched masked states there could be, `MOST_MORE` at most; geometric mean of the probes."""
    more = [min(2.0**part.n / np.count_nonzero(~part.held_out), MOST_MORE) for part in states]
    return float(np.exp(np.mean(np.log(more))))


def interval_of(own: Floats, others: Floats, probes: int, more: float) -> tuple[Floats, Floats]:
    """(low, high) of estimated mean counts (T,) over `probes` probes; others: (B, T), of the replicates.

    more: times the matched states, up to which the growth from replicate to estimate continues (`times_more`).
    """
    chance = np.sqrt(own * probes + 1.0) / probes
    around = SPREAD * others.std(axis=0, ddof=min(1, len(others) - 1)) + CHANCE * chance
    small = SMALL / probes
    growth = np.clip((own + small) / (others.mean(axis=0) + small), 1.0, MOST_GROWTH)
    grown = (own + small) * growth ** (math.log(more) / -math.log(DIFFERENT)) - small
    return np.maximum(own - around, 0.0), grown + around


def _mean_counts(evolution: Evolution, selection: Selection) -> dict[str, Floats]:
    """Mean over the probes of what is encoded, and of each class, at every step: (T,)."""
    probes = selection.probes_of(evolution)
    parts = [class_sums(evolution, p, selection.base, trajectory=selection.trajectory) for p in probes]
    of_classes = {change.value: np.mean([part[change].count for part in parts], axis=0) for change in Change}
    return {ENCODED: evolution.counts()[list(probes)].mean(axis=0), **of_classes}


def _errors(part: ProbeHistory, step: int) -> Floats:
    """Matching error of the held-out states by the share of words present: (PARTS,), NaN where there is none."""
    scores = part.scores[step].astype(np.float64)
    errors = metrics.matching_errors(scores, _model(part, step))
    share = np.ceil(PARTS * orders_of(part.states.subset) / part.n_variables).astype(int)
    found = np.full(PARTS, metrics.NAN)
    for number in range(PARTS):
        inside = part.states.held_out & (share == number + 1)
        if inside.any():
            found[number] = errors[inside].mean()
    return found


def _model(part: ProbeHistory, step: int) -> Floats:
    return np.asarray(part.bias[step] + part.table.model(step, part.states))


def _span(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)}-{max(values)}"
