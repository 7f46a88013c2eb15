"""TOML that others wrote, as plain values: bounded in depth, with whole numbers that fit and dates as text."""

import tomllib
from datetime import date, datetime, time
from typing import Any

from sftscope.files.json_text import refuse_deep

_MOST = 2**63 - 1  # what TOML asks for


def parse_toml(data: bytes | str) -> dict[str, Any]:
    """The tables of `data`; ValueError for anything else, also where they are nested too deep."""
    try:
        tables = tomllib.loads(data.decode() if isinstance(data, bytes) else data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    refuse_deep(tables)  # dotted keys nest without any recursion of the parser
    plain: dict[str, Any] = _plain(tables)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if type(value) is int and abs(value) > _MOST:
        raise ValueError("a whole number of more than 64 bits")
    return value.isoformat() if isinstance(value, (date, datetime, time)) else value
