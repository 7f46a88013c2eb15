"""What the steps of a run were made on: equal bytes need the same device, CPU, kernels and number of threads.

From the provenance of step files, so every text is made safe here. What a file does not say, those of earlier releases
among them, counts as no difference.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sftscope.text import safe_text

_SHOWN = 4


def machine_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """What a step file says of the machine, by what it is: device, CPU, vector unit, BLAS, threads."""
    machine, threads = (provenance.get(name) for name in ("machine", "threads"))
    machine = machine if isinstance(machine, Mapping) else {}
    blas = machine.get("blas")
    said = {
        "device": provenance.get("device"),
        "CPU": machine.get("cpu"),
        "vector unit": machine.get("vector_unit"),
        "BLAS": ", ".join(map(str, blas)) if isinstance(blas, Sequence) and not isinstance(blas, str) else None,
        "threads": threads.get("torch") if isinstance(threads, Mapping) else None,
    }
    return {name: safe_text(str(value), max_length=100) for name, value in said.items() if value not in (None, "")}


def machines_sentence(machines: Sequence[Mapping[str, str]]) -> str:
    """In what the machines of a run's steps differ, as one line; empty where they do not."""
    names = dict.fromkeys(name for machine in machines for name in machine)
    values = {name: list(dict.fromkeys(m[name] for m in machines if name in m)) for name in names}
    differing = [
        f"{name} {' / '.join(each[:_SHOWN])}{' / …' if len(each) > _SHOWN else ''}"
        for name, each in values.items()
        if len(each) > 1
    ]
    if not differing:
        return ""
    return f"Not all steps were made on one machine ({'; '.join(differing)}): that alone changes a score by rounding."
