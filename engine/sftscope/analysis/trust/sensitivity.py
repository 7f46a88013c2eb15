"""Which conclusions do not depend on a choice: the headline under every τ rule, a range of τ, ζ, and the placebo.

Other ζ are tried on request only: the stored scores have to be decomposed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sftscope.analysis.comparison.baseline_llm import reference_signs
from sftscope.analysis.conclusions.paper_findings import Finding, Holds, measure_findings
from sftscope.analysis.sets.boundary import Boundary, find_boundary
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.thresholds import ThresholdRule, default_rules
from sftscope.analysis.trust.placebo import PlaceboDiff
from sftscope.analysis.trust.zeta_sensitivity import with_other_zeta
from sftscope.foundation.progress import Progress

TAU_FACTORS = (0.5, 0.7, 1.5, 2.0)
ZETA_FACTORS = (0.5, 2.0)
PLACEBO_SHARE = 0.1  # of the real count; more than that may be noise


@dataclass(frozen=True)
class SensitivityRow:
    """The headline under one threshold rule; counts are means over probes by class.

    at_boundary: at the denoising stage's end of the rule looked at, not of this rule, so that all
    rows speak of one step; empty where there are not two stages. zeta: what the ζ of the run is multiplied with.
    chosen: whether this is that rule, with the ζ of the run.
    """

    rule: str
    zeta: float
    chosen: bool
    boundary: Boundary
    at_boundary: dict[Change, float]
    at_last: dict[Change, float]
    findings: list[Holds]


def measure_sensitivity(
    evolution: Evolution,
    *,
    base: int = 0,
    reference: Evolution | None = None,
    zeta: bool = False,
    progress: Progress | None = None,
) -> list[SensitivityRow]:
    """The headline under the rule of `evolution`, every default rule, multiples of its own value, and no hysteresis.

    reference: the run of the baseline LLM, each time under the same rule. zeta: also under the rule with other ζ, for
    which every step is decomposed again; SftscopeError where scipy, which that takes, is missing.
    """
    index = find_boundary(evolution).index
    rules = _rules(evolution.rule)
    rows = []
    for done, rule in enumerate(rules):
        other = evolution.under(rule)
        rows.append(_headline(other, reference, index, base, chosen=rule == evolution.rule))
        if progress is not None:
            progress(done + 1, len(rules), str(rule))
    if evolution.hysteresis != 1:
        exact = replace(evolution, hysteresis=1.0)
        same = None if reference is None else replace(reference, hysteresis=1.0)
        rows.append(replace(_headline(exact, same, index, base), rule=exact.settings))
    for factor in ZETA_FACTORS if zeta else ():
        other = replace(evolution, history=with_other_zeta(evolution.history, factor, progress))
        rows.append(_headline(other, reference, index, base, zeta=factor))
    return rows


def _headline(
    evolution: Evolution,
    reference: Evolution | None,
    index: int | None,
    base: int,
    *,
    chosen: bool = False,
    zeta: float = 1.0,
) -> SensitivityRow:
    boundary, signs = find_boundary(evolution), None
    if reference is not None:
        signs = reference_signs(evolution.history, reference.under(evolution.rule))
    return SensitivityRow(
        rule=str(evolution.rule),
        zeta=zeta,
        chosen=chosen,
        boundary=boundary,
        at_boundary={} if index is None else _mean_counts(evolution, index, base),
        at_last=_mean_counts(evolution, evolution.history.steps.size - 1, base),
        findings=[found.holds for found in measure_findings(evolution, boundary, base=base, references=signs)],
    )


def what_survives(
    boundary: Boundary, findings: Sequence[Finding], rows: Sequence[SensitivityRow], placebos: Sequence[PlaceboDiff]
) -> str:
    """One line: which conclusions are the same in every row, which in most rows, and which are beyond the placebo."""
    same = _rows_that_agree(boundary, findings, rows)
    always = [conclusion for conclusion, count in same if count == len(rows)]
    mostly = [
        f"{conclusion} ({count} of {len(rows)})" for conclusion, count in same if len(rows) / 2 < count < len(rows)
    ]
    line = "; ".join(always) if always else "none"
    most = f"; under most: {', '.join(mostly)}" if mostly else ""
    placebo = [_beyond_noise(diff) for diff in placebos]
    said = "; no placebo was extracted" if not placebo else f"; {'; '.join(placebo)}"
    tried = (
        "every τ rule, value and ζ tried" if any(row.zeta != 1.0 for row in rows) else "every τ rule and value tried"
    )
    return f"Conclusions that hold under {tried}: {line}{most}{said}."


def _rows_that_agree(
    boundary: Boundary, findings: Sequence[Finding], rows: Sequence[SensitivityRow]
) -> list[tuple[str, int]]:
    """Each conclusion of the chosen rule, and in how many rows it is the same."""
    ends = [row.boundary.step for row in rows]
    conclusions = []
    if boundary.step is None:
        conclusions.append(("the end of denoising cannot be determined", ends.count(None)))
    elif boundary.low is not None and boundary.high is not None:
        inside = sum(step is not None and boundary.low <= step <= boundary.high for step in ends)
        conclusions.append((f"denoising ends within steps {boundary.low}–{boundary.high}", inside))
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
