"""The placebo next to the finding: how many interactions change where nothing was trained.

A placebo is a checkpoint extracted a second time in another batch layout. It goes through the same
τ, the same noise floor and the same partition as two steps do; what it removes and invents is noise.
"""

import math
from dataclasses import dataclass

from sftscope.analysis.run.effect_table import on_common_subsets
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.evolution import Change, Evolution, partition
from sftscope.analysis.sets.views import Selection

TRUSTED_JACCARD = 0.95  # below it, numerical noise makes a visible part of the finding


@dataclass(frozen=True)
class PlaceboDiff:
    """A step against itself, and the same step against the base step; counts are sums over probes.

    counts, jaccard: of the step file's Ω and the placebo's. real, real_jaccard: of Ω at base_step and
    at the step. Jaccard is |preserved| / |removed ∪ preserved ∪ emerged|, NaN where there is no
    interaction at all. noise_max: largest σ of v over the probes, in log-odds.
    """

    step: int
    counts: dict[Change, int]
    jaccard: float
    base_step: int
    real: dict[Change, int]
    real_jaccard: float
    noise_max: float


def compare_placebos(evolution: Evolution, selection: Selection) -> list[PlaceboDiff]:
    """Every placebo of the run for the probes of `selection`, with the change since its base step."""
    history, probes = evolution.history, selection.probes_of(evolution)
    diffs = []
    for placebo in history.placebos:
        now = history.index_of(placebo.step)
        counts, real = dict.fromkeys(Change, 0), dict.fromkeys(Change, 0)
        for p in probes:
            first, again = on_common_subsets(history.probes[p].table, placebo.tables[p])
            here, there = evolution.both_of(p, now, first, now), evolution.both_of(p, now, again)
            for change, members in partition(here, there).items():
                counts[change] += int(members.sum())
            for change, members in evolution.partition(p, now, selection.base).items():
                real[change] += int(members.sum())
        diffs.append(
            PlaceboDiff(
                step=placebo.step,
                counts=counts,
                jaccard=_jaccard(counts),
                base_step=int(history.steps[selection.base]),
                real=real,
                real_jaccard=_jaccard(real),
                noise_max=float(placebo.noise[list(probes)].max()),
            )
        )
    return diffs


def sentence(diff: PlaceboDiff) -> str:
    """What the placebo shows, in one line."""
    removed, preserved, emerged = (diff.counts[change] for change in Change)
    return (
        f"step {diff.step} against itself: − {removed} removed = {preserved} preserved "
        f"+ {emerged} newly emerged, Jaccard {'undefined' if math.isnan(diff.jaccard) else f'{diff.jaccard:.3f}'}"
    )


def _jaccard(counts: dict[Change, int]) -> float:
    union = sum(counts.values())
    return counts[Change.PRESERVED] / union if union else metrics.NAN
