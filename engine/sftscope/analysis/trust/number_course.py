"""The course of N_eff under one decomposition, and what of its fall and growth both kinds of ζ carry.

ζ that is fixed in log-odds makes part of the growth: the range of v grows, so the bound gets relatively smaller. A ζ
that is a share of the range of v takes that away. What is true of the model, and not of ζ, shows under both.
"""

from dataclasses import dataclass

import numpy as np

from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.soft.effective import effective_numbers
from sftscope.lattice.transforms import Floats

FEWEST_PROBES = 6  # below, no claim: with 3 probes chance alone gives 2 standard errors in one of four runs


@dataclass(frozen=True)
class Ratio:
    """How many times larger N_eff is at one step than at another: geometric mean over probes, ± 2 standard errors.

    NaN where a probe has no effect at one of them, and the limits also with one probe.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, later: Floats, earlier: Floats) -> "Ratio":
        """later, earlier: N_eff of each probe, (P,)."""
        logs = np.log(later / earlier)
        error = 2 * logs.std(ddof=1) / np.sqrt(logs.size) if logs.size > 1 else np.nan
        mean, low, high = np.exp(logs.mean() + np.array([0.0, -error, error])).tolist()
        return cls(mean, low, high)


@dataclass(frozen=True)
class NumberCourse:
    """N_eff of a run at its base step, its sparsest step and its last, means over P probes.

    sparsest_step: of the smallest mean over probes of log N_eff. fall: base over sparsest. growth: last over sparsest.
    beyond: last over base.
    """

    probes: int
    sparsest_step: int
    at_base: float
    at_sparsest: float
    at_last: float
    fall: Ratio
    growth: Ratio
    beyond: Ratio


def number_course(history: RunHistory, base: int = 0) -> NumberCourse:
    """The course of N_eff; base: index of the base step."""
    numbers = effective_numbers(history)
    lowest = int(np.argmin(np.nan_to_num(np.log(numbers).mean(axis=0), nan=np.inf)))
    first, least, last = numbers[:, base], numbers[:, lowest], numbers[:, -1]
    return NumberCourse(
        probes=len(numbers),
        sparsest_step=int(history.steps[lowest]),
        at_base=float(first.mean()),
        at_sparsest=float(least.mean()),
        at_last=float(last.mean()),
        fall=Ratio.of(first, least),
        growth=Ratio.of(last, least),
        beyond=Ratio.of(last, first),
    )


@dataclass(frozen=True)
class Carried:
    """A claim about the number of interactions, whether every kind of ζ carries it, and the ratios in words."""

    claim: str
    carried: bool
    numbers: str


def carried_by_both(fixed: NumberCourse, moving: NumberCourse) -> list[Carried]:
    """The fall to the sparsest step, the growth after it, and the end above the start: what both kinds of ζ carry.

    fixed: with ζ fixed over the steps; moving: with ζ as a share of the range of v at each step. A kind carries a
    claim where its ratio over probes is above 1 by 2 standard errors, with at least `FEWEST_PROBES` probes. That
    the sparsest step was chosen by the same numbers is not corrected for.
    """
    return [
        _claim("falls before its sparsest step", fixed.fall, moving.fall, fixed.probes),
        _claim("grows after its sparsest step", fixed.growth, moving.growth, fixed.probes),
        _claim("ends above its start", fixed.beyond, moving.beyond, fixed.probes),
    ]


def _claim(words: str, fixed: Ratio, moving: Ratio, probes: int) -> Carried:
    carriers = [ratio.low > 1 and probes >= FEWEST_PROBES for ratio in (fixed, moving)]
    if probes < FEWEST_PROBES:
        by = f"not stated: {probes} probes, at least {FEWEST_PROBES} are needed"
    elif all(carriers):
        by = "carried by both kinds of ζ"
    elif any(carriers):
        by = "carried by the fixed ζ alone" if carriers[0] else "carried by the moving ζ alone"
    else:
        by = "carried by neither kind of ζ"
    return Carried(words, all(carriers), f"{by} (× {_span(fixed)} fixed, × {_span(moving)} relative to the range of v)")


def _span(ratio: Ratio) -> str:
    return f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
