"""The commands that read a finished run: show, report, compare. Thin, as those of `cli`."""

from pathlib import Path
from typing import Annotated

import typer

from sftscope.cli_parts import Run, Tau
from sftscope.output import put
from sftscope.text import json_text


def show(
    run: Run,
    step: Annotated[int | None, typer.Option("--step", help="Step to show; the last by default.")] = None,
    base: Annotated[int | None, typer.Option("--base", help="Step to compare with; the first by default.")] = None,
    probe: Annotated[str, typer.Option("--probe", help="Only this probe; all by default.")] = "",
    tau: Tau = "max-run",
    view: Annotated[
        str, typer.Option("--view", help="all, trends, changes, orders or backbone; with --plain also probe or raw.")
    ] = "all",
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Preserved means encoded at every step since the base step.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Each value after its name, no columns: for screen readers and pipes.")
    ] = False,
) -> None:
    """The explorer's content as text or JSON."""
    from sftscope.analysis.evolution import Evolution
    from sftscope.analysis.reading import load_history
    from sftscope.analysis.thresholds import ThresholdRule
    from sftscope.analysis.views import Selection
    from sftscope.reporting.sheets import plain_text
    from sftscope.reporting.show import show_json, show_text
    from sftscope.store import RunFolder

    evolution = Evolution(load_history(run), ThresholdRule.parse(tau))
    history = evolution.history
    selection = Selection(
        now=history.steps.size - 1 if step is None else history.index_of(step),
        base=0 if base is None else history.index_of(base),
        probe=history.probe_index(probe) if probe else None,
        trajectory=trajectory,
    )
    if as_json:
        put(json_text(show_json(evolution, selection)), end="")
    elif plain:
        record = RunFolder(run).read_step(int(history.steps[selection.now]))
        put(plain_text(evolution, selection, view=view, record=record), end="")
    else:
        put(show_text(evolution, selection, view=view))


def report(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")],
    formats: Annotated[
        str, typer.Option("--format", help="Comma-joined: md, json, csv, html, figures, shapiq.")
    ] = "md,json",
    tau: Tau = "max-run",
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Run of the baseline LLM, for the generalizable ratio.")
    ] = None,
    zeta: Annotated[bool, typer.Option("--zeta", help="Decompose again under other noise bounds; slow.")] = False,
    descent: Annotated[
        bool, typer.Option("--descent", help="Compare with the plain descent of earlier work; slow.")
    ] = False,
) -> None:
    """Write the report of a run."""
    from sftscope.analysis.evolution import Evolution
    from sftscope.analysis.reading import load_history
    from sftscope.analysis.thresholds import ThresholdRule
    from sftscope.progress import progress
    from sftscope.reporting.forms import write_report

    rule = ThresholdRule.parse(tau)
    evolution = Evolution(load_history(run), rule)
    reference = None if baseline is None else Evolution(load_history(baseline), rule)
    wanted = tuple(part.strip() for part in formats.split(","))
    with progress("report") as shown:
        written = write_report(evolution, out, wanted, reference=reference, zeta=zeta, descent=descent, progress=shown)
    for path in written:
        put(str(path))


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B [RUN ...]", help="Run folders, the same probes.")],
    tau: Tau = "max-run",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Two or more runs on the same probes: their sets, generalizable ratios both ways, and a ranking."""
    from sftscope.analysis.evolution import Evolution
    from sftscope.analysis.reading import load_history
    from sftscope.analysis.thresholds import ThresholdRule
    from sftscope.reporting.compare import compare as compare_runs
    from sftscope.reporting.compare import compare_json, compare_text

    rule = ThresholdRule.parse(tau)
    comparison = compare_runs([Evolution(load_history(run), rule) for run in runs])
    put(json_text(compare_json(comparison)) if as_json else compare_text(comparison), end="")
