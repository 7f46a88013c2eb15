"""The paper's findings 1-5 on this run: holds, does not, or undecided, each with its numbers.

A comparison counts as clear where the mean difference over probes keeps its sign in 95 % of bootstrap
samples. A finding holds where all its comparisons clearly do, does not where one is clearly the other
way round, and is undecided otherwise. Generalizability is compared only where there is a baseline LLM.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

from sftscope.analysis.sets.boundary import Boundary
from sftscope.analysis.sets.chance import Signs
from sftscope.analysis.sets.class_sums import ClassSums, class_sums, emerged_sums
from sftscope.analysis.sets.evolution import EARLY, LATE, Change, Evolution
from sftscope.lattice.transforms import Floats

RESAMPLES = 1000
MIN_PROBES = 3


class Holds(StrEnum):
    """What a run says of a finding."""

    YES = "holds"
    NO = "does not hold"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Finding:
    """number, claim: of the paper. numbers: the evidence in words, means over probes."""

    number: int
    claim: str
    holds: Holds
    numbers: str


CLAIMS = (
    "few interactions emerge while denoising, many afterwards",
    "those that emerge early are better than those that emerge late",
    "removal happens while denoising, hardly any afterwards",
    "what is removed is noise-like: high order, cancelling, not generalizable",
    "few interactions are preserved, and they are better than the others",
)


def measure_findings(
    evolution: Evolution, boundary: Boundary, *, base: int = 0, references: Sequence[Signs] | None = None
) -> list[Finding]:
    """The five findings at the last step against the step index `base`."""
    probes = range(len(evolution.history.probes))
    parts = [class_sums(evolution, p, base, reference=None if references is None else references[p]) for p in probes]
    classes = {change: [part[change] for part in parts] for change in Change}
    last = evolution.history.steps.size - 1
    if boundary.index is None:
        missing = Finding(1, CLAIMS[0], Holds.UNDECIDED, f"no end of denoising: {boundary.reason}")
        staged = [missing, *(Finding(n, CLAIMS[n - 1], Holds.UNDECIDED, "no end of denoising") for n in (2, 3))]
    else:
        staged = _by_stage(evolution, classes, base, boundary.index)
    removed, preserved, emerged = (classes[change] for change in Change)
    noise_like = [
        _Comparison.of("order of removed", _at(removed, "mean_order", last), _at(preserved, "mean_order", last)),
        _Comparison.of(
            "γu of preserved", _at(preserved, "uncancelled", last), _at(removed, "uncancelled", last), "removed"
        ),
    ]
    backbone = [
        _Comparison.of("n of Ω at base", _base_count(evolution, base), 2 * _at(preserved, "count", last), "2·n kept"),
        _Comparison.of("order of removed", _at(removed, "mean_order", last), _at(preserved, "mean_order", last)),
        _Comparison.of("order of emerged", _at(emerged, "mean_order", last), _at(preserved, "mean_order", last)),
        _Comparison.of(
            "γu of preserved", _at(preserved, "uncancelled", last), _at(removed, "uncancelled", last), "removed"
        ),
        _Comparison.of(
            "γu of preserved", _at(preserved, "uncancelled", last), _at(emerged, "uncancelled", last), "emerged"
        ),
    ]
    if references is not None:
        shared = _at(preserved, "generalizable", last)
        noise_like.append(_Comparison.of("ρ of preserved", shared, _at(removed, "generalizable", last), "removed"))
        backbone.append(_Comparison.of("ρ of preserved", shared, np.full(shared.shape, 0.5), "one half"))
    by_number = {found.number: found for found in staged}
    by_number[4] = _finding(4, noise_like)
    by_number[5] = _finding(5, backbone)
    return [by_number[number] for number in sorted(by_number)]


def _by_stage(evolution: Evolution, classes: dict[Change, list[ClassSums]], base: int, boundary: int) -> list[Finding]:
    """Findings 1-3, which speak of the two stages."""
    last = evolution.history.steps.size - 1
    split = [emerged_sums(evolution, p, base, boundary) for p in range(len(evolution.history.probes))]
    early, late = ([part[name] for part in split] for name in (EARLY, LATE))
    removed, emerged = classes[Change.REMOVED], classes[Change.EMERGED]
    at_end = _at(removed, "count", boundary)
    quality = [
        _Comparison.of("order of late", _at(late, "mean_order", last), _at(emerged, "mean_order", boundary), "early"),
        _Comparison.of("γu of early", _at(emerged, "uncancelled", boundary), _at(late, "uncancelled", last), "late"),
    ]
    if not np.isnan(_at(emerged, "generalizable", boundary)).all():
        early_shared, shared = (_at(emerged, "generalizable", step) for step in (boundary, last))
        quality.append(_Comparison.of("ρ of early", early_shared, shared, "all emerged at the last step"))
    return [
        _finding(1, [_Comparison.of("n late", _at(late, "count", last), _at(early, "count", last), "early")]),
        _finding(2, quality),
        _finding(
            3,
            [
                _Comparison.of(
                    "n removed until then", at_end, _at(removed, "count", last) - at_end, "net change after it"
                )
            ],
        ),
    ]


@dataclass(frozen=True)
class _Comparison:
    """Whether one quantity lies above another: their means, and 1, -1 or 0 where it is not clear."""

    text: str
    sign: int

    @classmethod
    def of(cls, name: str, above: Floats, below: Floats, other: str = "preserved") -> "_Comparison":
        apart = above - below
        both = np.isfinite(apart)
        if both.sum() < MIN_PROBES:
            return cls(f"{name} against {other}: undefined for most probes", 0)
        text = f"{name} {_mean(above[both])} against {_mean(below[both])} ({other})"
        return cls(text, clear_sign(apart[both]))


def clear_sign(values: Floats) -> int:
    """The sign of the mean of values (P,) where 95 % of bootstrap samples share it, else 0."""
    low, high = np.quantile(_drawn(values.size) @ values, [0.025, 0.975])
    return 1 if low > 0 else -1 if high < 0 else 0


@lru_cache(maxsize=1)
def _drawn(probes: int) -> Floats:
    """How often each of P probes is in each bootstrap sample, the same for every quantity: (RESAMPLES, P)."""
    drawn = np.random.default_rng(0).multinomial(probes, np.full(probes, 1 / probes), size=RESAMPLES)
    return drawn.astype(np.float64)


def _finding(number: int, comparisons: Sequence[_Comparison]) -> Finding:
    signs = [comparison.sign for comparison in comparisons]
    holds = Holds.NO if -1 in signs else Holds.YES if all(sign == 1 for sign in signs) else Holds.UNDECIDED
    return Finding(number, CLAIMS[number - 1], holds, "; ".join(comparison.text for comparison in comparisons))


def _at(parts: Sequence[ClassSums], quantity: str, step: int) -> Floats:
    """A quantity of each probe at one step index: (P,)."""
    return np.array([getattr(part, quantity)[step] for part in parts])


def _base_count(evolution: Evolution, base: int) -> Floats:
    return evolution.counts()[:, base].astype(np.float64)


def _mean(values: Floats) -> str:
    mean = float(values.mean())
    return "undefined" if math.isnan(mean) else f"{mean:.2f}"
