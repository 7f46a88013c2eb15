"""JSON that others wrote, as plain values: bounded in size and depth, with numbers that fit."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sftscope.files.opening import read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

MAX_JSON_BYTES = 2**26
MAX_DEPTH = 64  # of lists and objects in each other: what walks them may recurse
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_MAX_DIGITS = 18  # of an integer: it fits 64 bits, and a float holds it without overflow


def parse_json(data: bytes | str) -> Any:
    """The value of `data`; ValueError for anything else, also where it is nested deeper than `MAX_DEPTH`, holds a
    number of more than 18 digits without a point, which nothing that we read can need, or text that is no Unicode."""
    try:
        value = json.loads(data, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deep") from None
    refuse_deep(value)
    if _SURROGATE.search(data if isinstance(data, str) else data.decode("latin-1")):
        _refuse_half_pairs(value)
    return value


def _refuse_half_pairs(value: Any) -> None:
    """ValueError where a text has half of a surrogate pair, which JSON can spell and no file can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair") from None


def refuse_deep(value: Any) -> None:
    """ValueError where lists and objects lie in each other more than `MAX_DEPTH` times."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inside = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = [item for items in inside for item in items if isinstance(item, (dict, list))]
        if not level:
            return
    raise ValueError("nested too deep")


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


def json_rows(data: bytes) -> list[dict[str, Any]]:
    """The objects on the lines of a log; a line that is none is left out, such as one torn by a kill."""
    rows = []
    for line in data.split(b"\n"):
        try:
            rows.append(json_object(line))
        except ValueError:
            continue
    return rows


def number(value: Any) -> float | None:
    """`value` as a float where it is a JSON number, NaN and infinities included; else None."""
    return float(value) if type(value) in (int, float) else None


def count(value: Any, most: int = 10**12 - 1) -> int | None:
    """`value` where it is a whole number from 0 to `most`; else None."""
    return value if type(value) is int and 0 <= value <= most else None


def finite(value: Any) -> float:
    """`value` as a float where it is a finite JSON number; else NaN."""
    found = number(value)
    return math.nan if found is None or not math.isfinite(found) else found


def lookup(value: Any, *keys: str) -> Any:
    """What lies under `keys`, one in the other; None where something on the way is no mapping or has no such key."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
