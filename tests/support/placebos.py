"""Sample runs with a placebo: one step, stored a second time with other noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from sample_history import write_sample_run
from sftscope.store import RunFolder
from sftscope.store.steps.step_file import to_bytes


def planted(path: Path, *, step: int, noise: float, n_steps: int = 4) -> RunFolder:
    """A sample run with a placebo of `step` whose effects differ by `noise`."""
    folder = RunFolder(write_sample_run(path, n_steps=n_steps, n_probes=2, n=4))
    record = folder.read_step(step)
    rng = np.random.default_rng(0)
    parts = {}
    for name in ("and_effects", "or_effects"):
        effects = getattr(record.effects, name)
        parts[name] = effects + noise * rng.normal(size=effects.shape)
        parts[name][record.offsets[:-1]] = 0
    folder.placebo_folder.mkdir(exist_ok=True)
    again = replace(record, effects=replace(record.effects, **parts))
    folder.placebo_file(step).write_bytes(to_bytes(again))
    return folder
