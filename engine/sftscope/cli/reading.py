"""The commands that read a finished run: show, report, rows, compare. Thin, as those of `cli`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftscope.analysis import DEFAULT_HYSTERESIS, DEFAULT_RULE
from sftscope.cli.options import Hysteresis, Run, Support, Tau, Train, Trajectory, folder, need_engine
from sftscope.foundation.output import put
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import json_text

if TYPE_CHECKING:
    from sftscope.analysis.rows.row_index import RowIndex
    from sftscope.analysis.run.run_history import RunHistory
    from sftscope.analysis.sets.views import Changes
    from sftscope.reporting.traced_table import Traced


def show(
    run: Run,
    step: Annotated[int | None, typer.Option("--step", help="Step to show; by default the last.")] = None,
    base: Annotated[int | None, typer.Option("--base", help="Step to compare with; by default the first.")] = None,
    probe: Annotated[str, typer.Option("--probe", help="Id of the only probe to show; by default all.")] = "",
    tau: Tau = DEFAULT_RULE,
    hysteresis: Hysteresis = DEFAULT_HYSTERESIS,
    view: Annotated[
        str, typer.Option("--view", help="all, trends, changes, orders or backbone; with --plain also probe and raw.")
    ] = "all",
    trajectory: Trajectory = False,
    support: Support = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="One named value after another, no columns: for screen readers and pipes.")
    ] = False,
) -> None:
    from sftscope.analysis.run.read_run import load_history
    from sftscope.analysis.sets.evolution import Evolution
    from sftscope.analysis.sets.thresholds import ThresholdRule
    from sftscope.analysis.sets.views import Selection
    from sftscope.reporting.sheets import plain_text
    from sftscope.reporting.show import show_json, show_text
    from sftscope.store import RunFolder

    evolution = Evolution(load_history(run), ThresholdRule.parse(tau), hysteresis)
    history = evolution.history
    selection = Selection(
        now=history.steps.size - 1 if step is None else history.index_of(step),
        base=0 if base is None else history.index_of(base),
        probe=history.probe_index(probe) if probe else None,
        trajectory=trajectory,
    )
    if as_json:
        put(json_text(show_json(evolution, selection, support=support)), end="")
    elif plain:
        if support:
            raise typer.BadParameter("expected without --plain", param_hint="--support")
        record = RunFolder(run).read_step(int(history.steps[selection.now]))
        put(plain_text(evolution, selection, view=view, record=record), end="")
    else:
        put(show_text(evolution, selection, view=view, support=support))


def report(
    run: Run,
    out: Annotated[Path, typer.Option("--out", parser=folder, help="Folder for the report.")],
    formats: Annotated[
        str, typer.Option("--format", help="Comma-separated: md, json, csv, html, figures, shapiq.")
    ] = "md,json",
    tau: Tau = DEFAULT_RULE,
    hysteresis: Hysteresis = DEFAULT_HYSTERESIS,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Run of the baseline LLM, for the generalizable ratio.")
    ] = None,
    zeta: Annotated[
        bool, typer.Option("--zeta", help="Also decompose under other noise bounds and tie-breaks; slow.")
    ] = False,
    descent: Annotated[
        bool, typer.Option("--descent", help="Also compare with the gradient descent of earlier work; slow.")
    ] = False,
    support: Support = False,
    train: Train = "",
) -> None:
    from sftscope.analysis.rows.known_rows import rows_or_why
    from sftscope.analysis.run.read_run import load_history
    from sftscope.analysis.sets.evolution import Evolution
    from sftscope.analysis.sets.thresholds import ThresholdRule
    from sftscope.foundation.progress import progress
    from sftscope.reporting.forms import write_report

    rule = ThresholdRule.parse(tau)
    evolution = Evolution(load_history(run), rule, hysteresis)
    reference = None if baseline is None else Evolution(load_history(baseline), rule, hysteresis)
    if reference is not None:
        _say_left_out(reference.history)
    wanted = tuple(part.strip() for part in formats.split(","))
    with progress("report") as shown:
        extra = {"zeta": zeta, "descent": descent, "support": support}
        known = rows_or_why(run, train)
        written = write_report(evolution, out, wanted, reference=reference, rows=known, **extra, progress=shown)
    for path in written:
        put(str(path))


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B [RUN ...]", help="Runs on the same probes.")],
    tau: Tau = DEFAULT_RULE,
    hysteresis: Hysteresis = DEFAULT_HYSTERESIS,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    from sftscope.analysis.run.read_run import load_history
    from sftscope.analysis.sets.evolution import Evolution
    from sftscope.analysis.sets.thresholds import ThresholdRule
    from sftscope.reporting.run_comparison import compare as compare_runs
    from sftscope.reporting.run_comparison import compare_json, compare_text

    rule = ThresholdRule.parse(tau)
    histories = [load_history(run) for run in runs]
    for history in histories:
        _say_left_out(history)
    comparison = compare_runs([Evolution(history, rule, hysteresis) for history in histories])
    put(json_text(compare_json(comparison)) if as_json else compare_text(comparison), end="")


def _measured(run: Path, diff: "Changes", traced: "list[Traced]", index: "RowIndex") -> "list[Traced]":
    """The same with the losses of the rows behind each, at both steps."""
    need_engine()
    from sftscope.reporting.traced_table import with_losses
    from sftscope.runs import pipeline
    from sftscope.training.traced_losses import losses_at

    places = sorted({place for part in traced for place in part.rows.places.tolist()})
    if not places:
        return traced
    settings, folder, _ = pipeline.open_run(run)
    found = losses_at(settings, folder, [index.rows[place] for place in places], [diff.base_step, diff.step])
    return with_losses(traced, places, found)


def _say_left_out(history: "RunHistory") -> None:
    """On stderr, which steps of a run are missing from an output that has no place for it."""
    for reason in history.left_out:
        say(f"{history.name}: left out: {reason}")


def rows(
    run: Run,
    step: Annotated[int | None, typer.Option("--step", help="Step to look at; by default the last.")] = None,
    base: Annotated[int | None, typer.Option("--base", help="Step to compare with; by default the first.")] = None,
    probe: Annotated[str, typer.Option("--probe", help="Id of the only probe to trace; by default all.")] = "",
    row: Annotated[
        int | None, typer.Option("--row", min=1, help="Show what this training row carries, counted from 1.")
    ] = None,
    train: Train = "",
    stem: Annotated[
        str, typer.Option("--stem", metavar="LANGUAGE", help="Ignore word endings, such as of english.")
    ] = "",
    losses: Annotated[
        bool, typer.Option("--losses", help="Measure whether the loss of these rows fell; loads the model.")
    ] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="How many interactions, strongest first.")] = 10,
    tau: Tau = DEFAULT_RULE,
    hysteresis: Hysteresis = DEFAULT_HYSTERESIS,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    from sftscope.analysis.rows.known_rows import training_rows
    from sftscope.analysis.rows.row_index import RowIndex
    from sftscope.analysis.run.read_run import load_history
    from sftscope.analysis.sets.evolution import Evolution
    from sftscope.analysis.sets.thresholds import ThresholdRule
    from sftscope.analysis.sets.views import Selection, changes
    from sftscope.reporting.document import plain_text as document_text
    from sftscope.reporting.traced_table import row_blocks, trace_strongest, traced_blocks, traced_json
    from sftscope.store import RunFolder

    evolution = Evolution(load_history(run), ThresholdRule.parse(tau), hysteresis)
    history = evolution.history
    diff = changes(
        evolution,
        Selection(
            now=history.steps.size - 1 if step is None else history.index_of(step),
            base=0 if base is None else history.index_of(base),
            probe=history.probe_index(probe) if probe else None,
        ),
    )
    index = RowIndex.of(training_rows(RunFolder(run), train), stem=stem)
    if row is not None:
        put(document_text(row_blocks(index, row, diff)))
        return
    traced = trace_strongest(history, diff, index, most)
    if losses:
        traced = _measured(run, diff, traced, index)
    if as_json:
        put(json_text(traced_json(diff, traced, index)), end="")
    else:
        put(document_text(traced_blocks(diff, traced, index)))
