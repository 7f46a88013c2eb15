"""Histories in memory: from effects, at random, or with given counts of interactions."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from sample_history import ZETA, sample_record, step_grid
from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.run_history import ProbeHistory, RunHistory
from sftscope.inputs.probes import Probe
from sftscope.lattice.masked_states import every_state

seeds = st.integers(0, 2**31)


def history_of(effects: Sequence[np.ndarray], *, seed: int = 0) -> RunHistory:
    """A history from one (T, 2, 2^n) array of effects a probe; scores fit within ζ."""
    rng = np.random.default_rng(seed)
    steps = len(effects[0])
    records = [sample_record(step, [part[step] for part in effects], rng) for step in range(steps)]
    probes = []
    for index, part in enumerate(effects):
        n = part.shape[-1].bit_length() - 1
        spans = tuple((2 * i, 2 * i + 1) for i in range(n))
        probes.append(
            ProbeHistory(
                probe=Probe(f"p{index:02d}", "", "a b c d e f g h"[: 2 * n - 1], "x", spans),
                target={},
                states=every_state(n),
                scores=np.stack([record.scores[record.probe_slice(index)] for record in records]),
                table=EffectTable.of_dense(part),
                zeta=np.full(steps, ZETA),
                gap=np.zeros(steps),
                noise=np.full(steps, np.nan),
            )
        )
    grid = np.array(step_grid(steps), dtype=np.int64)
    return RunHistory("random", grid, {"eval": np.ones(steps)}, tuple(probes), {})


def random_history(seed: int, *, steps: int = 5, sizes: Sequence[int] = (3, 4, 1)) -> RunHistory:
    rng = np.random.default_rng(seed)
    effects = []
    for n in sizes:
        part = rng.normal(size=(steps, 2, 1 << n)) * (rng.random((steps, 2, 1 << n)) < 0.4)
        part[..., 0] = 0
        effects.append(part)
    return history_of(effects, seed=seed)


def counted_history(counts: Sequence[Sequence[int]]) -> RunHistory:
    """A history in which probe p has counts[p][t] interactions of strength 1 at step t."""
    effects = []
    for row in counts:
        part = np.zeros((len(row), 2, 32))
        for step, count in enumerate(row):
            part[step, 0, 1 : 1 + count] = 1.0
        effects.append(part)
    return history_of(effects)
