"""Writes the pages that repeat what the program says of itself: its commands, its settings, its keys; JSON Schemas.

    python tests/write_reference_pages.py

`engine/COMMANDS.md` from the help of the commands, `engine/SETTINGS.md` from the help of the settings, and the keys in
`tui/README.md` from the explorer's key table; `engine/sftscope/schemas/` from the tables of `engine/SCHEMAS.md`. Run
this after a change of any of them; `tests/test_documents.py` compares.
"""

import inspect
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from json_schemas import FOLDER, json_schemas
from sftscope.inputs.setting_rules import Setting, settings_of
from sftscope.inputs.setting_texts import toml
from sftscope.inputs.settings import RunSettings
from sftscope_tui.cli import app
from sftscope_tui.state.keys import FILTER_HELP, KEYS

ROOT = Path(__file__).parents[1]
_NOTE = "<!-- written by tests/write_reference_pages.py -->\n\n"
_KEYS = ("<!-- keys: written by tests/write_reference_pages.py -->\n", "<!-- end -->\n")


def main() -> None:
    """Write every page."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """The pages as they should be."""
    explorer = ROOT / "tui" / "README.md"
    before, _, rest = explorer.read_text(encoding="utf-8").partition(_KEYS[0])
    return {
        **{FOLDER / f"{name}.json": f"{json.dumps(each, indent=1)}\n" for name, each in json_schemas().items()},
        ROOT / "engine" / "COMMANDS.md": commands_page(),
        ROOT / "engine" / "SETTINGS.md": settings_page(),
        explorer: before + _KEYS[0] + key_tables() + "\n" + "".join(rest.partition(_KEYS[1])[1:]),
    }


def commands_page() -> str:
    """Every command with its arguments and options, in the order of `sftscope --help`."""
    commands = typer.main.get_command(app).commands
    lines = [
        f"# Commands\n\n{_NOTE}`sftscope COMMAND --help` prints the same. Results go to stdout, progress to stderr. "
        "Exit codes: 0 fine; 1 an error, with one line that says what to do; 2 wrong usage; 3 a file could not be read "
        "now; 10, 11, 12 the verdict that [verdict --fail-on](#sftscope-verdict) names; 130, 143 and 129 "
        "ended by Ctrl-C, SIGTERM or SIGHUP; 141 the reader of a pipe has left.\n"
    ]
    first = {name: command.help.split("\n\n")[0] for name, command in commands.items()}
    lines += table(["command", "does"], [[f"[{name}](#sftscope-{name})", text] for name, text in first.items()])
    for name, command in commands.items():
        usage = " ".join([f"sftscope {name}", *(_usage(each) for each in command.params)])
        lines += [f"\n## sftscope {name}\n", f"{inspect.cleandoc(command.help)}\n", f"```\n{usage}\n```\n"]
        lines += table(["", "meaning", "default"], [_parameter(each) for each in command.params])
    return "\n".join(lines) + "\n"


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = _argument(parameter)
        return name if parameter.required or name.startswith("[") else f"[{name}]"
    value = "" if parameter.is_flag else f" {_value(parameter)}"
    return f"{parameter.opts[0]}{value}" if parameter.required else f"[{parameter.opts[0]}{value}]"


def _parameter(parameter: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        shown = _argument(parameter)
    else:
        shown = parameter.opts[0] + ("" if parameter.is_flag else f" {_value(parameter)}")
    default = parameter.default
    plain = default is None or default is False or str(default) in ("", "inf") or callable(default)
    return [f"`{shown}`", parameter.help, "required" if parameter.required else "" if plain else f"`{default}`"]


def _argument(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper() + (" ..." if parameter.nargs == -1 else "")


def _value(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


def settings_page() -> str:
    """Every setting of a config, table by table."""
    lines = [
        f"# Settings\n\n{_NOTE}A config is a TOML file with these tables. Settings without a default are required. "
        "[Training](sftscope/training/README.md) explains them; `sample_runs/smollm2.toml` is an example.\n"
    ]
    for name, settings in settings_of(RunSettings).items():
        rows = [
            [
                f"`{each.name}`",
                each.help,
                each.allowed,
                "required" if each.default is None else f"`{toml(each.default)}`",
            ]
            for each in settings.values()
        ]
        lines += [f"## [{name}]\n", *table(["setting", "meaning", "allowed", "default"], rows), ""]
    return "\n".join(lines)


def _default(setting: Setting) -> str:
    return "required" if setting.default is None else f"`{toml(setting.default)}`"


def key_tables() -> str:
    """The explorer's keys by group."""
    lines = []
    for group, rows in groupby(KEYS, key=lambda row: row.group):
        lines += [*table(["key", group], [[f"`{row.shown}`", row.help] for row in rows]), ""]
    return "\n".join([*lines, f"Filter terms: `{FILTER_HELP}`", ""])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown lines."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *cells]]


if __name__ == "__main__":
    main()
