"""The report of a run: the answer in words, then tables, as Markdown and as JSON; HTML is made by `page`.

Headless; reads a run and never writes into it. Equal runs give equal bytes: there is no clock and no
path in a report. The numbers are those of `views`, which `show` and the explorer use too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.analysis.evolution import Change, Evolution
from engine.analysis.figures import FORMATS as FIGURE_FORMATS
from engine.analysis.figures import draw, figures, need_matplotlib
from engine.analysis.findings import Finding, measure_findings
from engine.analysis.history import load_history
from engine.analysis.placebo import TRUSTED_JACCARD, PlaceboDiff, compare_placebos, sentence
from engine.analysis.quality import CERTIFIED_GAP, Quality, measure_quality
from engine.analysis.reference import reference_signs
from engine.analysis.run_csv import as_csv
from engine.analysis.sensitivity import SensitivityRow, ZetaRow, measure_sensitivity, measure_zeta, what_survives
from engine.analysis.show import describe, model_name
from engine.analysis.tables import (
    Table,
    as_markdown,
    backbone_table,
    changes_table,
    findings_table,
    orders_table,
    placebo_table,
    quality_table,
    sensitivity_table,
    spread,
    trends_table,
    zeta_table,
)
from engine.analysis.verdict import Verdict, judge
from engine.analysis.views import (
    Backbone,
    ChangeRow,
    Changes,
    Orders,
    Selection,
    Trends,
    as_plain,
    backbone,
    changes,
    orders_view,
    to_json,
    to_plain,
    trends,
)
from engine.errors import SftscopeError
from engine.progress import Progress
from engine.store import write_atomically
from engine.text import markdown_cell, safe_text

SCHEMA = "sftscope-report"
VERSION = 1
FORMATS = ("md", "json", "csv", "html", "figures")
MAX_STEPS = 40
STRONGEST = 5


@dataclass(frozen=True, eq=False)
class Report:
    """Everything a report says, before it has a form; `changes` and `orders` go with `chosen`.

    chosen: indices of the steps looked at closely: base, end of denoising where there is one, last.
    """

    evolution: Evolution
    chosen: tuple[int, ...]
    trends: Trends
    verdict: Verdict
    changes: tuple[Changes, ...]
    orders: tuple[Orders, ...]
    backbone: Backbone
    sensitivity: list[SensitivityRow]
    quality: Quality
    placebos: list[PlaceboDiff]
    findings: list[Finding]
    survives: str
    zeta: list[ZetaRow]
    reference: str  # name of the baseline LLM's run, safe to show; empty where there is none


def write_report(
    source: Path | Evolution,
    out: Path,
    formats: Sequence[str] = ("md", "json"),
    *,
    reference: Evolution | None = None,
    zeta: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the report into the folder `out`, in the formats asked for; returns the paths of its files.

    formats: of `FORMATS`. reference: the run of the baseline LLM, for the generalizable ratio. zeta:
    whether to decompose again under other ζ.
    """
    for name in formats:
        if name not in FORMATS:
            shown = safe_text(repr(name), max_length=40)
            raise SftscopeError(f"report format {shown}: not one of {', '.join(FORMATS)}")
    if "html" in formats or "figures" in formats:
        need_matplotlib()
    evolution = source if isinstance(source, Evolution) else Evolution(load_history(source))
    report = make_report(evolution, reference=reference, zeta=zeta, progress=progress)
    written = []
    for name in dict.fromkeys(formats):
        for path, content in _files(report, name, progress):
            write_atomically(out / path, content)
            written.append(out / path)
    return written


def _files(report: Report, kind: str, progress: Progress | None) -> Iterator[tuple[str, bytes]]:
    """The files of one format: their names and bytes."""
    match kind:
        case "md":
            yield "report.md", as_text(report).encode()
        case "json":
            yield "report.json", as_json(report).encode()
        case "csv":
            yield "interactions.csv", as_csv(report.evolution).encode()
        case "html":
            from engine.analysis.page import as_html  # it is made of reports

            yield "report.html", as_html(report, progress).encode()
        case _:
            drawings = figures(report)
            for done, (name, (_, drawing)) in enumerate(drawings.items()):
                for extension in FIGURE_FORMATS:
                    yield f"figures/{name}.{extension}", draw(name, drawing, extension)
                if progress is not None:
                    progress(done + 1, len(drawings), name)


def make_report(
    evolution: Evolution,
    *,
    reference: Evolution | None = None,
    zeta: bool = False,
    progress: Progress | None = None,
) -> Report:
    """All views of a run at the steps that its story turns on, against the first extracted step."""
    last = Selection(evolution.history.steps.size - 1)
    signs = None if reference is None else reference_signs(evolution.history, reference)
    over_time = trends(evolution, last, references=signs)
    boundary = over_time.boundary.index
    chosen = tuple(sorted({0, last.now, *([] if boundary is None else [boundary])}))
    findings = measure_findings(evolution, over_time.boundary, references=signs)
    sensitivity = measure_sensitivity(evolution, progress=progress)
    placebos = compare_placebos(evolution, last)
    return Report(
        evolution=evolution,
        chosen=chosen,
        trends=over_time,
        verdict=judge(over_time),
        changes=tuple(changes(evolution, replace(last, now=now)) for now in chosen),
        orders=tuple(orders_view(evolution, replace(last, now=now)) for now in chosen),
        backbone=backbone(evolution, last),
        sensitivity=sensitivity,
        quality=measure_quality(evolution, last),
        placebos=placebos,
        findings=findings,
        survives=what_survives(over_time.boundary, findings, sensitivity, placebos),
        zeta=measure_zeta(evolution, chosen) if zeta else [],
        reference="" if reference is None else reference.history.name,
    )


def as_json(report: Report) -> str:
    """The report as JSON text; an undefined number is null, an effect's series is left to `show`."""
    history = report.evolution.history
    over_time = as_plain(report.trends)
    diffs = [as_plain(replace(part, rows=[replace(row, series=()) for row in part.rows])) for part in report.changes]
    for diff in diffs:
        for row in diff["rows"]:
            del row["series"]
    return to_json(
        {
            "schema": SCHEMA,
            "version": VERSION,
            **describe(report.evolution),
            "base_step": report.trends.base_step,
            "chosen_steps": [report.trends.steps[index] for index in report.chosen],
            "verdict": as_plain(report.verdict),
            "boundary": over_time.pop("boundary"),
            "trends": over_time,
            "changes": diffs,
            "orders": [as_plain(part) for part in report.orders],
            "backbone": as_plain(report.backbone),
            "sensitivity": [as_plain(row) for row in report.sensitivity],
            "quality": as_plain(report.quality),
            "placebo": [as_plain(part) for part in report.placebos],
            "findings": [as_plain(found) for found in report.findings],
            "survives": report.survives,
            "zeta": [as_plain(row) for row in report.zeta],
            "baseline_llm": report.reference or None,
            "provenance": to_plain(history.run),
            "left_out": list(history.left_out),
        }
    )


def as_text(report: Report) -> str:
    """The report as Markdown."""
    history = report.evolution.history
    model = model_name(history.run)
    listed = [f"- {markdown_cell(line)}" for line in warnings(report)]
    parts = [
        f"# What fine-tuning changed: {markdown_cell(history.name)}",
        f"{f'{markdown_cell(model)}, ' if model else ''}{len(history.probes)} probes, "
        f"{history.steps.size} steps from {report.trends.steps[0]} to {report.trends.steps[-1]}, "
        f"τ {report.evolution.rule}.",
        "## When should it have stopped?",
        f"**{report.verdict.sentence}**",
        "\n".join(f"- {line}" for line in report.verdict.evidence),
        *(["\n".join(listed)] if listed else []),
        report.survives,
        "## The paper's findings on this run",
        as_markdown(findings_table(report.findings)),
        *_over_the_steps(report),
        *_strongest(report),
        *_orders(report),
        "## Predicting with one class alone",
        "Cross-entropy of the target from the sum of these interactions and the bias b, in nats, "
        "mean over probes; then without b.",
        as_markdown(backbone_table(report.backbone, report.chosen)),
        "## How much depends on the threshold τ",
        "Mean counts a probe under every rule; findings 1 to 5: ✓ holds, ✗ does not, ? undecided. "
        "The end of denoising in the columns of counts is that of the "
        "chosen rule, so that a row differs from the next by its τ alone.",
        as_markdown(sensitivity_table(report.sensitivity)),
        *(["With other noise bounds ζ, τ as it was:", as_markdown(zeta_table(report.zeta))] if report.zeta else []),
        "## Quality",
        as_markdown(quality_table(report.quality, report.trends)),
        *_placebo(report),
        "## Provenance",
        as_markdown(provenance(history.run)),
    ]
    return "\n\n".join(parts) + "\n"


def title(report: Report) -> str:
    """The run and what it is of, as it came."""
    history = report.evolution.history
    model = model_name(history.run)
    return f"{history.name}{f', {model}' if model else ''}, {len(history.probes)} probes, τ {report.evolution.rule}"


def warnings(report: Report) -> list[str]:
    """What a reader must know before trusting the rest, as it came."""
    lines = [f"Left out, damaged or foreign: {reason}" for reason in report.evolution.history.left_out]
    if report.quality.uncertified:
        steps = ", ".join(map(str, report.quality.uncertified))
        lines.append(f"Not final, the certified gap is above {CERTIFIED_GAP:g} at the steps {steps}.")
    lines += [
        f"Not to be trusted, the sets change by themselves: {sentence(part)} (expected at least {TRUSTED_JACCARD})."
        for part in report.placebos
        if part.jaccard < TRUSTED_JACCARD
    ]
    if report.trends.base_step != 0:
        lines.append(
            f"The first extracted step is {report.trends.base_step}, not 0: removed, preserved and newly "
            "emerged are told against an LLM that is already fine-tuned."
        )
    return lines


def _over_the_steps(report: Report) -> list[str]:
    boundary = report.trends.boundary.index
    last = len(report.trends.steps) - 1
    notes = {0: "base"} | ({} if boundary is None else {boundary: "end of denoising"})
    rows = spread(last + 1, [0, last, *notes], MAX_STEPS)
    thinned = "" if len(rows) == last + 1 else f" {len(rows)} of {last + 1} steps are shown; report.json has all."
    return [
        "## Over the steps",
        "Means over probes, against the first step: − removed, = preserved, + newly emerged; n count, "
        f"Σ|I| strength, γu uncancelled ratio (– where a class is empty).{thinned}",
        as_markdown(trends_table(report.trends, rows, notes)),
    ]


def strongest_rows(report: Report, probe: str) -> Iterator[tuple[Changes, Change, Sequence[ChangeRow], int]]:
    """The strongest preserved and emerged of a probe at the end of denoising, and emerged at the last step.

    Each with the diff it is of, its class, and the number of all rows of that class.
    """
    index = report.trends.boundary.index
    first = report.changes[-1] if index is None else report.changes[report.chosen.index(index)]
    wanted = [(first, Change.PRESERVED), (first, Change.EMERGED), (report.changes[-1], Change.EMERGED)]
    for diff, change in wanted if first is not report.changes[-1] else wanted[:2]:
        rows = [row for row in diff.rows if row.probe == probe and row.change is change]
        yield diff, change, rows[:STRONGEST], len(rows)


def _strongest(report: Report) -> list[str]:
    parts = [
        "## The strongest interactions",
        "Effects are log-odds of the target token; words in text order.",
    ]
    for part in report.evolution.history.probes:
        parts.append(f"### {markdown_cell(safe_text(part.probe.id, max_length=60))}")
        parts.append(f"> {markdown_cell(safe_text(part.probe.text, max_length=400))}")
        target = part.target.get("text")
        if isinstance(target, str):
            parts.append(f"Target token: {markdown_cell(repr(safe_text(target, max_length=60)))}")
        for diff, change, rows, total in strongest_rows(report, part.probe.id):
            if rows:
                parts.append(f"Step {diff.step}, {change.value}, {len(rows)} of {total}:")
                parts.append(as_markdown(changes_table(rows, diff.base_step, diff.step, with_probe=False)))
            else:
                parts.append(f"Step {diff.step}: nothing {change.value}.")
    return parts


def _orders(report: Report) -> list[str]:
    parts = [
        "## Orders",
        "Order is the number of words. Σ+ and Σ- are sums of positive and of negative effects, n counts; "
        "means over probes.",
    ]
    for view in report.orders:
        parts += [f"Step {view.step}, against step {view.base_step}:", as_markdown(orders_table(view))]
    return parts


def _placebo(report: Report) -> list[str]:
    """What changes where nothing was trained, beside what changed."""
    if not report.placebos:
        return ["No placebo was extracted; `sftscope extract RUN --placebo` says what noise alone changes."]
    sentences = "\n".join(f"- {sentence(part)[:1].upper()}{sentence(part)[1:]}." for part in report.placebos)
    return [
        "Placebo: a checkpoint extracted a second time in another batch layout. What it removes and invents "
        "is numerical noise; counts are sums over probes.",
        sentences,
        as_markdown(placebo_table(report.placebos)),
    ]


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
