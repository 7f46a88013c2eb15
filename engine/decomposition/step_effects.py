"""A step's raw scores → the same record with its effects, probe by probe; ζ is given."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.decomposition.batch import Points, decompose
from engine.interactions import Floats
from engine.store import Effects, StepRecord


def with_effects(
    scored: StepRecord,
    zeta: Floats,
    source: Sequence[str],
    *,
    words: Sequence[Sequence[str]],
    tolerance: float,
    points: Points | None = None,
) -> StepRecord:
    """The record with its effects; probes with equally many words are decomposed in one batch.

    zeta: (P,), measured where `source` says, probe by probe. words: of each probe; `decompose` says what for.
    Equal scores give equal records.
    """
    columns = {name: np.zeros(len(scored.scores)) for name in ("and_effects", "or_effects")}
    per_probe = {name: np.zeros(len(zeta)) for name in ("gap", "objective")}
    solvers = [""] * len(zeta)
    for n in np.unique(scored.n_variables):
        members: list[int] = np.flatnonzero(scored.n_variables == n).tolist()
        scores = np.stack([scored.scores[scored.probe_slice(p)] for p in members])
        result = decompose(
            scores,
            zeta[members],
            tolerance=tolerance,
            names=[words[p] for p in members],
            points=points,
        )
        for row, p in enumerate(members):
            columns["and_effects"][scored.probe_slice(p)] = result.and_effects[row]
            columns["or_effects"][scored.probe_slice(p)] = result.or_effects[row]
            per_probe["gap"][p] = result.gap[row]
            per_probe["objective"][p] = result.objective[row]
            solvers[p] = result.solver[row]
    return replace(
        scored,
        effects=Effects(zeta=zeta, **columns, **per_probe),
        provenance={**scored.provenance, "zeta_source": list(source), "solver": solvers},
    )
