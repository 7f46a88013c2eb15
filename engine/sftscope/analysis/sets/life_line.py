"""One interaction over the steps of a run: its effect, and whether it is encoded."""

from dataclasses import dataclass

import numpy as np

from sftscope.analysis.sets.evolution import Evolution
from sftscope.analysis.sets.noise_floor import noise_floor
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.transforms import Relation


@dataclass(frozen=True)
class LifeLine:
    """effect (log-odds), tau and encoded are T long; words in text order."""

    probe: str
    relation: str
    subset: int
    words: tuple[str, ...]
    steps: list[int]
    effect: list[float]
    tau: list[float]
    encoded: list[bool]


def life_line(evolution: Evolution, probe: int, relation: Relation, subset: int) -> LifeLine:
    """The life line of (relation, subset) of a probe index; SftscopeError where it has no such words."""
    part = evolution.history.probes[probe]
    if not 0 < subset < 1 << part.n_variables:
        raise SftscopeError(f"interaction {subset}: expected a subset of {part.n_variables} words, 1 to 2^n - 1")
    effect = part.table.series(relation, subset)
    floor = noise_floor(part.noise, np.array([subset.bit_count()]))
    limit = np.maximum(evolution.tau[probe], floor)
    return LifeLine(
        probe=part.probe.id,
        relation=relation.name,
        subset=subset,
        words=part.words_of(subset),
        steps=evolution.history.steps.tolist(),
        effect=effect.tolist(),
        tau=evolution.tau[probe].tolist(),
        encoded=(np.abs(effect) > limit).tolist(),
    )
