"""What the steps of a run were made on: equal bytes need the same device, CPU, kernels and number of threads.

From the provenance of step files, so every text is made safe here. What a file does not say, those of earlier releases
among them, counts as no difference.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sftscope.foundation.safe_text import safe_text

_SHOWN = 4
Machine = Mapping[str, tuple[str, ...]]  # what differs, by name; several where several machines shared a step


def machine_of(provenance: Mapping[str, Any]) -> Machine:
    """What a step file says of the machine: device, CPU, vector unit, BLAS, threads."""
    shared = provenance.get("made_on")
    parts = [part for part in shared if isinstance(part, Mapping)] if isinstance(shared, list) else [provenance]
    found: dict[str, tuple[str, ...]] = {}
    for part in parts:
        for name, value in _said(part).items():
            found[name] = _distinct((*found.get(name, ()), value))
    return found


def machines_sentence(machines: Sequence[Machine]) -> str:
    """In what the machines of a run's steps differ, as one line; empty where they do not."""
    names = dict.fromkeys(name for machine in machines for name in machine)
    values = {name: _distinct(value for machine in machines for value in machine.get(name, ())) for name in names}
    differing = [
        f"{name} {' / '.join(each[:_SHOWN])}{' / …' if len(each) > _SHOWN else ''}"
        for name, each in values.items()
        if len(each) > 1
    ]
    if not differing:
        return ""
    return f"Not all scores were made on one machine ({'; '.join(differing)}): that alone changes a score by rounding."


def _said(part: Mapping[str, Any]) -> dict[str, str]:
    machine, threads = (part.get(name) for name in ("machine", "threads"))
    machine = machine if isinstance(machine, Mapping) else {}
    blas = machine.get("blas")
    said = {
        "device": part.get("device"),
        "CPU": machine.get("cpu"),
        "vector unit": machine.get("vector_unit"),
        "BLAS": ", ".join(map(str, blas)) if isinstance(blas, list) else None,
        "threads": threads.get("torch") if isinstance(threads, Mapping) else None,
    }
    return {name: safe_text(str(value), max_length=100) for name, value in said.items() if value not in (None, "")}


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
