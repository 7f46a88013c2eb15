"""Which conclusions do not depend on a choice: the headline under every τ rule, a range of τ, ζ, and the placebo.

ζ is part of the decomposition, so another one needs the stored scores to be decomposed again: done on
request, at the base step, the end of denoising and the last step only, with τ as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from engine.analysis.evolution import Change, Evolution, partition
from engine.analysis.findings import Finding, Holds, measure_findings
from engine.analysis.placebo import PlaceboDiff
from engine.analysis.stages import Boundary, find_boundary
from engine.analysis.thresholds import ThresholdRule, default_rules
from engine.errors import SftscopeError
from engine.progress import Progress

TAU_FACTORS = (0.5, 0.7, 1.5, 2.0)
ZETA_FACTORS = (0.5, 2.0)
PLACEBO_SHARE = 0.1  # of the real count; more than that may be noise


@dataclass(frozen=True)
class SensitivityRow:
    """The headline under one threshold rule; counts are means over probes by class.

    at_boundary: at the denoising stage's end of the rule looked at, not of this rule, so that all
    rows speak of one step; empty where there are not two stages. chosen: whether this is that rule.
    """

    rule: str
    chosen: bool
    boundary: Boundary
    at_boundary: dict[Change, float]
    at_last: dict[Change, float]
    findings: list[Holds]


@dataclass(frozen=True)
class ZetaRow:
    """Counts at one step against the base step with ζ times `factor`, means over probes."""

    factor: float
    step: int
    counts: dict[Change, float]


def measure_sensitivity(
    evolution: Evolution, *, base: int = 0, progress: Progress | None = None
) -> list[SensitivityRow]:
    """The headline under the rule of `evolution`, every default rule, and multiples of its own value."""
    last = evolution.history.steps.size - 1
    index = find_boundary(evolution).index
    rules = _rules(evolution.rule)
    rows = []
    for done, rule in enumerate(rules):
        other = evolution if rule == evolution.rule else Evolution(evolution.history, rule)
        boundary = find_boundary(other)
        rows.append(
            SensitivityRow(
                rule=str(rule),
                chosen=rule == evolution.rule,
                boundary=boundary,
                at_boundary={} if index is None else _mean_counts(other, index, base),
                at_last=_mean_counts(other, last, base),
                findings=[found.holds for found in measure_findings(other, boundary, base=base)],
            )
        )
        if progress is not None:
            progress(done + 1, len(rules), str(rule))
    return rows


def measure_zeta(evolution: Evolution, steps: Sequence[int], *, base: int = 0) -> list[ZetaRow]:
    """Counts at the step indices `steps` against `base` under other ζ; SftscopeError where scipy is missing."""
    if find_spec("scipy") is None:
        raise SftscopeError("other ζ need scipy to decompose again; install it with: pip install 'sftscope[engine]'")
    from engine.decomposition import decompose

    later = [step for step in dict.fromkeys(steps) if step != base]
    wanted = [base, *later]
    rows = []
    for factor in ZETA_FACTORS:
        counts = np.zeros((len(later), len(Change)))
        for p, part in enumerate(evolution.history.probes):
            result = decompose(
                part.scores[wanted].astype(np.float64),
                factor * part.zeta[wanted],
                names=[part.probe.variables] * len(wanted),
            )
            effects = np.stack([result.and_effects, result.or_effects], axis=1)
            omega = [evolution.encodes(p, step, effects[i]) for i, step in enumerate(wanted)]
            counts += [[sets.sum() for sets in partition(omega[0], now).values()] for now in omega[1:]]
        for step, row in zip(later, counts / len(evolution.history.probes), strict=True):
            number = int(evolution.history.steps[step])
            rows.append(ZetaRow(factor, number, dict(zip(Change, row.tolist(), strict=True))))
    return rows


def what_survives(
    boundary: Boundary, findings: Sequence[Finding], rows: Sequence[SensitivityRow], placebos: Sequence[PlaceboDiff]
) -> str:
    """One line: which conclusions are the same under every rule, and are beyond the placebo."""
    survives = [
        f"finding {found.number} {found.holds}"
        for i, found in enumerate(findings)
        if found.holds is not Holds.UNDECIDED and all(row.findings[i] is found.holds for row in rows)
    ]
    if boundary.step is None:
        if all(row.boundary.step is None for row in rows):
            survives.insert(0, "no two stages can be told")
    elif boundary.low is not None and boundary.high is not None:
        ends = [row.boundary.step for row in rows]
        if all(step is not None and boundary.low <= step <= boundary.high for step in ends):
            survives.insert(0, f"denoising ends within steps {boundary.low}–{boundary.high}")
    line = "; ".join(survives) if survives else "none of the conclusions"
    placebo = [_beyond_noise(diff) for diff in placebos]
    said = "; no placebo was extracted" if not placebo else f"; {'; '.join(placebo)}"
    return f"Under every τ rule and value tried: {line}{said}."


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
