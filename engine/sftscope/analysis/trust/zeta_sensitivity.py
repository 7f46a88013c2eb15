"""A run as it would be under another noise bound ζ: its stored scores, decomposed again at every step.

ζ is part of the decomposition, so unlike τ it costs time: steps × probes vectors. Needs scipy.
"""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.run_history import ProbeHistory, RunHistory
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import Progress
from sftscope.lattice.transforms import Floats
from sftscope.store import Pairs


def with_other_zeta(history: RunHistory, factor: float, progress: Progress | None = None) -> RunHistory:
    """`history` with every ζ times `factor`, without its placebos; SftscopeError where scipy is missing."""
    if find_spec("scipy") is None:
        raise SftscopeError("other ζ need scipy to decompose again; install it with: pip install 'sftscope[solver]'")
    probes = []
    for done, part in enumerate(history.probes):
        probes.append(_decomposed_again(part, factor))
        if progress is not None:
            progress(done + 1, len(history.probes), f"ζ × {factor:g}, {part.probe.id}")
    return replace(history, probes=tuple(probes), placebos=())


def _decomposed_again(part: ProbeHistory, factor: float) -> ProbeHistory:
    from sftscope.decomposition import decompose

    zeta = factor * part.zeta
    if part.is_estimated:
        return _estimated_again(part, zeta)
    result = decompose(part.scores.astype(np.float64), zeta, names=[part.probe.variables] * len(zeta))
    effects = np.stack([result.and_effects, result.or_effects], axis=1)
    return replace(part, table=EffectTable.of_dense(effects), zeta=zeta, gap=result.gap)


def _estimated_again(part: ProbeHistory, zeta: Floats) -> ProbeHistory:
    """From the same sample of masked states, without replicates."""
    from sftscope.decomposition.sampled.estimate import estimate

    steps = zip(part.scores.astype(np.float64), zeta.tolist(), strict=True)
    made = [estimate(part.states, scores, bound) for scores, bound in steps]
    pairs = [Pairs(each.relation, each.subset, each.effect) for each in made]
    table = EffectTable.of_pairs(part.n_variables, pairs, every=False)
    return replace(part, table=table, zeta=zeta, gap=np.array([each.gap for each in made]), replicates=())
