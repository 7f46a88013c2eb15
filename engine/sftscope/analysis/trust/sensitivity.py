"""Which conclusions do not depend on a choice: the headline under every τ rule, a range of τ, ζ, and the placebo.

Other ζ and another tie-break are tried on request only: the stored scores have to be decomposed again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sftscope.analysis.comparison.baseline_llm import reference_signs
from sftscope.analysis.conclusions.paper_findings import Finding, Holds, measure_findings
from sftscope.analysis.course.events import Event, find_events, sparsest_in
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule, default_rules
from sftscope.analysis.trust.number_course import Carried, NumberCourse, carried_by_both, number_course
from sftscope.analysis.trust.placebo import PlaceboDiff
from sftscope.analysis.trust.zeta_sensitivity import with_other_zeta, with_range_zeta, with_reversed_ties
from sftscope.foundation.progress import Progress

TAU_FACTORS = (0.5, 0.7, 1.5, 2.0)
ZETA_FACTORS = (0.5, 2.0)
OF_RANGE, OF_RANGE_OR_BASE, REVERSED = "ζ of the range of v", "ζ of the range, not below its first", "ties reversed"
PLACEBO_SHARE = 0.1  # of the real count; more than that may be noise


@dataclass(frozen=True)
class SensitivityRow:
    """The headline under one threshold rule; counts are means over probes by class.

    fewest: where the rule has the fewest encoded interactions. at_sparsest: at the run's sparsest step, which no rule
    changes; empty where there is none. zeta: what the ζ of the run is multiplied with, None
    where ζ is a share of the range of v at each step. chosen: whether this is that rule, with the run as it is stored.
    tried: in which other decomposition, in words; empty as stored. number: N_eff, which no rule changes.
    """

    rule: str
    zeta: float | None
    chosen: bool
    fewest: Event
    at_sparsest: dict[Change, float]
    at_last: dict[Change, float]
    findings: list[Holds]
    tried: str = ""
    number: NumberCourse | None = None


def measure_sensitivity(
    evolution: Evolution,
    *,
    base: int = 0,
    reference: Evolution | None = None,
    zeta: bool = False,
    progress: Progress | None = None,
) -> list[SensitivityRow]:
    """The headline under the rule of `evolution`, every default rule, multiples of its own value, and no hysteresis.

    reference: the run of the baseline LLM, each time under the same rule. zeta: also under the rule with other ζ and
    with another tie-break, for which every step is decomposed again; SftscopeError where scipy, which that takes, is
    missing.
    """
    index = find_events(evolution.history).sparsest.index
    rules, number = _rules(evolution.rule), number_course(evolution.history, base)
    rows = []
    for done, rule in enumerate(rules):
        row = _headline(evolution.under(rule), reference, index, base, number)
        rows.append(replace(row, chosen=rule == evolution.rule))
        if progress is not None:
            progress(done + 1, len(rules), str(rule))
    if evolution.hysteresis != 1:
        exact = replace(evolution, hysteresis=1.0)
        same = None if reference is None else replace(reference, hysteresis=1.0)
        rows.append(replace(_headline(exact, same, index, base, number), rule=exact.settings))
    for tried, factor, history in _decomposed_otherwise(evolution.history, progress) if zeta else ():
        other, number = replace(evolution, history=history), number_course(history, base)
        rows.append(replace(_headline(other, reference, index, base, number), zeta=factor, tried=tried))
    return rows


def what_zeta_carries(rows: Sequence[SensitivityRow]) -> list[Carried]:
    """What of the course of N_eff both kinds of ζ carry; empty where no other ζ was tried."""
    fixed = next((row.number for row in rows if row.chosen), None)
    moving = next((row.number for row in rows if row.tried == OF_RANGE), None)
    return [] if fixed is None or moving is None else carried_by_both(fixed, moving)


def _decomposed_otherwise(
    history: RunHistory, progress: Progress | None
) -> Iterator[tuple[str, float | None, RunHistory]]:
    """Each other decomposition of the run: its name, its factor on ζ, and the run under it."""
    for factor in ZETA_FACTORS:
        yield f"ζ × {factor:g}", factor, with_other_zeta(history, factor, progress)
    yield OF_RANGE, None, with_range_zeta(history, progress=progress)
    yield OF_RANGE_OR_BASE, None, with_range_zeta(history, progress=progress, not_below_base=True)
    yield REVERSED, 1.0, with_reversed_ties(history, progress)


def _headline(
    evolution: Evolution, reference: Evolution | None, index: int | None, base: int, number: NumberCourse
) -> SensitivityRow:
    """The row of one rule on the stored run."""
    sparsest, signs = find_events(evolution.history).sparsest, None
    if reference is not None:
        signs = reference_signs(evolution.history, reference.under(evolution.rule))
    return SensitivityRow(
        rule=str(evolution.rule),
        zeta=1.0,
        chosen=False,
        fewest=fewest_encoded(evolution),
        at_sparsest={} if index is None else _mean_counts(evolution, index, base),
        at_last=_mean_counts(evolution, evolution.history.steps.size - 1, base),
        findings=[found.holds for found in measure_findings(evolution, sparsest, base=base, references=signs)],
        number=number,
    )


def fewest_encoded(evolution: Evolution) -> Event:
    """The checkpoint where hard sets under a threshold rule are smallest; none where they do not fall and grow."""
    return sparsest_in(evolution.history, evolution.counts().astype(np.float64) + 1.0)


def what_survives(
    sparsest: Event, findings: Sequence[Finding], rows: Sequence[SensitivityRow], placebos: Sequence[PlaceboDiff]
) -> str:
    """One line: which conclusions are the same in every row, which in most rows, and which are beyond the placebo."""
    same = _rows_that_agree(sparsest, findings, rows)
    always = [conclusion for conclusion, count in same if count == len(rows)]
    mostly = [
        f"{conclusion} ({count} of {len(rows)})" for conclusion, count in same if len(rows) / 2 < count < len(rows)
    ]
    line = "; ".join(always) if always else "none"
    most = f"; under most: {', '.join(mostly)}" if mostly else ""
    placebo = [_beyond_noise(diff) for diff in placebos]
    said = "; no placebo was extracted" if not placebo else f"; {'; '.join(placebo)}"
    tried = "every τ rule, value and ζ tried" if any(row.tried for row in rows) else "every τ rule and value tried"
    return f"Conclusions that hold under {tried}: {line}{most}{said}."


def _rows_that_agree(
    sparsest: Event, findings: Sequence[Finding], rows: Sequence[SensitivityRow]
) -> list[tuple[str, int]]:
    """Each conclusion of the chosen rule, and in how many rows it is the same."""
    ends = [row.fewest.step for row in rows]
    conclusions = []
    if sparsest.step is None:
        conclusions.append(("there is no sparsest step", ends.count(None)))
    elif sparsest.low is not None and sparsest.high is not None:
        inside = sum(step is not None and sparsest.low <= step <= sparsest.high for step in ends)
        conclusions.append((f"the fewest interactions lie within steps {sparsest.low}–{sparsest.high}", inside))
    for i, found in enumerate(findings):
        if found.holds is not Holds.UNDECIDED:
            count = sum(row.findings[i] is found.holds for row in rows)
            conclusions.append((f"finding {found.number} {found.holds}", count))
    return conclusions


def _beyond_noise(diff: PlaceboDiff) -> str:
    """Whether what a step removes and invents is beyond what its placebo does."""
    changed = diff.counts[Change.REMOVED] + diff.counts[Change.EMERGED]
    real = diff.real[Change.REMOVED] + diff.real[Change.EMERGED]
    verdict = "beyond" if changed <= PLACEBO_SHARE * real else "not beyond"
    return f"the changes at step {diff.step} are {verdict} the placebo ({real} against {changed})"


def _rules(chosen: ThresholdRule) -> list[ThresholdRule]:
    """The chosen rule with its own multiples, and every default rule."""
    if chosen.name == "top-k":
        near = [ThresholdRule(chosen.name, max(1, round(chosen.value * factor))) for factor in TAU_FACTORS]
    else:
        near = [ThresholdRule(chosen.name, chosen.value * factor) for factor in TAU_FACTORS]
    rules = list(default_rules())
    return [
        *([] if chosen in rules else [chosen]),
        *rules,
        *(rule for rule in dict.fromkeys(near) if rule not in rules),
    ]


def _mean_counts(evolution: Evolution, now: int, base: int) -> dict[Change, float]:
    parts = [evolution.partition(p, now, base) for p in range(len(evolution.history.probes))]
    return {change: float(np.mean([part[change].sum() for part in parts])) for change in Change}
