"""`--set TABLE.FIELD=VALUE`: one setting of a config from the command line.

The value is TOML; what is none, such as a bare word, is text. A path starts at the working directory, as others on
a command line do, and is kept absolute.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sftscope.files.toml_text import parse_toml
from sftscope.foundation.errors import SftscopeError
from sftscope.inputs.setting_paths import is_path, resolve_path
from sftscope.inputs.setting_rules import Setting, hint, shown


def apply_sets(
    tables: dict[str, Any], sets: Iterable[str], known: Mapping[str, Mapping[str, Setting]]
) -> dict[tuple[str, str | None], str]:
    """Put the settings of `sets` into `tables`, which was parsed from a config; a later one replaces an earlier one.

    Returns the place of each for error messages, by table and field.
    """
    places: dict[tuple[str, str | None], str] = {}
    for text in sets:
        setting = _setting(text, known)
        place = f"--set {setting.table}.{setting.name}"
        value = toml_value(text.partition("=")[2])
        setting.check(value, place)
        table = tables.setdefault(setting.table, {})
        if isinstance(table, dict):  # else it is refused as any table of the config
            table[setting.name] = value
            places[setting.table, setting.name] = place
    for (table, name), place in places.items():
        path, value = known[table][str(name)].path, tables[table][name]
        if value and is_path(path, tables[table]):
            tables[table][name] = resolve_path(value, path, Path.cwd(), place, "the working directory")
    return places


def toml_value(text: str) -> Any:
    """What `text` is in TOML, or itself."""
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _setting(text: str, known: Mapping[str, Mapping[str, Setting]]) -> Setting:
    key, equals, _ = text.partition("=")
    table, dot, name = (part.strip() for part in key.partition("."))
    place = f"--set {shown(text)}"
    if not (dot and equals):
        meant = [f"{table}.{name}" for table, settings in known.items() for name in settings if name == key.strip()]
        raise SftscopeError(
            f"{place}: expected TABLE.FIELD=VALUE, such as {meant[0] if meant else 'training.max_steps'}=…"
        )
    if table not in known:
        raise SftscopeError(f"{place}: unknown table [{shown(table)}]{hint(table, known)}")
    if name not in known[table]:
        raise SftscopeError(f"{place}: unknown field {shown(repr(name))} in [{table}]{hint(name, known[table])}")
    return known[table][name]
