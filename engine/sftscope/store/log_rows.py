"""Rows of a training's log, whoever wrote it: numbers by name at a step."""

from collections.abc import Mapping
from typing import Any

from sftscope.files.json_text import count, finite, number
from sftscope.store.steps.step_record import MAX_STEP


def log_row(row: Mapping[str, Any], step: str = "step") -> dict[str, Any] | None:
    """`step` as a whole number, `kind` where it is text, every other number as a float, NaN where it is not finite.

    What is neither is left out. None where the row is of no step. step: by which name it has its step.
    """
    at = count(row.get(step), MAX_STEP)
    if at is None:
        return None
    numbers = {name: finite(value) for name, value in row.items() if number(value) is not None}
    kind = {"kind": row["kind"]} if isinstance(row.get("kind"), str) else {}
    return {**numbers, "step": at, **kind}
