"""A run as it would be under another noise bound ζ, or another tie-break: its stored scores, decomposed again.

Both are part of the decomposition, so unlike τ they cost time: steps × probes vectors. Needs scipy.
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
    return _again(history, [factor * part.zeta for part in history.probes], f"ζ × {factor:g}", progress)


def with_range_zeta(
    history: RunHistory,
    share: float | None = None,
    progress: Progress | None = None,
    *,
    not_below_base: bool = False,
) -> RunHistory:
    """The same with ζ_t = share · (max v_t - min v_t) of each probe at each step.

    share: None takes each probe's own, ζ_0 / (max v_0 - min v_0), so that the first step stays as it is.
    not_below_base: ζ_t is at least that of the first step, where v's range shrinks before it grows.
    """
    zeta = [_range_zeta(part, share) for part in history.probes]
    if not_below_base:
        zeta = [np.maximum(each, each[0]) for each in zeta]
    return _again(history, zeta, "ζ relative to the range of v", progress)


def with_reversed_ties(history: RunHistory, progress: Progress | None = None) -> RunHistory:
    """The same with the weights that break ties turned round: of equal decompositions that of higher orders and of OR.

    What is estimated from sampled masked states stays as it is.
    """
    return _again(history, [part.zeta for part in history.probes], "ties reversed", progress, reverse=True)


def _range_zeta(part: ProbeHistory, share: float | None) -> Floats:
    spread = np.ptp(part.scores.astype(np.float64), axis=1)
    if share is None:
        return part.zeta if spread[0] == 0 else part.zeta[0] / spread[0] * spread
    return share * spread


def _again(
    history: RunHistory,
    zeta: list[Floats],
    name: str,
    progress: Progress | None,
    *,
    reverse: bool = False,
) -> RunHistory:
    """Every probe decomposed under its ζ, (T,); reverse: ties are broken the other way round."""
    if find_spec("scipy") is None:
        raise SftscopeError("other ζ need scipy to decompose again; install it with: pip install 'sftscope[solver]'")
    probes = []
    for done, (part, bounds) in enumerate(zip(history.probes, zeta, strict=True)):
        probes.append(_decomposed_again(part, bounds, reverse))
        if progress is not None:
            progress(done + 1, len(history.probes), f"{name}, {part.probe.id}")
    return replace(history, probes=tuple(probes), placebos=())


def _decomposed_again(part: ProbeHistory, zeta: Floats, reverse: bool) -> ProbeHistory:
    from sftscope.decomposition import decompose
    from sftscope.decomposition.exact.lattice_program import ORDER_WEIGHT

    if part.is_estimated:
        return _estimated_again(part, zeta) if not reverse else part
    result = decompose(
        part.scores.astype(np.float64),
        zeta,
        names=[part.probe.variables] * len(zeta),
        order_weight=-ORDER_WEIGHT if reverse else ORDER_WEIGHT,
    )
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
