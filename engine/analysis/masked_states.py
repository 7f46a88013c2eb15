"""One masked state of one probe: what the LLM answers to it, and what the logical model says, Eq. (2)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.analysis import metrics
from engine.analysis.evolution import Change, Evolution, Sets
from engine.interactions import Floats, Relation


@dataclass(frozen=True)
class MaskedState:
    """v and h at one masked state x_T, in log-odds.

    subset: T. score: v(x_T). model: h(x_T) with all interactions. model_encoded: with Ω only.
    probability: sigmoid(v), of the target token. zeta: the bound on |h - v| with all interactions.
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


def triggered(n: int, subset: int) -> Sets:
    """Which interactions the masked state `subset` triggers: AND with S ⊆ T, OR with S ∩ T ≠ ∅: (2, 2^n)."""
    sets = np.arange(1 << n, dtype=np.int64)
    on: NDArray[np.bool_] = np.stack([(sets & ~subset) == 0, (sets & subset) != 0])
    on[:, 0] = False
    return on


def masked_state(evolution: Evolution, probe: int, now: int, subset: int) -> MaskedState:
    """v(x_T) and h(x_T) of the probe index `probe` at the step index `now`. ValueError for no subset of it."""
    part = evolution.history.probes[probe]
    if not 0 <= subset < 1 << part.n_variables:
        raise ValueError(f"expected a subset of {part.n_variables} words, got {subset}")
    on = triggered(part.n_variables, subset)
    effects, omega = _at_step(evolution, probe, now)
    bias, score = float(part.bias[now]), float(part.scores[now, subset])
    return MaskedState(
        subset=subset,
        score=score,
        model=bias + float(effects[on].sum()),
        model_encoded=bias + float(effects[on & omega].sum()),
        probability=math.exp(-metrics.cross_entropy(score)),
        zeta=float(part.zeta[now]),
    )


def matching(evolution: Evolution, probe: int, now: int) -> Matching:
    """How well the interactions explain the scores of all masked states of a probe at a step."""
    effects, omega = _at_step(evolution, probe, now)
    scores = evolution.history.probes[probe].scores[now].astype(np.float64)
    everything = float(metrics.matching_error(scores, effects))
    return Matching(everything, float(metrics.matching_error(scores, effects, omega)), int(omega.sum()))


def is_triggered(relation: Relation, interaction: int, subset: int) -> bool:
    """Whether the masked state `subset` triggers one interaction."""
    return interaction & ~subset == 0 if relation is Relation.AND else interaction & subset != 0


def _at_step(evolution: Evolution, probe: int, now: int) -> tuple[Floats, Sets]:
    """The effects of a probe at one step and which of them are encoded: both (2, 2^n)."""
    omega = evolution.partition(probe, now, now)[Change.PRESERVED]
    return evolution.effects_of(probe, Change.PRESERVED, now), omega
