"""A step's raw scores → the same record with its effects, probe by probe; ζ is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sftscope.decomposition.batch import Points, UncertifiedError, decompose
from sftscope.decomposition.exact.cholesky import lapack
from sftscope.decomposition.process_pool import MOST_WORKERS, in_order, one_blas_thread
from sftscope.decomposition.sampled.estimate import Estimate, Replicate, estimate
from sftscope.foundation.threads import usable_cores
from sftscope.lattice.transforms import Floats
from sftscope.store import Effects, Pairs, SparseEffects, StepRecord


def with_effects(
    scored: StepRecord,
    zeta: Floats,
    source: Sequence[str],
    *,
    words: Sequence[Sequence[str]],
    tolerance: float,
    points: Points | None = None,
    replicates: int = 0,
) -> StepRecord:
    """The record with its effects; probes with equally many words are decomposed in one batch.

    zeta: (P,), measured where `source` says, probe by probe. words: of each probe; `decompose` says what for.
    replicates: of the estimate of each probe whose masked states are a sample. Equal scores give equal records.
    """
    effects: Effects | SparseEffects
    if scored.sample is not None:
        effects, solvers = _estimated(scored, zeta, words=words, tolerance=tolerance, replicates=replicates)
    else:
        effects, solvers = _exact(scored, zeta, words=words, tolerance=tolerance, points=points)
    provenance = {**scored.provenance, "zeta_source": list(source), "solver": solvers}
    return replace(scored, effects=effects, provenance=provenance)


def _exact(
    scored: StepRecord, zeta: Floats, *, words: Sequence[Sequence[str]], tolerance: float, points: Points | None
) -> tuple[Effects, list[str]]:
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
    return Effects(zeta=zeta, **columns, **per_probe), solvers


def _estimated(
    scored: StepRecord, zeta: Floats, *, words: Sequence[Sequence[str]], tolerance: float, replicates: int
) -> tuple[SparseEffects, list[str]]:
    """Estimates and their replicates; a probe of which all masked states are there has no replicate."""

    def solved(probe: int, check: Callable[[], None]) -> _Solved:
        states, scores = scored.states_of(probe), scored.scores[scored.probe_slice(probe)]
        check()
        if states.are_all:
            return _whole(scores, float(zeta[probe]), words[probe], tolerance, replicates)
        made = estimate(states, scores, float(zeta[probe]), tolerance=tolerance, replicates=replicates)
        if not made.gap <= tolerance:
            raise UncertifiedError(
                f"probe {probe} could only be estimated to a gap of {made.gap:.1e}, expected ≤ {tolerance:.0e}: "
                "score more masked states, or allow a larger ζ or tolerance"
            )
        found: list[Estimate | Replicate] = [made, *made.replicates]
        parts = [Pairs(part.relation, part.subset, part.effect) for part in found]
        return _Solved(parts, made.gap, made.objective, f"sampled, up to {made.most_order} words")

    lapack()  # loaded before its threads are limited
    with one_blas_thread():
        workers = min(usable_cores(), MOST_WORKERS)
        results = list(in_order(solved, range(scored.n_variables.size), workers))
    blocks = [part for result in results for part in result.parts]
    relation, subset, effect = (
        np.concatenate([getattr(part, name) for part in blocks]) for name in ("relation", "subset", "effect")
    )
    is_empty = not effect.size  # a file has no column without values
    return SparseEffects(
        n_effects=np.array([part.effect.size for part in blocks], dtype=np.int64),
        relation=np.zeros(1, dtype=np.uint8) if is_empty else relation.astype(np.uint8),
        subset=np.zeros(1, dtype=np.uint64) if is_empty else subset.astype(np.uint64),
        effect=np.zeros(1) if is_empty else effect,
        zeta=zeta,
        gap=np.array([result.gap for result in results]),
        objective=np.array([result.objective for result in results]),
    ), [result.solver for result in results]


@dataclass(frozen=True, eq=False)
class _Solved:
    """The effects of one probe and of its replicates, and what certifies the former."""

    parts: Sequence[Pairs]
    gap: float
    objective: float
    solver: str


def _whole(scores: Floats, zeta: float, words: Sequence[str], tolerance: float, replicates: int) -> _Solved:
    result = decompose(scores, zeta, tolerance=tolerance, names=[words], workers=1)
    both = np.stack([result.and_effects[0], result.or_effects[0]])
    relation, subset = np.nonzero(both)
    nothing = Pairs(relation[:0], subset[:0], np.zeros(0))
    parts = [Pairs(relation, subset, both[relation, subset]), *[nothing] * replicates]
    return _Solved(parts, float(result.gap[0]), float(result.objective[0]), result.solver[0])
