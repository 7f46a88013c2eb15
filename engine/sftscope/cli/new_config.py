"""The commands on settings: config, init. Thin, as those of `cli`; they need no PyTorch and read no config file."""

from typing import Annotated

import typer

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
