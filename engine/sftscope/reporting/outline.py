"""The report as a document: its sections, in their order, the same in every form."""

from collections.abc import Iterator

from sftscope.analysis.trust.placebo import sentence
from sftscope.foundation.safe_text import safe_text
from sftscope.reporting.chance_tables import (
    CHANCE_LEGEND,
    SUPPORT_LEGEND,
    chance_table,
    preserved_in_words,
    ratios_table,
)
from sftscope.reporting.content import Report, provenance, shown_steps, strongest_rows, warnings
from sftscope.reporting.document import Block, Document, Figure, Heading, Listing, Style, Text
from sftscope.reporting.figures import figures
from sftscope.reporting.show import model_name
from sftscope.reporting.tables import (
    as_it_went_table,
    backbone_table,
    changes_table,
    estimate_lines,
    estimate_table,
    findings_table,
    number_table,
    orders_table,
    placebo_table,
    quality_table,
    residue_table,
    sensitivity_table,
    soft_table,
    trends_table,
)
from sftscope.reporting.traced_table import traced_body


def outline(report: Report) -> Document:
    """Everything the report says, the answer first."""
    seen = (_answer, _figures, _findings, _over_the_steps, _estimate, _as_it_went, _strongest, _training_rows)
    sections = (*seen, _orders, _backbone, _sensitivity, _quality, _provenance)
    return [block for section in sections for block in section(report)]


def _answer(report: Report) -> Iterator[Block]:
    history, steps = report.evolution.history, report.trends.steps
    model = model_name(history.run)
    yield Heading(f"What fine-tuning changed: {history.name}", 1)
    yield Text(
        f"{f'{model}, ' if model else ''}{len(history.probes)} probes, {len(steps)} steps from {steps[0]} to "
        f"{steps[-1]}, τ {report.evolution.settings}."
    )
    yield Heading("When should it have stopped?")
    yield Text(report.verdict.sentence, Style.ANSWER)
    yield Listing([*report.verdict.evidence, report.online])
    yield Listing(warnings(report))
    yield Text(report.survives)


def _figures(report: Report) -> Iterator[Block]:
    yield Heading("Figures")
    yield Text("The HTML report shows them; the format figures writes them as files.")
    yield from (Figure(name, *parts) for name, parts in figures(report).items())


def _findings(report: Report) -> Iterator[Block]:
    yield Heading("The paper's findings on this run")
    yield findings_table(report.findings)


def _over_the_steps(report: Report) -> Iterator[Block]:
    boundary, total = report.trends.events.sparsest.index, len(report.trends.steps)
    repeats = report.trends.same_weights
    notes = {report.trends.steps.index(step): f"weights of step {first}" for step, first in repeats.items()}
    notes |= {0: "base"} | ({} if boundary is None else {boundary: "sparsest"})
    rows = shown_steps(report)
    thinned = "" if len(rows) == total else f" {len(rows)} of {total} steps are shown; report.json has all."
    yield Heading("Over the steps")
    yield Text(
        "Means over probes, without any threshold: N_eff is the effective number of interactions; removed, preserved "
        "and emerged are strengths as shares of all strength at the first step; order is weighted by strength; "
        f"turnover is what is exchanged between neighbouring steps.{thinned}"
    )
    yield soft_table(report.trends, rows, notes)
    yield Text(
        f"Under the threshold {report.evolution.rule}, against the first step: − removed, = preserved, + newly "
        "emerged; n count, Σ|I| strength, γu uncancelled ratio (– where a class is empty)."
    )
    yield trends_table(report.trends, rows, notes)
    yield Heading("Next to chance", 3)
    yield Listing(CHANCE_LEGEND)
    yield chance_table(report.trends, rows)
    yield ratios_table(report.trends, rows)
    said = [f"Step {diff.step}, all probes. {preserved_in_words(diff)}" for diff in report.changes]
    yield Listing([line for line, diff in zip(said, report.changes, strict=True) if preserved_in_words(diff)])


def _estimate(report: Report) -> Iterator[Block]:
    if report.estimate is not None:
        yield Heading("How far the estimates can be believed")
        yield Listing(estimate_lines(report.estimate))
        yield estimate_table(report.estimate, shown_steps(report))


def _as_it_went(report: Report) -> Iterator[Block]:
    if report.as_it_went:
        yield Heading("What could be said at each checkpoint")
        yield Text("Held-out loss and accuracy at each checkpoint, and the verdict from the checkpoints up to it.")
        yield as_it_went_table(report.as_it_went)


def _strongest(report: Report) -> Iterator[Block]:
    yield Heading("The strongest interactions")
    yield Text("Effects are log-odds of what is scored of the answer; words in text order.")
    if report.has_support:
        yield Text(SUPPORT_LEGEND)
    for part in report.evolution.history.probes:
        yield Heading(safe_text(part.probe.id, max_length=60), 3)
        yield Text(safe_text(part.probe.text, max_length=400), Style.QUOTE)
        yield Text(f"Scored: {safe_text(part.target_name, max_length=120)}")
        if line := part.probe.influence_in_words:
            yield Text(f"{line[0].upper()}{line[1:]}.")
        for diff, change, rows, total in strongest_rows(report, part.probe.id):
            if rows:
                yield Text(f"Step {diff.step}, {change.value}, {len(rows)} of {total}:")
                yield changes_table(rows, diff.base_step, diff.step, with_probe=False)
            else:
                yield Text(f"Step {diff.step}: nothing {change.value}.")


def _training_rows(report: Report) -> Iterator[Block]:
    yield Heading("Training rows behind the strongest newly emerged interactions")
    if isinstance(report.rows, str):
        yield Text(report.rows)
        return
    diff = report.changes[-1]
    yield Text(f"Step {diff.step}, against step {diff.base_step}; {len(report.rows.rows)} training rows.")
    yield from traced_body(report.traced, report.rows) if report.traced else [Text("Nothing newly emerged.")]


def _orders(report: Report) -> Iterator[Block]:
    yield Heading("Orders")
    yield Text(
        "Order is the number of words. Σ+ and Σ- are sums of positive and of negative effects, n counts; "
        "means over probes."
    )
    for view in report.orders:
        yield Text(f"Step {view.step}, against step {view.base_step}:")
        yield orders_table(view)


def _backbone(report: Report) -> Iterator[Block]:
    yield Heading("Predicting with one class alone")
    yield Text(
        "Cross-entropy of the target from the sum of these interactions alone, in nats, mean over probes; then with "
        "the bias b of that step, the same for every row. Without b, no interaction at all gives ln 2 = 0.693."
    )
    yield backbone_table(report.backbone, report.chosen)


def _sensitivity(report: Report) -> Iterator[Block]:
    yield Heading("How much depends on the threshold τ")
    yield Text(
        "Mean counts per probe under every rule; findings 1 to 5: ✓ holds, ✗ does not, ? undecided. "
        "The counts at the sparsest step use the one under the chosen rule, so that rows differ by τ only."
    )
    yield sensitivity_table(report.sensitivity)
    yield Text(
        "The effective number of interactions N_eff depends on no τ, only on the decomposition. Means over probes; "
        "ratios are geometric means."
    )
    yield number_table(report.sensitivity)
    if report.carried:
        yield Text("What both a fixed ζ and one relative to the range of v carry; ± 2 standard errors over probes:")
        yield Listing([f"The number of interactions {part.claim}: {part.numbers}." for part in report.carried])
    else:
        yield Text("Other ζ, and another tie-break, are tried with 'sftscope report RUN --zeta'.")


def _quality(report: Report) -> Iterator[Block]:
    yield Heading("Quality")
    yield quality_table(report.quality, report.trends)
    if report.placebos:
        yield Text(
            "Placebo: a checkpoint extracted a second time in another batch layout. What it removes and invents "
            "is numerical noise; counts are sums over probes."
        )
        said = [sentence(part) for part in report.placebos]
        yield Listing([f"{line[:1].upper()}{line[1:]}." for line in said])
        yield placebo_table(report.placebos)
    else:
        yield Text("No placebo was extracted; 'sftscope extract RUN --placebo' measures what noise alone changes.")
    if report.residue:
        yield Text(
            "What would seem encoded with an unfinished decomposition, 20,000 steps of the gradient descent of "
            "earlier work, under the same τ; means over probes."
        )
        yield residue_table(report.residue)


def _provenance(report: Report) -> Iterator[Block]:
    yield Heading("Provenance")
    yield provenance(report.evolution.history.run)
