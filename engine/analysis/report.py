"""The report of a run: the answer in words, then tables, as Markdown and as JSON.

Headless; reads a run and never writes into it. Equal runs give equal bytes: there is no clock and no
path in a report. The numbers are those of `views`, which `show` and the explorer use too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.analysis.evolution import Change, Evolution
from engine.analysis.history import load_history
from engine.analysis.placebo import TRUSTED_JACCARD, PlaceboDiff, compare_placebos, sentence
from engine.analysis.quality import CERTIFIED_GAP, Quality, SensitivityRow, measure_quality, measure_sensitivity
from engine.analysis.show import describe, model_name
from engine.analysis.tables import (
    Table,
    as_markdown,
    backbone_table,
    changes_table,
    orders_table,
    placebo_table,
    quality_table,
    sensitivity_table,
    spread,
    trends_table,
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
from engine.store import write_atomically
from engine.text import markdown_cell, safe_text

SCHEMA = "sftscope-report"
VERSION = 1
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


def write_report(source: Path | Evolution, out: Path, formats: Sequence[str] = ("md", "json")) -> list[Path]:
    """Write `report.md` and `report.json`, those asked for, into the folder `out`; returns their paths."""
    writers: dict[str, Callable[[Report], str]] = {"md": as_text, "json": as_json}
    for name in formats:
        if name not in writers:
            shown = safe_text(repr(name), max_length=40)
            raise SftscopeError(f"report format {shown}: not one of {', '.join(writers)}")
    evolution = source if isinstance(source, Evolution) else Evolution(load_history(source))
    report = make_report(evolution)
    written = []
    for name in dict.fromkeys(formats):
        path = out / f"report.{name}"
        write_atomically(path, writers[name](report).encode("utf-8"))
        written.append(path)
    return written


def make_report(evolution: Evolution) -> Report:
    """All views of a run at the steps that its story turns on, against the first extracted step."""
    last = Selection(evolution.history.steps.size - 1)
    over_time = trends(evolution, last)
    boundary = over_time.boundary.index
    chosen = tuple(sorted({0, last.now, *([] if boundary is None else [boundary])}))
    return Report(
        evolution=evolution,
        chosen=chosen,
        trends=over_time,
        verdict=judge(over_time),
        changes=tuple(changes(evolution, replace(last, now=now)) for now in chosen),
        orders=tuple(orders_view(evolution, replace(last, now=now)) for now in chosen),
        backbone=backbone(evolution, last),
        sensitivity=measure_sensitivity(evolution),
        quality=measure_quality(evolution, last),
        placebos=compare_placebos(evolution, last),
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
            "provenance": to_plain(history.run),
            "left_out": list(history.left_out),
        }
    )


def as_text(report: Report) -> str:
    """The report as Markdown."""
    history = report.evolution.history
    model = model_name(history.run)
    parts = [
        f"# What fine-tuning changed: {markdown_cell(history.name)}",
        f"{f'{markdown_cell(model)}, ' if model else ''}{len(history.probes)} probes, "
        f"{history.steps.size} steps from {report.trends.steps[0]} to {report.trends.steps[-1]}, "
        f"τ {report.evolution.rule}.",
        "## When should it have stopped?",
        f"**{report.verdict.sentence}**",
        "\n".join(f"- {line}" for line in report.verdict.evidence),
        *_warnings(report),
        *_over_the_steps(report),
        *_strongest(report),
        *_orders(report),
        "## Predicting with one class alone",
        "Cross-entropy of the target from the sum of these interactions and the bias b, in nats, "
        "mean over probes; then without b.",
        as_markdown(backbone_table(report.backbone, report.chosen)),
        "## How much depends on the threshold τ",
        "Mean counts a probe under every rule. The end of denoising in the columns of counts is that of the "
        "chosen rule, so that a row differs from the next by its τ alone.",
        as_markdown(sensitivity_table(report.sensitivity)),
        "## Quality",
        as_markdown(quality_table(report.quality, report.trends)),
        *_placebo(report),
        "## Provenance",
        as_markdown(_provenance(history.run)),
    ]
    return "\n\n".join(parts) + "\n"


def _warnings(report: Report) -> list[str]:
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
    return ["\n".join(f"- {markdown_cell(line)}" for line in lines)] if lines else []


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


def _strongest(report: Report) -> list[str]:
    """Per probe the strongest preserved and emerged at the end of denoising, and emerged at the last step."""
    wanted = [(report.changes[-1], Change.EMERGED)]
    if report.trends.boundary.index is not None:
        at_boundary = report.changes[report.chosen.index(report.trends.boundary.index)]
        wanted = [(at_boundary, Change.PRESERVED), (at_boundary, Change.EMERGED), *wanted]
    else:
        wanted = [(report.changes[-1], Change.PRESERVED), *wanted]
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
        for diff, change in wanted:
            rows = [row for row in diff.rows if row.probe == part.probe.id and row.change is change]
            parts.append(_strongest_table(rows, diff, change))
    return parts


def _strongest_table(rows: Sequence[ChangeRow], diff: Changes, change: Change) -> str:
    if not rows:
        return f"Step {diff.step}: nothing {change.value}."
    shown = changes_table(rows[:STRONGEST], diff.base_step, diff.step, with_probe=False)
    count = f"{min(STRONGEST, len(rows))} of {len(rows)}"
    return f"Step {diff.step}, {change.value}, {count}:\n\n{as_markdown(shown)}"


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


def _provenance(run: Mapping[str, Any]) -> Table:
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
