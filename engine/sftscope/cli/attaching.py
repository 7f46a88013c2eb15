"""The command that makes a run from the checkpoints of another trainer. Thin, as those of `cli`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from sftscope.cli.answering import put_closing
from sftscope.cli.options import Out, checkpoints_in, need_engine, numbers_in


def attach(
    probes: Annotated[Path, typer.Option("--probes", help="Probes file, JSONL.")],
    out: Out,
    checkpoints: Annotated[
        Path | None,
        typer.Argument(help="Output folder of a training, with its checkpoint-N folders.", show_default=False),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            metavar="STEP=PATH",
            help="A folder of weights and their step, where the folder's name does not say it; repeatable.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            show_default=False,
            help="The base model: hub name, folder or GGUF file; by default the one that the adapters name.",
        ),
    ] = "",
    words: Annotated[
        int,
        typer.Option(
            "--words",
            min=0,
            max=64,
            show_default=False,
            help="Words per probe that become variables; by default as many as a probe has, at most 10.",
        ),
    ] = 0,
    variables: Annotated[
        str, typer.Option("--variables", help="What a variable is: words, phrases, sentences, characters or tokens.")
    ] = "words",
    choice: Annotated[
        str,
        typer.Option(
            "--choice",
            help="Which words: spread (a seeded choice within the input), or influence (of the whole prompt those that "
            "move v most, on the base and the last checkpoint).",
        ),
    ] = "spread",
    masked_states: Annotated[
        int,
        typer.Option(
            "--masked-states",
            min=0,
            metavar="M",
            help="Score at most this many sampled masked states per probe (results become estimates); 0 scores all.",
        ),
    ] = 0,
    steps: Annotated[str, typer.Option("--steps", help="Only these steps, such as 8,16; always with step 0.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Follow a running training to its last step.")] = False,
    idle: Annotated[
        float,
        typer.Option(
            "--idle",
            min=0,
            show_default=False,
            metavar="MINUTES",
            help="With --watch: end after this long without a new checkpoint.",
        ),
    ] = math.inf,
    eval_set: Annotated[
        str, typer.Option("--eval-set", help="Eval set whose loss is the held-out loss; by default the first.")
    ] = "",
    template: Annotated[
        str,
        typer.Option(
            "--template",
            metavar="chat|plain|FILE",
            help="Frame of the training's prompts: its chat template, none, or a Jinja file.",
        ),
    ] = "",
    template_date: Annotated[
        str,
        typer.Option(
            "--template-date", metavar="DATE", help="Date that the template wrote in training; by default today's."
        ),
    ] = "",
    train_rows: Annotated[
        str,
        typer.Option("--train", metavar="DATA", help="Rows of the training: warn if its prompts have another frame."),
    ] = "",
    held_out: Annotated[
        str,
        typer.Option(
            "--eval",
            metavar="DATA",
            help="Held-out rows, in the shapes that training reads: measure loss and accuracy at each checkpoint.",
        ),
    ] = "",
    held_out_rows: Annotated[
        int,
        typer.Option("--eval-rows", min=0, metavar="N", help="With --eval: at most N rows, chosen by a seed; 0: all."),
    ] = 0,
    whole_end: Annotated[
        bool,
        typer.Option(
            "--eval-whole-end",
            help="With --eval: losses count all that the template has after an answer, as TRL and LLaMA-Factory do.",
        ),
    ] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="Precision of scoring, as [extraction] dtype.")] = "float32",
    target: Annotated[
        str, typer.Option("--target", help="What of the answer is scored, as [extraction] target.")
    ] = "auto",
    zeta_of: Annotated[str, typer.Option("--zeta-of", help="Noise bound, as [extraction] zeta_of.")] = "base",
    same_base: Annotated[
        bool, typer.Option("--same-base", help="Accept adapters whose config names a different base model.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep copies of full models (adapters are always kept).")
    ] = False,
    copy_only: Annotated[
        bool, typer.Option("--copy-only", help="Copy the checkpoints only; extract later with 'sftscope extract RUN'.")
    ] = False,
) -> None:
    need_engine()
    from sftscope.attach import attach as attaching
    from sftscope.attach.first_checkpoint import Watching

    wanted, folders = numbers_in(steps), checkpoints_in(given or ())
    if checkpoints is None and not folders:
        raise typer.BadParameter("expected the output folder of a training, or --checkpoint", param_hint="CHECKPOINTS")
    choices = attaching.Choices(
        settings={
            "model": {"path": model, "device": device, "template_date": template_date},
            "probes": {"n_words": words, "variables": variables, "choice": choice},
            "extraction": {"dtype": dtype, "target": target, "masked_states": masked_states, "zeta_of": zeta_of},
        },
        given=folders,
        steps=None if wanted is None else frozenset(wanted),
        same_base=same_base,
        keep=keep,
        eval_set=eval_set,
        template=template,
        train=train_rows,
        held_out=held_out,
        held_out_rows=held_out_rows,
        trained_end="template" if whole_end else "token",
        extracting=not copy_only,
    )
    watching = Watching(idle=60 * idle) if watch else None
    attaching.attach(checkpoints, out, probes, choices, watching)
    if not copy_only:
        put_closing(out)
