"""The paper's findings 1-5 on this run: holds, does not, or undecided, each with its numbers.

A comparison counts as clear where the sign of the mean difference over probes is (see `sign_flips`; at least
`MIN_PROBES` probes). A finding holds where all its comparisons clearly do, does not where one is clearly the other
way round at a level divided by the number of comparisons, and is undecided otherwise. A comparison with a class that
is empty for most probes says nothing.

Findings 1 and 3 speak of what happens before and after the sparsest step. They are nearly true by construction where
the same probes say which step that is, so halves of the probes decide them (see `probe_halves`). Findings 4 and 5 are
judged at the sparsest step as well as at the last one, where Ω is so large that overlap is inevitable. Preserved is
what kept its sign; whether a class is noise is asked of z = Σ I / √Σ I², and of ρ less its value by chance.
Generalizability is compared only where there is a baseline LLM.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sftscope.analysis.conclusions.probe_halves import Halves, halves_that_hold, sparsest_step
from sftscope.analysis.conclusions.sign_flips import LEVEL, MIN_PROBES, p_value
from sftscope.analysis.course.events import Event
from sftscope.analysis.sets.chance import Signs, preserved_by_chance
from sftscope.analysis.sets.class_sums import ClassSums, class_sums, emerged_sums, same_sign_sums
from sftscope.analysis.sets.evolution import EARLY, LATE, Change, Evolution
from sftscope.analysis.soft.effective import effective_numbers
from sftscope.lattice.transforms import Floats


class Holds(StrEnum):
    """What a run says of a finding."""

    YES = "holds"
    NO = "does not hold"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Finding:
    """number, claim: of the paper. numbers: the evidence in words, means over n probes."""

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
    evolution: Evolution, boundary: Event, *, base: int = 0, references: Sequence[Signs] | None = None
) -> list[Finding]:
    """The five findings at the last step, 4 and 5 at the sparsest as well, against the step index `base`."""
    run = _Run.of(evolution, base, references)
    sparsest = boundary.index
    if sparsest is None:
        sparsest = sparsest_step(effective_numbers(evolution.history), base)
        missing = f"no sparsest step: {boundary.reason}"
        staged = [Finding(n, CLAIMS[n - 1], Holds.UNDECIDED, missing if n == 1 else "see 1") for n in (1, 2, 3)]
    else:
        staged = [_emergence(run, sparsest), _early_and_late(run, sparsest), _removal(run, sparsest)]
    steps = sorted({sparsest, run.last} - {base}) or [run.last]
    noise_like = [part for step in steps for part in _noise_like(run, step)]
    backbone = [part for step in steps for part in _backbone(run, step)]
    return [*staged, _finding(4, noise_like), _finding(5, backbone)]


@dataclass(frozen=True, eq=False)
class _Run:
    """The classes of every probe over the steps, and what preserved would be by chance: (P, T)."""

    evolution: Evolution
    base: int
    references: Sequence[Signs] | None
    removed: list[ClassSums]
    preserved: list[ClassSums]
    emerged: list[ClassSums]
    by_chance: Floats

    @classmethod
    def of(cls, evolution: Evolution, base: int, references: Sequence[Signs] | None) -> "_Run":
        probes = range(len(evolution.history.probes))
        signs = [None if references is None else references[p] for p in probes]
        parts = [class_sums(evolution, p, base, reference=signs[p]) for p in probes]
        return cls(
            evolution,
            base,
            references,
            [part[Change.REMOVED] for part in parts],
            [same_sign_sums(evolution, p, base, reference=signs[p]) for p in probes],
            [part[Change.EMERGED] for part in parts],
            np.array([preserved_by_chance(evolution, p, base).same_sign for p in probes]),
        )

    @property
    def last(self) -> int:
        """Index of the last step."""
        return int(self.evolution.history.steps.size - 1)

    def step(self, index: int) -> int:
        """The number of a step."""
        return int(self.evolution.history.steps[index])

    def split(self, boundary: int) -> tuple[list[ClassSums], list[ClassSums]]:
        """What emerged, split by whether it was seen up to the index `boundary`: early and late of every probe."""
        signs = self.references
        parts = [
            emerged_sums(self.evolution, p, self.base, boundary, reference=None if signs is None else signs[p])
            for p in range(len(self.removed))
        ]
        return [part[EARLY] for part in parts], [part[LATE] for part in parts]


def _emergence(run: _Run, boundary: int) -> Finding:
    """Finding 1, decided by halves of the probes."""

    def late_less_early(step: int) -> Floats:
        early, late = run.split(step)
        return _at(late, "count", run.last) - _at(early, "count", run.last)

    early, late = run.split(boundary)
    seen = _Comparison.of("n late", _at(late, "count", run.last), _at(early, "count", run.last), "early")
    return _by_halves(1, seen, halves_that_hold(run.evolution, run.base, late_less_early))


def _removal(run: _Run, boundary: int) -> Finding:
    """Finding 3, decided by halves of the probes."""

    def until_less_after(step: int) -> Floats:
        return 2 * _at(run.removed, "count", step) - _at(run.removed, "count", run.last)

    until = _at(run.removed, "count", boundary)
    after = _at(run.removed, "count", run.last) - until
    seen = _Comparison.of("n removed until then", until, after, "net change after it")
    return _by_halves(3, seen, halves_that_hold(run.evolution, run.base, until_less_after))


def _early_and_late(run: _Run, boundary: int) -> Finding:
    """Finding 2: what emerged by the sparsest step, as it was then, against what emerged later, as it is now."""
    early, late = run.split(boundary)
    quality = [
        _Comparison.of("order of late", _at(late, "mean_order", run.last), _at(early, "mean_order", boundary), "early"),
        _Comparison.of("z of early", _at(early, "z", boundary), _at(late, "z", run.last), "late"),
    ]
    if run.references is not None:
        excess = _excess(early, boundary), _excess(late, run.last)
        quality.append(_Comparison.of("ρ beyond chance of early", *excess, "late"))
    return _finding(2, quality)


def _noise_like(run: _Run, step: int) -> list["_Comparison"]:
    """Finding 4 at one step."""
    at = f"at step {run.step(step)}: "
    parts = [
        _Comparison.of(f"{at}order of removed", _at(run.removed, "mean_order", step), _order(run, step)),
        _Comparison.of("z of preserved", _at(run.preserved, "z", step), _at(run.removed, "z", step), "removed"),
    ]
    if run.references is not None:
        excess = _excess(run.preserved, step), _excess(run.removed, step)
        parts.append(_Comparison.of("ρ beyond chance of preserved", *excess, "removed"))
    return parts


def _backbone(run: _Run, step: int) -> list["_Comparison"]:
    """Finding 5 at one step."""
    at, kept = f"at step {run.step(step)}: ", _at(run.preserved, "count", step)
    at_base = run.evolution.counts()[:, run.base].astype(np.float64)
    z = _at(run.preserved, "z", step)
    parts = [
        _Comparison.of(f"{at}n of Ω at base", at_base, 2 * kept, "2·n preserved with the same sign"),
        _Comparison.of("n preserved", kept, run.by_chance[:, step], "by chance"),
        _Comparison.of("order of removed", _at(run.removed, "mean_order", step), _order(run, step)),
        _Comparison.of("order of emerged", _at(run.emerged, "mean_order", step), _order(run, step)),
        _Comparison.of("z of preserved", z, _at(run.removed, "z", step), "removed"),
        _Comparison.of("z of preserved", z, _at(run.emerged, "z", step), "emerged"),
    ]
    if run.references is not None:
        shared = _excess(run.preserved, step)
        for name, others in (("removed", run.removed), ("emerged", run.emerged)):
            parts.append(_Comparison.of("ρ beyond chance of preserved", shared, _excess(others, step), name))
    return parts


@dataclass(frozen=True)
class _Comparison:
    """Whether one quantity lies above another: their means, the sign of the difference, its p-value or NaN."""

    text: str
    sign: int
    p_value: float

    @classmethod
    def of(cls, name: str, above: Floats, below: Floats, other: str = "preserved") -> "_Comparison":
        apart = above - below
        both = np.isfinite(apart)
        probes = int(both.sum())
        if probes < MIN_PROBES:
            return cls(f"{name} against {other}: defined for {probes} probes, {MIN_PROBES} are needed", 0, math.nan)
        text = f"{name} {_mean(above[both])} against {_mean(below[both])} ({other}; n = {probes})"
        return cls(text, int(np.sign(apart[both].sum())), p_value(apart[both]))


def _finding(number: int, comparisons: Sequence[_Comparison]) -> Finding:
    defined = [part for part in comparisons if not math.isnan(part.p_value)]
    fails = any(part.sign == -1 and part.p_value * len(defined) <= LEVEL for part in defined)
    is_clear = bool(defined) and all(part.sign == 1 and part.p_value <= LEVEL for part in defined)
    holds = Holds.NO if fails else Holds.YES if is_clear else Holds.UNDECIDED
    return Finding(number, CLAIMS[number - 1], holds, "; ".join(comparison.text for comparison in comparisons))


def _by_halves(number: int, seen: _Comparison, halves: Halves | None) -> Finding:
    """A finding that is nearly true by construction on the probes that chose the boundary."""
    said = f"{seen.text}; nearly true by construction, as the same probes chose the step"
    if halves is None:
        said += f", and fewer than {2 * MIN_PROBES} probes cannot be split to test it"
        return Finding(number, CLAIMS[number - 1], Holds.UNDECIDED, said)
    said += f"; one half of the probes chooses, the other tests: holds in {halves.holds} of {halves.draws} draws"
    said += f", reversed in {halves.reversed}" if halves.reversed else ""
    holds = {1: Holds.YES, -1: Holds.NO, 0: Holds.UNDECIDED}[halves.sign]
    return Finding(number, CLAIMS[number - 1], holds, said)


def _at(parts: Sequence[ClassSums], quantity: str, step: int) -> Floats:
    """A quantity of each probe at one step index: (P,)."""
    return np.array([getattr(part, quantity)[step] for part in parts])


def _order(run: _Run, step: int) -> Floats:
    return _at(run.preserved, "mean_order", step)


def _excess(parts: Sequence[ClassSums], step: int) -> Floats:
    """ρ less its value by chance."""
    return _at(parts, "generalizable", step) - _at(parts, "generalizable_by_chance", step)


def _mean(values: Floats) -> str:
    mean = float(values.mean())
    return "undefined" if math.isnan(mean) else f"{mean:.2f}"
