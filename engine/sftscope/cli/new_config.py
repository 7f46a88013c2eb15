"""The commands that prepare a run: config, init, probes. Thin, as those of `cli`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sftscope.cli.options import need_engine
from sftscope.foundation.output import put
from sftscope.foundation.safe_text import json_text
from sftscope.inputs.presets import presets_in_words


def list_settings(
    as_json: Annotated[bool, typer.Option("--json", help="Their JSON Schema on stdout.")] = False,
) -> None:
    """All settings with their defaults, allowed values and help."""
    from sftscope.inputs import setting_texts

    put(json_text(setting_texts.json_schema()) if as_json else setting_texts.as_list())


def init(
    preset: Annotated[str, typer.Argument(help=f"Begin with this preset: {presets_in_words()}.")] = "",
    model: Annotated[str, typer.Option("--model", help="The base LLM: hub name, folder or GGUF file.")] = "",
    train: Annotated[
        str, typer.Option("--train", help="Training rows; without --eval and in place of all data of a preset.")
    ] = "",
    eval: Annotated[str, typer.Option("--eval", help="Held-out rows.")] = "",
    probes: Annotated[str, typer.Option("--probes", help="The probes, JSONL.")] = "",
) -> None:
    """A commented config on stdout: every setting at its default, what a run needs filled or marked."""
    from sftscope.inputs import setting_texts

    put(setting_texts.new_config(preset, model=model, train=train, eval=eval, probes=probes).rstrip())


def probes(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DATA|CONFIG", help="Rows in a shape that training reads, or a config (.toml) with data."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The probes file to write, JSONL.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many probes.")] = 16,
    group: Annotated[
        Literal["held-out", "train", "both"],
        typer.Option("--group", help="Rows that are held out, trained on, or half of each."),
    ] = "held-out",
    model: Annotated[
        str, typer.Option("--model", help="With DATA: the base LLM that rows are tried on; without, none is.")
    ] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the choice of rows.")] = 0,
) -> None:
    need_engine()
    from sftscope.preflight import probe_choice

    sources = probe_choice.sources_of(source, model)
    probe_choice.refuse_if_there(out)
    choice = probe_choice.choose_probes(sources, count=count, group=group, seed=seed)
    probe_choice.write(choice, out)
    put(probe_choice.in_words(choice, out, tried=sources.model is not None))
