"""JSON that others wrote, as plain values: bounded in size and depth, with numbers that fit."""

import json
from pathlib import Path
from typing import Any

from sftscope.errors import SftscopeError
from sftscope.files.opening import read_plain
from sftscope.text import safe_text

MAX_JSON_BYTES = 2**26
_MAX_DIGITS = 18  # of an integer: it fits 64 bits, and a float holds it without overflow


def parse_json(data: bytes | str) -> Any:
    """The value of `data`; ValueError for anything else, also where it is nested too deep or holds a number of more
    than 18 digits without a point, which nothing that we read can need."""
    try:
        return json.loads(data, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deep") from None


def json_object(data: bytes | str) -> dict[str, Any]:
    """`parse_json` of what must be an object; ValueError where it is not."""
    content = parse_json(data)
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, got {_kind(content)}")
    return content


def read_json_object(path: Path, limit: int = MAX_JSON_BYTES, *, within: Path | None = None) -> dict[str, Any]:
    """The object in the file at `path`. SftscopeError names the file and what is wrong; OSError as `open` raises it."""
    data = read_plain(path, limit, within=within)
    try:
        return json_object(data)
    except ValueError as error:
        raise SftscopeError(f"{path}: not valid JSON: {safe_text(str(error), max_length=200)}") from None


def number(value: Any) -> float | None:
    """`value` as a float where it is a JSON number, NaN and infinities included; else None."""
    return float(value) if type(value) in (int, float) else None


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
