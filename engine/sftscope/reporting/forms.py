"""The report of a run as files: Markdown and JSON are written here, HTML by `page`, CSV by `run_csv`.

Headless; reads a run and never writes into it. Equal runs give equal bytes: there is no clock and no
path in a report. The numbers are those of `views`, which `show` and the explorer use too.

report.json, schema `sftscope-report`, version 2; keys are only added within a version. Lists "over the
steps" are as long as `steps`; an undefined number is null; effects, τ and strengths are log-odds.

============== ==============================================================================
key            content
============== ==============================================================================
run, model     names; `steps`, `probes` (ids), `base_step`, `chosen_steps`
tau            rule, value, provisional (can still move), by_probe: τ over the steps
noise_floor    factor, sigma_by_probe
verdict        agreement, sentence, evidence, stop_step, latest_step, held_out
boundary       index, step, low, high (95 % interval, steps), reason; nulls where there are not two stages
trends         over the steps: counts, strengths, ratios of each class, matching errors, Jaccard, losses
changes        at each chosen step: counts, and rows (probe, change, relation, subset, words, effects)
orders         at each chosen step and class: per order Σ of positive and negative effects, count
backbone       over the steps: cross-entropy of each class alone with and without b, nats
sensitivity    per τ rule, with --zeta also per ζ (its factor): boundary, counts at the end of denoising and
               the last step, findings 1-5
findings       number, claim, holds, numbers
residue        with --descent: |Ω| of the certified sets and of an unfinished descent at the chosen steps
as_it_went     per step: held-out loss and accuracy, boundary and verdict from the steps up to it
online         one line: when the end of denoising could first be determined from the past alone
survives       one line: the conclusions that hold under every rule, under most, and beyond the placebo
baseline_llm   name of the run given with --baseline, or null
quality, placebo, provenance, left_out
estimate       of sampled masked states: R² of those held out, intervals of counts; null where all were scored
============== ==============================================================================
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sftscope.analysis.run.read_run import load_history
from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.views import (
    as_plain,
    to_plain,
)
from sftscope.analysis.shapley import moebius_values, to_shapiq
from sftscope.analysis.trust.placebo import sentence
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import Progress
from sftscope.foundation.safe_text import json_text, markdown_cell, safe_lines, safe_text
from sftscope.reporting.content import (
    AS_IT_WENT,
    ESTIMATE,
    RESIDUE,
    Report,
    make_report,
    provenance,
    shown_steps,
    strongest_rows,
    warnings,
)
from sftscope.reporting.figures import FORMATS as FIGURE_FORMATS
from sftscope.reporting.figures import draw, figures, need_matplotlib
from sftscope.reporting.page import as_html
from sftscope.reporting.run_csv import as_csv, word_values_csv
from sftscope.reporting.show import describe, model_name
from sftscope.reporting.tables import (
    as_it_went_table,
    as_markdown,
    backbone_table,
    changes_table,
    estimate_lines,
    estimate_table,
    findings_table,
    orders_table,
    placebo_table,
    quality_table,
    residue_table,
    sensitivity_table,
    trends_table,
)
from sftscope.store import write_atomically

SCHEMA = "sftscope-report"
VERSION = 2
FORMATS = ("md", "json", "csv", "html", "figures", "shapiq")


def write_report(
    source: Path | Evolution,
    out: Path,
    formats: Sequence[str] = ("md", "json"),
    *,
    reference: Evolution | None = None,
    zeta: bool = False,
    descent: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the report into the folder `out`, in the formats asked for; returns the paths of its files.

    formats: of `FORMATS`. reference: the run of the baseline LLM, for the generalizable ratio. zeta:
    whether to decompose again under other ζ. descent: whether to decompose by the plain descent, to compare with.
    """
    for name in formats:
        if name not in FORMATS:
            shown = safe_text(repr(name), max_length=40)
            raise SftscopeError(f"report format {shown}: not one of {', '.join(FORMATS)}")
    if "html" in formats or "figures" in formats:
        need_matplotlib()
    evolution = source if isinstance(source, Evolution) else Evolution(load_history(source))
    report = make_report(evolution, reference=reference, zeta=zeta, descent=descent, progress=progress)
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
            yield "report.md", safe_lines(as_text(report)).encode()
        case "json":
            yield "report.json", as_json(report).encode()
        case "csv":
            yield "interactions.csv", as_csv(report.evolution).encode()
            yield "word_values.csv", word_values_csv(report.evolution, report.chosen).encode()
        case "shapiq":
            last = report.evolution.history.steps.size - 1
            for number, part in enumerate(report.evolution.history.probes):
                if part.is_estimated:
                    shown = safe_text(repr(part.probe.id), max_length=60)
                    raise SftscopeError(
                        f"--format shapiq: needs all masked states, and those of probe {shown} are a sample"
                    )
                scores = part.scores[last].astype(np.float64)
                values, n = moebius_values(scores), part.n_variables
                content = to_shapiq(values, index="Moebius", max_order=n, bias=float(scores[0]))
                yield f"shapiq/probe_{number:04d}.json", json_text(content).encode()
        case "html":
            yield "report.html", safe_lines(as_html(report, progress)).encode()
        case _:
            drawings = figures(report)
            for done, (name, (_, drawing)) in enumerate(drawings.items()):
                for extension in FIGURE_FORMATS:
                    yield f"figures/{name}.{extension}", draw(name, drawing, extension)
                if progress is not None:
                    progress(done + 1, len(drawings), name)


def as_json(report: Report) -> str:
    """The report as JSON text; an undefined number is null, an effect's series is left to `show`."""
    history = report.evolution.history
    over_time = as_plain(report.trends)
    diffs = [as_plain(replace(part, rows=[replace(row, series=()) for row in part.rows])) for part in report.changes]
    for diff in diffs:
        for row in diff["rows"]:
            del row["series"]
    return json_text(
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
            "estimate": as_plain(report.estimate),
            "placebo": [as_plain(part) for part in report.placebos],
            "findings": [as_plain(found) for found in report.findings],
            "survives": report.survives,
            "online": report.online,
            "residue": [as_plain(row) for row in report.residue],
            "as_it_went": [as_plain(part) for part in report.as_it_went],
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
        "\n".join(f"- {line}" for line in (*report.verdict.evidence, report.online)),
        *(["\n".join(listed)] if listed else []),
        report.survives,
        "## The paper's findings on this run",
        as_markdown(findings_table(report.findings)),
        *_over_the_steps(report),
        *_estimate(report),
        *_as_it_went(report),
        *_strongest(report),
        *_orders(report),
        "## Predicting with one class alone",
        "Cross-entropy of the target from the sum of these interactions and the bias b, in nats, "
        "mean over probes; then without b.",
        as_markdown(backbone_table(report.backbone, report.chosen)),
        "## How much depends on the threshold τ",
        "Mean counts per probe under every rule; findings 1 to 5: ✓ holds, ✗ does not, ? undecided. "
        "The counts at the end of denoising use the end under the chosen rule, so that rows differ by τ only.",
        as_markdown(sensitivity_table(report.sensitivity)),
        "## Quality",
        as_markdown(quality_table(report.quality, report.trends)),
        *_placebo(report),
        *([RESIDUE, as_markdown(residue_table(report.residue))] if report.residue else []),
        "## Provenance",
        as_markdown(provenance(history.run)),
    ]
    return "\n\n".join(parts) + "\n"


def _over_the_steps(report: Report) -> list[str]:
    boundary = report.trends.boundary.index
    last = len(report.trends.steps) - 1
    notes = {0: "base"} | ({} if boundary is None else {boundary: "end of denoising"})
    rows = shown_steps(report)
    thinned = "" if len(rows) == last + 1 else f" {len(rows)} of {last + 1} steps are shown; report.json has all."
    return [
        "## Over the steps",
        "Means over probes, against the first step: − removed, = preserved, + newly emerged; n count, "
        f"Σ|I| strength, γu uncancelled ratio (– where a class is empty).{thinned}",
        as_markdown(trends_table(report.trends, rows, notes)),
    ]


def _estimate(report: Report) -> list[str]:
    if report.estimate is None:
        return []
    lines = "\n".join(f"- {line}" for line in estimate_lines(report.estimate))
    return [f"## {ESTIMATE}", lines, as_markdown(estimate_table(report.estimate, shown_steps(report)))]


def _as_it_went(report: Report) -> list[str]:
    if not report.as_it_went:
        return []
    return ["## What could be said at each checkpoint", AS_IT_WENT, as_markdown(as_it_went_table(report.as_it_went))]


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
    """What changes without training, and what changed."""
    if not report.placebos:
        return ["No placebo was extracted; `sftscope extract RUN --placebo` measures what noise alone changes."]
    sentences = "\n".join(f"- {sentence(part)[:1].upper()}{sentence(part)[1:]}." for part in report.placebos)
    return [
        "Placebo: a checkpoint extracted a second time in another batch layout. What it removes and invents "
        "is numerical noise; counts are sums over probes.",
        sentences,
        as_markdown(placebo_table(report.placebos)),
    ]
