"""How many interactions would only seem to be encoded if the decomposition were left unfinished.

The stored scores of some steps are decomposed by the plain descent of earlier work, and what it encodes under the
same τ and noise floor is held against the certified sets. Needs scipy; takes seconds a probe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.sets.evolution import Evolution
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import Progress


@dataclass(frozen=True)
class SolverResidue:
    """Means over probes at one step.

    encoded: |Ω| of the certified effects; by_descent: of the descent's; residue: how many of the latter the certified
    sets do not have; missed: the other way round. excess: how far Σ|I| of the descent lies above the certified one,
    as a share of it.
    """

    step: int
    encoded: float
    by_descent: float
    residue: float
    missed: float
    excess: float


def measure_residue(
    evolution: Evolution, steps: Sequence[int], progress: Progress | None = None, *, iterations: int = 20_000
) -> list[SolverResidue]:
    """One row for each of the step indices `steps`; SftscopeError where scipy is missing."""
    if find_spec("scipy") is None:
        raise SftscopeError("the descent needs scipy; install it with: pip install 'sftscope[solver]'")
    from sftscope.decomposition.rivals.subgradient_descent import decompose_by_descent

    history, wanted = evolution.history, list(steps)
    found = np.zeros((len(wanted), 5))
    if any(part.is_estimated for part in history.probes):
        raise SftscopeError("the descent needs all masked states of every probe, and here they are sampled")
    for p, part in enumerate(history.probes):
        result = decompose_by_descent(part.scores[wanted].astype(np.float64), part.zeta[wanted], iterations=iterations)
        for row, step in enumerate(wanted):
            effects = np.stack([result.and_effects[row], result.or_effects[row]])
            theirs, ours = evolution.encodes(p, step, EffectTable.of_dense(effects[None])), evolution.omega(p, step)
            least = np.abs(part.table.at(step)).sum()
            excess = np.abs(effects).sum() / least - 1.0 if least > 0.0 else 0.0
            found[row] += ours.sum(), theirs.sum(), (theirs & ~ours).sum(), (ours & ~theirs).sum(), excess
        if progress is not None:
            progress(p + 1, len(history.probes), f"descent, {part.probe.id}")
    means = found / len(history.probes)
    return [SolverResidue(int(history.steps[step]), *row) for step, row in zip(wanted, means.tolist(), strict=True)]
