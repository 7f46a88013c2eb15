"""What a report says, before it has a form: all views of a run at the steps that its story turns on.

Writes nothing: `outline` orders it, `document` and `page` give it a form. Equal runs give equal content: there is no
clock and no path in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sftscope.analysis.comparison.baseline_llm import reference_signs
from sftscope.analysis.conclusions.online_verdict import Said, as_it_went
from sftscope.analysis.conclusions.paper_findings import Finding, measure_findings
from sftscope.analysis.conclusions.verdict import Verdict, verdict_of
from sftscope.analysis.rows.row_index import RowIndex
from sftscope.analysis.sets.evolution import Change, Evolution
from sftscope.analysis.sets.views import (
    Backbone,
    ChangeRow,
    Changes,
    Orders,
    Selection,
    Trends,
    backbone,
    changes,
    orders_view,
    trends,
)
from sftscope.analysis.trust.caveats import caveats
from sftscope.analysis.trust.certificates import CERTIFIED_GAP, Quality, measure_quality
from sftscope.analysis.trust.estimate_intervals import EstimateView, estimate_view
from sftscope.analysis.trust.noise_support import kept_copies, with_noise_support
from sftscope.analysis.trust.number_course import Carried
from sftscope.analysis.trust.placebo import TRUSTED_JACCARD, PlaceboDiff, compare_placebos, sentence
from sftscope.analysis.trust.sensitivity import SensitivityRow, measure_sensitivity, what_survives, what_zeta_carries
from sftscope.analysis.trust.solver_residue import SolverResidue, measure_residue
from sftscope.foundation.progress import Progress
from sftscope.foundation.safe_text import first_of_each_kind, safe_text
from sftscope.reporting.tables import Table, spread
from sftscope.reporting.traced_table import Traced, trace_strongest

STRONGEST = 5
TRACED = 10  # newly emerged interactions whose training rows are shown
NOT_READ = "The training rows were not read."
MAX_WATCHED = 64
MAX_STEPS = 40  # rows of a table over the steps


@dataclass(frozen=True, eq=False)
class Report:
    """Everything a report says, before it has a form; `changes` and `orders` go with `chosen`.

    chosen: indices of the steps looked at closely: base, sparsest where there is one, last.
    """

    evolution: Evolution
    chosen: tuple[int, ...]
    trends: Trends
    verdict: Verdict
    changes: tuple[Changes, ...]
    orders: tuple[Orders, ...]
    has_support: bool
    backbone: Backbone
    sensitivity: list[SensitivityRow]
    carried: list[Carried]  # empty where no other ζ was tried
    quality: Quality
    estimate: EstimateView | None
    placebos: list[PlaceboDiff]
    findings: list[Finding]
    survives: str
    residue: list[SolverResidue]
    as_it_went: list[Said]  # empty for runs of more than MAX_WATCHED checkpoints
    online: str
    rows: RowIndex | str  # of the training; or a sentence why there are none
    traced: list[Traced]  # newly emerged at the last step, strongest first; empty without rows
    reference: str  # name of the baseline LLM's run, safe to show; empty where there is none


def make_report(
    evolution: Evolution,
    *,
    reference: Evolution | None = None,
    zeta: bool = False,
    descent: bool = False,
    support: bool = False,
    rows: RowIndex | str = NOT_READ,
    progress: Progress | None = None,
) -> Report:
    """All views of a run at the steps that its story turns on, against the first extracted step.

    rows: of the training; or a sentence, without a path, why there are none.
    """
    last = Selection(evolution.history.steps.size - 1)
    signs = None if reference is None else reference_signs(evolution.history, reference)
    over_time = trends(evolution, last, references=signs)
    sparsest = over_time.events.sparsest
    chosen = tuple(sorted({0, last.now, *([] if sparsest.index is None else [sparsest.index])}))
    findings = measure_findings(evolution, sparsest, references=signs)
    sensitivity = measure_sensitivity(evolution, reference=reference, zeta=zeta, progress=progress)
    placebos = compare_placebos(evolution, last)
    looked_at = [replace(last, now=now) for now in chosen]
    diffs = [changes(evolution, selection) for selection in looked_at]
    if support:
        made = kept_copies(evolution.history)  # all are compared with the same base step
        diffs = [
            with_noise_support(evolution, selection, diff, made=made, progress=progress)
            for selection, diff in zip(looked_at, diffs, strict=True)
        ]
    said = as_it_went(evolution) if evolution.history.steps.size <= MAX_WATCHED else []
    return Report(
        evolution=evolution,
        chosen=chosen,
        trends=over_time,
        verdict=verdict_of(evolution),
        changes=tuple(diffs),
        has_support=support,
        orders=tuple(orders_view(evolution, replace(last, now=now)) for now in chosen),
        backbone=backbone(evolution, last),
        sensitivity=sensitivity,
        carried=what_zeta_carries(sensitivity),
        quality=measure_quality(evolution, last),
        estimate=estimate_view(evolution, last),
        placebos=placebos,
        findings=findings,
        survives=what_survives(sparsest, findings, sensitivity, placebos),
        residue=measure_residue(evolution, chosen, progress) if descent else [],
        as_it_went=said,
        online=_online(said),
        rows=rows,
        traced=[] if isinstance(rows, str) else trace_strongest(evolution.history, diffs[-1], rows, TRACED),
        reference="" if reference is None else reference.history.name,
    )


def shown_steps(report: Report) -> list[int]:
    """The steps that a table over the steps shows: indices, with the first, the last and the sparsest one."""
    sparsest, last = report.trends.events.sparsest.index, len(report.trends.steps) - 1
    return spread(last + 1, [0, last, *([] if sparsest is None else [sparsest])], MAX_STEPS)


def _online(said: Sequence[Said]) -> str:
    """When the sparsest step could first be determined, from the steps up to then."""
    if not said:
        return f"When it could first be determined is measured for runs of at most {MAX_WATCHED} checkpoints."
    first = next((part for part in said if part.events.two_stages), None)
    if first is None:
        return "During the run, the sparsest step could not be determined at any step."
    where = first.events.sparsest.step
    return f"During the run, the sparsest step could first be determined at step {first.step}: it lies at step {where}."


def warnings(report: Report) -> list[str]:
    """What a reader must know before trusting the rest, as it came."""
    history = report.evolution.history
    lines = [f"Left out: {reason}" for reason in first_of_each_kind(history.left_out)] + caveats(history)
    if report.quality.uncertified:
        steps = ", ".join(map(str, report.quality.uncertified))
        lines.append(f"Not final: the certified gap is above {CERTIFIED_GAP:g} at the steps {steps}.")
    lines += [
        f"Unreliable, the sets change by themselves: {sentence(part)} (expected at least {TRUSTED_JACCARD})."
        for part in report.placebos
        if part.jaccard < TRUSTED_JACCARD
    ]
    if report.trends.base_step != 0:
        lines.append(
            f"The first extracted step is {report.trends.base_step}, not 0: removed, preserved and newly "
            "emerged are relative to an LLM that is already fine-tuned."
        )
    return lines


def strongest_rows(report: Report, probe: str) -> Iterator[tuple[Changes, Change, Sequence[ChangeRow], int]]:
    """The strongest preserved and emerged of a probe at the sparsest step, and emerged at the last step.

    Each with the diff it is of, its class, and the number of all rows of that class.
    """
    index = report.trends.events.sparsest.index
    first = report.changes[-1] if index is None else report.changes[report.chosen.index(index)]
    wanted = [(first, Change.PRESERVED), (first, Change.EMERGED), (report.changes[-1], Change.EMERGED)]
    for diff, change in wanted if first is not report.changes[-1] else wanted[:2]:
        rows = [row for row in diff.rows if row.probe == probe and row.change is change]
        yield diff, change, rows[:STRONGEST], len(rows)


def provenance(run: Mapping[str, Any]) -> Table:
    """Every field of run.toml."""
    rows = [(key, safe_text(value, max_length=200)) for key, value in _flat(run, "")]
    return Table(("field of run.toml", "value"), rows, frozenset([0, 1]))


def _flat(value: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    """Nested tables as (dotted key, text) pairs in their order."""
    pairs = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            pairs += _flat(item, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", str(item)))
    return pairs
