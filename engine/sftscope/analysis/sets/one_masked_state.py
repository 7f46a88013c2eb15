"""One masked state of one probe: what the LLM answers to it, and what the logical model says, Eq. (2)."""

import math
from dataclasses import dataclass

import numpy as np

from sftscope.analysis.run.run_history import ProbeHistory
from sftscope.analysis.sets import metrics
from sftscope.analysis.sets.evolution import Evolution
from sftscope.lattice.masked_states import States
from sftscope.lattice.transforms import Relation


@dataclass(frozen=True)
class MaskedState:
    """v and h at one masked state x_T, in log-odds.

    subset: T. score: v(x_T), NaN where the state is not among a sample's. model: h(x_T) with all interactions.
    model_encoded: with Ω only. probability: sigmoid(v), of the target token. zeta: the bound on |h - v| with all
    interactions.
    """

    subset: int
    score: float
    model: float
    model_encoded: float
    probability: float
    zeta: float


@dataclass(frozen=True)
class Matching:
    """Matching error, Eq. (14), of one probe at one step: with all interactions, and with Ω only."""

    all: float
    encoded: float
    n_encoded: int


def masked_state(evolution: Evolution, probe: int, now: int, subset: int) -> MaskedState:
    """v(x_T) and h(x_T) of the probe index `probe` at the step index `now`. ValueError for no subset of it."""
    part = evolution.history.probes[probe]
    if not 0 <= subset < 1 << part.n_variables:
        raise ValueError(f"expected a subset of {part.n_variables} words, got {subset}")
    state = States(part.n_variables, np.array([subset], dtype=np.uint64), np.zeros(1, dtype=bool))
    bias, score = float(part.bias[now]), _score(part, now, subset)
    return MaskedState(
        subset=subset,
        score=score,
        model=bias + float(part.table.model(now, state)[0]),
        model_encoded=bias + float(part.table.model(now, state, evolution.omega(probe, now))[0]),
        probability=math.exp(-metrics.cross_entropy(score)),
        zeta=float(part.zeta[now]),
    )


def matching(evolution: Evolution, probe: int, now: int) -> Matching:
    """How well the interactions explain the scores of all masked states of a probe at a step."""
    part, omega = evolution.history.probes[probe], evolution.omega(probe, now)
    scores = part.scores[now].astype(np.float64)
    models = (scores[0] + part.table.model(now, part.states, members) for members in (None, omega))
    everything, encoded = (float(metrics.matching_error(scores, model)) for model in models)
    return Matching(everything, encoded, int(omega.sum()))


def is_triggered(relation: Relation, interaction: int, subset: int) -> bool:
    """Whether the masked state `subset` triggers one interaction."""
    return interaction & ~subset == 0 if relation is Relation.AND else interaction & subset != 0


def _score(part: ProbeHistory, now: int, subset: int) -> float:
    """v at one masked state, NaN where it was not scored."""
    place = int(np.searchsorted(part.states.subset, np.uint64(subset)))
    return float(part.scores[now, place]) if part.states.subset[place] == subset else metrics.NAN
