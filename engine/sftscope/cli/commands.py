"""The engine's commands: thin, each calls one function. Heavy imports happen inside a command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sftscope.cli.answering import put_closing, verdict, watch
from sftscope.cli.attaching import attach
from sftscope.cli.new_config import init, list_settings, probes
from sftscope.cli.options import (
    Block,
    Cluster,
    Config,
    ConfigOrRun,
    Out,
    Run,
    Sets,
    Shard,
    Verify,
    Workers,
    leave_if_one_of_several,
    need_engine,
    numbers_in,
    shard_in,
)
from sftscope.cli.reading import compare, report, rows, show
from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.output import put, put_error
from sftscope.foundation.safe_text import json_text

# each command gets its help as an argument: python -OO drops docstrings
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(help="Train and extract; the same command resumes.")
def run(config: Config, out: Out, sets: Sets = None, verify: Verify = None) -> None:
    need_engine()
    from sftscope.runs import pipeline

    pipeline.run(config, out, sets=sets or (), verify=verify)
    put_closing(out)
    leave_if_one_of_several()


@app.command(
    help="Predict the tokens, memory and time of a run.\n\n"
    "On this machine, before anything runs. Tokens are given naive and in the prefix tree, time after a short "
    "calibration, and what makes the run expensive. For a run folder: what is left of it."
)
def plan(
    source: ConfigOrRun,
    sets: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    if sets and source.is_dir():
        raise typer.BadParameter("expected a config; the settings of a run folder are fixed", param_hint="--set")
    need_engine()
    from sftscope.preflight import plan as planner

    made = planner.plan(source, sets or ())
    _put(made, planner.render(made), as_json)


@app.command(
    help="Show a training row and a probe as tokens.\n\n"
    "Trained tokens and variables are marked. Also: the target, labels that start with the same token, and how "
    "many rows are cut. Loads the tokenizer only."
)
def inspect(
    config: Config,
    sets: Sets = None,
    row: Annotated[int, typer.Option("--row", min=1, help="Number of the training row to show.")] = 1,
    probe: Annotated[str, typer.Option("--probe", help="Id of the probe to show; by default the first.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    need_engine()
    from sftscope.preflight import inspection

    found = inspection.inspect(config, sets=sets or (), row=row, probe=probe)
    _put(found, inspection.render(found), as_json)


@app.command(help="Fine-tune without extracting; the same command resumes.")
def train(config: Config, out: Out, sets: Sets = None) -> None:
    need_engine()
    from sftscope.runs import pipeline

    pipeline.train(config, out, sets=sets or ())
    leave_if_one_of_several()


@app.command(
    help="Score and decompose the remaining checkpoints of a run.\n\n"
    "Several of these commands can work on one run, on one host or many: each takes steps that no other is "
    "processing."
)
def extract(
    run: Run,
    steps: Annotated[str, typer.Option("--steps", help="Only these steps, such as 0,8,16.")] = "",
    shard: Shard = "1/1",
    workers: Workers = None,
    cluster: Cluster = "",
    plan: Annotated[
        Path | None, typer.Option(help="File from 'sftscope plan RUN --json', for the resources of a job.")
    ] = None,
    time_limit: Annotated[
        int | None, typer.Option("--time-limit", min=1, metavar="MIN", help="Minutes per job; then it is queued again.")
    ] = None,
    partition: Annotated[str, typer.Option("--partition", help="SLURM partition.")] = "",
    memory: Annotated[float | None, typer.Option("--memory", min=1, metavar="GB", help="Host memory per job.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=0, help="GPUs per job.")] = None,
    cpus: Annotated[int, typer.Option("--cpus", min=1, help="CPU cores per job.")] = 4,
    block: Block = None,
    verify: Verify = None,
    placebo: Annotated[
        bool,
        typer.Option(
            "--placebo",
            help="Re-extract a finished step (STEP or the last) with plain forward passes, to measure noise.",
        ),
    ] = False,
    step: Annotated[
        int | None,
        typer.Argument(metavar="STEP", show_default=False, help="With --placebo: the step."),
    ] = None,
) -> None:
    if placebo and (steps or shard != "1/1" or verify is not None):
        raise typer.BadParameter(
            "expected without --steps, --shard and --verify; it scores all masked states again", param_hint="--placebo"
        )
    if step is not None and not placebo:
        raise typer.BadParameter(f"expected --placebo before it, or --steps {step}", param_hint="STEP")
    shared = workers is not None or bool(cluster)
    if cluster not in ("", "slurm", "local"):
        raise typer.BadParameter(f"expected slurm or local, got {cluster!r}", param_hint="--cluster")
    if shared and (placebo or shard != "1/1"):
        raise typer.BadParameter("expected without --placebo and --shard", param_hint="--workers")
    need_engine()
    from sftscope.runs import pipeline

    if placebo:
        pipeline.placebo(run, step=step)
    elif shared:
        from sftscope.distributed import submit as clusters

        pipeline.open_run(run)  # what is wrong with the run is said here, not in N logs
        worker = clusters.Worker(run.absolute(), 1, 1, steps=numbers_in(steps), verify=verify, block=block)
        if cluster:
            given = {"minutes": time_limit, "memory_gb": memory, "gpus": gpus, "cpus": cpus, "partition": partition}
            resources = clusters.resources(plan, workers or 1, given)
            clusters.submit(cluster, workers or 1, worker, resources)
        else:
            clusters.run_here(workers or 1, worker)
    else:
        pipeline.extract(run, steps=numbers_in(steps), verify=verify, shard=shard_in(shard))


@app.command(help="Show the progress and failures of all workers on a run.")
def status(
    run: Run,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    from sftscope.reporting.answer.endings import status_json, status_text
    from sftscope.store import RunFolder
    from sftscope.store.sharing.run_status import run_status

    found = run_status(RunFolder(run))
    put(json_text(status_json(run, found)) if as_json else status_text(run, found), end="" if as_json else "\n")


@app.command(
    help="Check every file of a run.\n\n"
    "Against its hash, its schema and the other files. Names what is damaged and the command that recomputes "
    "it; lists the first 20 of each kind, --json all. Exit code 1 if anything is damaged, 3 if nothing is but "
    "a file could not be read now."
)
def verify(
    run: Run,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Recompute effects from intact raw scores; needs no model."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    from sftscope.verification.verify import verify as verify_run

    if repair:
        from sftscope.verification.repair import repair as repair_run

        found = repair_run(run)
    else:
        found = verify_run(run)
    _put(found.as_dict(), found.as_text(), as_json)
    if found.damaged:
        names = ", ".join(found.damaged[:10]) + (", …" if len(found.damaged) > 10 else "")
        unread = f", and {len(found.not_read)} not read" if found.not_read else ""
        raise SftscopeError(f"{run}: {len(found.damaged)} damaged: {names}{unread}")
    if found.not_read:
        names = ", ".join(found.not_read[:10]) + (", …" if len(found.not_read) > 10 else "")
        raise NotReadError(f"{run}: nothing is damaged in what was read; not read: {names}; run it again")


app.command(
    help="Make a run from the checkpoints of another trainer.\n\n"
    "HF Trainer, TRL, LLaMA-Factory or Axolotl; adapters or full models. The same command resumes."
)(attach)


@app.command(
    help="Find the AND-OR interactions of any scores.\n\n"
    "With a certificate. Sampled masked states (.npz) give an estimate. spex and proxyspex need: pip install "
    "'sftscope[spex]'."
)
def decompose(
    scores: Annotated[
        Path,
        typer.Argument(
            help=".npy: 2^n scores, or rows of them, in subset order. .npz: masks (m x n, n <= 64) and scores (m)."
        ),
    ],
    zeta: Annotated[float, typer.Option("--zeta", help="Noise bound on |h - v|, in the units of the scores.")] = 0.0,
    solver: Annotated[
        str,
        typer.Option(
            "--solver",
            help="certified; for comparison: reference (gradient descent), and for .npz mobius, spex, proxyspex.",
        ),
    ] = "certified",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    from sftscope.decomposition.score_file import decompose_file, render

    results = decompose_file(scores, zeta, solver)
    _put(results, render(results), as_json)


app.command(help="Print the explorer's content as text or JSON.")(show)
app.command(
    help="Write the report of a run: verdict, findings, tables.\n\n"
    "html is one page that loads nothing from the network. figures (when to stop, and those of the paper) are "
    "SVG, PNG and PDF. Both need: pip install 'sftscope[figures]'. shapiq writes InteractionValues for the "
    "Python package of that name."
)(report)
app.command(
    help="Show the training rows behind what emerged.\n\n"
    "Of the strongest newly emerged interactions: the rows with their words, these rows' answers, and what chance "
    "would give. --row: the other way round."
)(rows)
app.command(
    help="Print the verdict: when to stop, why, and the checkpoint to use.\n\n"
    "With --fail-on the exit code is 10 (stop: the run has checkpoints after the step to stop at or by), 11 "
    "(do-not-stop) or 12 (not-enough) if the verdict is one of those named, for scripts and CI. Otherwise it is 0. "
    "Exit code 3 if a step could not be read now: a verdict without it could be another one."
)(verdict)
app.command(
    help="Print one line for each new checkpoint of a run.\n\n"
    "Its numbers, and the verdict so far, with the stricter tests for a run that is looked at after every "
    "checkpoint. Begins with the last checkpoint that is there; ends with the last step of the training, if that is "
    "known, or after --idle."
)(watch)
app.command(
    help="Compare runs on the same probes.\n\nSets at matching steps, generalizable ratios both ways, and a ranking."
)(compare)
app.command(
    help="Write a commented config to stdout.\n\n"
    "Every setting with its help, at its default or as given; what is still needed is marked."
)(init)
app.command(
    help="Make probes from the rows of a data set.\n\n"
    "Of every label, or of every length, by a seed. With a model, rows are left out whose words hardly move its "
    "answer. The words of a probe are chosen when a run begins."
)(probes)
app.command(
    "config", help="List all settings.\n\nWith their type, default, allowed values and help. --json: as JSON Schema."
)(list_settings)


@app.command(
    help="Measure the speed of this machine.\n\n"
    "Prefix tree against plain forward passes, peak memory against its limit at 10 to 16 words, decomposition "
    "against HiGHS, Möbius transform against shapiq. Prints both sides of every ratio."
)
def bench(
    model: Annotated[
        str, typer.Option("--model", help="Hub name, folder or GGUF file; by default random weights.")
    ] = "",
    words: Annotated[int, typer.Option("--words", min=1, max=16, help="Number of words in the scored prompt.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    need_engine()
    from sftscope.bench import benchmark

    result = benchmark.bench(model, benchmark.Work(words=words))
    _put(result, benchmark.render(result), as_json)


def fail(message: str) -> None:
    """The one line of a user's error on stderr."""
    put_error(f"sftscope: {message}")


def _put(plain: Any, text: str, as_json: bool) -> None:
    """A result in the form that was asked for."""
    from sftscope.analysis.sets.views import to_plain

    put(json_text(to_plain(plain)) if as_json else text, end="" if as_json else "\n")
