"""TOML that others wrote: bounded in size, and in depth before the parser sees it.

`tomllib` takes memory with the square of a dotted key's parts (50,000 parts: gigabytes) and recurses into brackets.
"""

import re
import tomllib
from datetime import date, time
from typing import Any

MAX_TOML_BYTES = 2**20  # a config, run.toml
_MAX_PARTS, _MAX_BRACKETS = 32, 32  # of a key, of nested arrays and tables
# each alternative takes what it begins with, so that the scan is linear in the text, also where a string has no end
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"""|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\[^\n])*+"?'
    r"|'[^'\n]*+'?"
    r"|\#[^\n]*+|[\w+-]++|[ \t]++|.",
    re.DOTALL,
)


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of `text`; ValueError where it is no TOML, or larger or nested deeper than any config has to be."""
    if len(text) > MAX_TOML_BYTES:
        raise ValueError(f"more than {MAX_TOML_BYTES >> 20} MiB")
    _check_depth(text)
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    plain: dict[str, Any] = _plain(tables)
    return plain


def _plain(value: Any) -> Any:
    """Whole numbers of 64 bits, as TOML asks for, and dates as text: every value is one that JSON has too."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise ValueError("a whole number of more than 64 bits")
    return value.isoformat() if isinstance(value, (date, time)) else value


def _check_depth(text: str) -> None:
    """ValueError for a dotted key of too many parts, or brackets nested too deep; strings and comments do not count."""
    parts, dotted, brackets, line = 1, False, 0, 1
    for match in _TOKEN.finditer(text):
        token = match[0]
        kind = token[0]
        line += token.count("\n")
        if kind in " \t":
            continue
        if kind == ".":
            dotted = True
            continue
        parts = parts + 1 if dotted else 1
        dotted = False
        brackets += (kind in "[{") - (kind in "]}" and brackets > 0)
        if parts > _MAX_PARTS or brackets > _MAX_BRACKETS:
            what = "a key of too many parts" if parts > _MAX_PARTS else "brackets nested too deep"
            raise ValueError(f"{what} (at line {line})")
