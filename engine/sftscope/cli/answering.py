"""The commands that answer: verdict, watch; and how run and attach end. Thin, as those of `cli`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from sftscope.analysis import DEFAULT_HYSTERESIS, DEFAULT_RULE
from sftscope.cli.options import Hysteresis, Run, Tau
from sftscope.foundation.output import put
from sftscope.foundation.progress import is_first_process
from sftscope.foundation.safe_text import json_text


def verdict(
    run: Run,
    fail_on: Annotated[
        str, typer.Option("--fail-on", metavar="KINDS", help="Comma-separated: stop, do-not-stop, not-enough.")
    ] = "",
    tau: Tau = DEFAULT_RULE,
    hysteresis: Hysteresis = DEFAULT_HYSTERESIS,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    from sftscope.analysis.run.read_run import load_history
    from sftscope.analysis.sets.evolution import Evolution
    from sftscope.analysis.sets.thresholds import ThresholdRule
    from sftscope.foundation.errors import NotReadError
    from sftscope.reporting.answer.run_answer import EXIT_CODES, answer_of, exit_code

    kinds = frozenset(part.strip() for part in fail_on.split(",") if part.strip())
    if unknown := sorted(kinds - EXIT_CODES.keys()):
        expected = ", ".join(EXIT_CODES)
        raise typer.BadParameter(f"expected {expected}, joined by commas, got {unknown[0]!r}", param_hint="--fail-on")
    history = load_history(run)
    if history.not_read:
        raise NotReadError(f"{history.not_read[0]}: no verdict without it; run it again")
    answer = answer_of(run, Evolution(history, ThresholdRule.parse(tau), hysteresis))
    put(json_text(answer.as_dict()) if as_json else answer.as_text(), end="")
    if code := exit_code(answer.verdict, kinds):
        raise typer.Exit(code)


def watch(
    run: Run,
    on_verdict: Annotated[
        str,
        typer.Option(
            "--on-verdict",
            metavar="CMD",
            help="Command to run whenever what to do changes, without a shell. It gets SFTSCOPE_RUN, SFTSCOPE_STEP, "
            "SFTSCOPE_DECISION, SFTSCOPE_STOP_BY, SFTSCOPE_SENTENCE in its environment and the JSON of 'sftscope "
            "verdict --json' on stdin.",
        ),
    ] = "",
    every: Annotated[
        float, typer.Option("--every", min=0.1, metavar="SECONDS", help="Seconds between two looks.")
    ] = 5.0,
    idle: Annotated[
        float,
        typer.Option(
            "--idle", min=0, show_default=False, metavar="MINUTES", help="End after this long without a new checkpoint."
        ),
    ] = math.inf,
) -> None:
    from sftscope.monitor.watching import Command, watch_run

    watch_run(run, Command.parse(on_verdict) if on_verdict else None, every=every, idle=60 * idle)


def put_closing(run: Path) -> None:
    """The last lines of a command that made a run: the verdict, the checkpoint to use, what comes next."""
    from sftscope.reporting.answer.endings import closing_lines

    if is_first_process():
        for line in closing_lines(run):
            put(line)
