"""All settings as text for people: a list with help, a commented config to begin with, and their JSON Schema."""

import json
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.presets import FOLDER, preset_names, preset_text
from sftscope.inputs.setting_rules import Setting, settings_of
from sftscope.inputs.settings import RunSettings

_WIDTH = 80
_TO_FILL = "  # fill in"
_NOTE = "Set them in a config ([training], then max_steps = 100), or for one command by\n--set training.max_steps=100."
_HEAD = """\
# Settings of a run: sftscope run THIS_FILE --out RUN
# A line that begins with #name = shows the default; remove the # to change it.
# Relative paths start at the folder of this file; $NAME is an environment variable.
"""


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a config file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(RunSettings)}


def as_list() -> str:
    """Every setting with its default, what is allowed and its help, in 80 columns."""
    lines = [_NOTE]
    for table, settings in settings_of(RunSettings).items():
        lines += ["", f"[{table}]"]
        for setting in settings.values():
            default = "to be given" if setting.default is None else f"default {toml(setting.default)}"
            lines.append(f"{table}.{setting.name}")
            lines += _wrapped(f"{default}; {setting.allowed}", "    ")
            lines += _wrapped(setting.help, "    ")
    return "\n".join(lines)


def new_config(preset: str, **given: str) -> str:
    """A config with every setting: those of `preset` and those given, and the others commented out at their defaults.

    given: model, train, eval, probes, empty where not given. What a run needs and nobody gave is marked.
    """
    values = _preset_values(preset) if preset else {}
    if given["train"]:
        values["data"] = {}  # a preset's format, splits and held-out rows are those of its own data
    for option, (table, name) in {
        "model": ("model", "path"),
        "train": ("data", "train"),
        "eval": ("data", "eval"),
        "probes": ("probes", "file"),
    }.items():
        if value := given[option]:
            settings_of(RunSettings)[table][name].check(value, f"--{option}")
            values.setdefault(table, {})[name] = value
    return _HEAD + "".join(
        f"\n[{table}]\n" + "\n".join(_lines(settings.values(), values.get(table, {})))
        for table, settings in settings_of(RunSettings).items()
    )


def _preset_values(preset: str) -> dict[str, dict[str, Any]]:
    """The tables of a preset, with absolute paths to the files that come with it."""
    if preset not in preset_names():
        raise SftscopeError(
            f"{safe_text(preset, max_length=200)}: no preset of that name; presets are {', '.join(preset_names())}"
        )
    values: dict[str, dict[str, Any]] = tomllib.loads(preset_text(FOLDER / f"{preset}.toml"))
    for table, settings in settings_of(RunSettings).items():
        for name, setting in settings.items():
            file = values.get(table, {}).get(name)
            if setting.path == "file" and file:
                values[table][name] = str((FOLDER / file).resolve())
    return values


def _lines(settings: Iterable[Setting], values: Mapping[str, Any]) -> Iterable[str]:
    for setting in settings:
        allowed = "" if "in quotes" in setting.allowed else f" ({setting.allowed})"  # the value shows that it is text
        yield from _wrapped(setting.help + allowed, "# ")
        if setting.name in values:
            yield f"{setting.name} = {toml(values[setting.name])}\n"
        elif setting.default is None:
            yield f'{setting.name} = ""{_TO_FILL}\n'
        else:
            yield f"#{setting.name} = {toml(setting.default)}\n"


def toml(value: Any) -> str:
    """A setting's value in TOML, on one line: JSON, and what no terminal should get in an escape that JSON lacks."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if safe_text(each) == each else f"\\U{ord(each):08x}" for each in text)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
