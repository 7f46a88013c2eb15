"""What the probes of a run are as tokens: a hash of each, in run.toml and in every step file, so that none is mixed.

The templates and tokenizers that make tokens of a probe belong to others, and change; the hashes are what was scored.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sftscope.store.run_folder import RunFolder

MOST = 20_000  # hashes in run.toml, which is at most a mebibyte; of more probes only the step files have them
DIGITS = 16  # of each, hexadecimal


def as_table(hashes: Sequence[str]) -> dict[str, Any]:
    """What run.toml begins to hold of the prompts; empty where they are too many."""
    return {"prompts": {"tokens": list(hashes)}} if len(hashes) <= MOST else {}


def stored_in(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The hashes of the prompts in a run.toml, in the order of its probes; empty where it has none."""
    table = content.get("prompts")
    return _texts(table.get("tokens")) if isinstance(table, Mapping) else ()


def scored_in(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the prompts that a step was scored on; empty where it does not say, as in files of earlier releases."""
    return _texts(provenance.get("prompts"))


def date_is_guessed(folder: RunFolder) -> bool:
    """Whether an earlier release began the run, which stored no date for its chat template."""
    return "template_date" not in folder.read_run().get("settings", {}).get("model", {})


def date_of_run(folder: RunFolder) -> str:
    """The date that a chat template of this run writes, YYYY-MM-DD; empty where it writes none.

    Where it is not stored, the day on which run.toml was written.
    """
    if date_is_guessed(folder):
        return date.fromtimestamp(folder.run_file.stat().st_mtime).isoformat()
    return str(folder.read_run()["settings"]["model"]["template_date"])


def first_other(known: Sequence[str], found: Sequence[str]) -> int | None:
    """Number of the first probe whose prompt is another one; None where all are the same, or one side is not known."""
    if not known or not found:
        return None
    pairs = enumerate(zip(known, found, strict=False))
    differs = next((number for number, (one, other) in pairs if one != other), None)
    return min(len(known), len(found)) if differs is None and len(known) != len(found) else differs


def _texts(value: Any) -> tuple[str, ...]:
    fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return tuple(value) if fits else ()
