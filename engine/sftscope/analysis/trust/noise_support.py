"""How surely an interaction has its class: decomposed again from scores with a little noise added.

For probes of which all masked states were scored, what the replicates are for samples: copies of the scores of the two
steps, with normal noise of the size of max(σ, 0.1 ζ) at every masked state, are decomposed with the same ζ and compared
under the same τ and floor. In how many of the copies an interaction has its class is a label to filter by, and no new
estimate. σ is what scoring in another batch layout changes; a tenth of ζ is far less than the decomposition forgives.
Needs scipy; takes copies × 2 decompositions a probe. The decompositions depend on no τ: `copy_table` makes them, and
whoever looks at several steps, or changes τ, keeps them.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from sftscope.analysis.run.effect_table import EffectTable
from sftscope.analysis.run.run_history import RunHistory
from sftscope.analysis.sets.evolution import Change, Encoded, Evolution, between_steps, partition
from sftscope.analysis.sets.views import Changes, Selection
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import Progress
from sftscope.lattice.transforms import Floats, Relation

COPIES = 8
SHARE_OF_ZETA = 0.1
Counts = dict[Change, NDArray[np.int64]]
Copies = Callable[[int, int], EffectTable]  # of a probe and a step index: one "step" a copy


def why_no_support() -> str:
    """What is missing to decompose again; empty where nothing is."""
    if find_spec("scipy") is not None:
        return ""
    return "support needs scipy to decompose again; install it with: pip install 'sftscope[solver]'"


def noise_support(
    evolution: Evolution,
    probe: int,
    now: int,
    base: int = 0,
    *,
    copies: int = COPIES,
    trajectory: bool = False,
    made: Copies | None = None,
) -> Counts:
    """By class, in how many copies each interaction of a probe has it: (2, K) each.

    now, base: step indices. made: the copies, where they are decomposed already. Equal runs give equal counts.
    SftscopeError where scipy is missing; ValueError for a probe whose masked states are a sample: its replicates say
    it.
    """
    part = evolution.history.probes[probe]
    if part.is_estimated:
        raise ValueError("expected a probe of which all masked states were scored")
    between = [evolution.both(probe, step) for step in between_steps(base, now)] if trajectory else []
    made = made or kept_copies(evolution.history, copies)
    befores, afters = (_sets_of(evolution, probe, step, made(probe, step)) for step in (base, now))
    counts = {change: np.zeros((2, part.table.subsets.size), dtype=np.int64) for change in Change}
    for before, after in zip(befores, afters, strict=True):
        for change, members in partition(before, after, between).items():
            counts[change] += members
    return counts


def with_noise_support(
    evolution: Evolution,
    selection: Selection,
    changes: Changes,
    *,
    copies: int = COPIES,
    made: Copies | None = None,
    progress: Progress | None = None,
) -> Changes:
    """The set diff of `selection` with the support of every row whose probe is not estimated; made: as above."""
    support: dict[str, Counts] = {}
    made = made or kept_copies(evolution.history, copies)
    probes = [p for p in selection.probes_of(evolution) if not evolution.history.probes[p].is_estimated]
    for done, p in enumerate(probes):
        name = evolution.history.probes[p].probe.id
        support[name] = noise_support(
            evolution, p, selection.now, selection.base, trajectory=selection.trajectory, made=made
        )
        if progress is not None:
            progress(done + 1, len(probes), f"support, step {changes.step}, {name}")
    rows = [
        replace(row, support=int(support[row.probe][row.change][Relation[row.relation], row.subset]))
        if row.probe in support
        else row
        for row in changes.rows
    ]
    return replace(changes, rows=rows)


def kept_copies(history: RunHistory, copies: int = COPIES) -> Copies:
    """The copies of a run, each decomposed when it is first asked for, and kept as long as what is returned."""
    return cache(lambda probe, step: copy_table(history, probe, step, copies))


def copy_table(history: RunHistory, probe: int, step: int, copies: int = COPIES) -> EffectTable:
    """The effects of each copy of one step; SftscopeError where scipy is missing."""
    if why := why_no_support():
        raise SftscopeError(why)
    from sftscope.decomposition import decompose

    part = history.probes[probe]
    zeta = float(part.zeta[step])
    scores = noisy_copies(history, probe, step, copies)
    result = decompose(scores, np.full(copies, zeta), names=[part.probe.variables] * copies)
    return EffectTable.of_dense(np.stack([result.and_effects, result.or_effects], axis=1))


def noisy_copies(history: RunHistory, probe: int, step: int, copies: int) -> Floats:
    """The scores of a probe at a step index, each time with other noise: (copies, 2^n).

    Seeded by the names of run, probe and step.
    """
    part = history.probes[probe]
    named = f"{history.name}\0{part.probe.id}\0{int(history.steps[step])}"
    rng = np.random.default_rng(np.frombuffer(sha256(named.encode()).digest(), dtype=np.uint32))
    sigma = part.noise[step] if np.isfinite(part.noise[step]) else 0.0
    scores = part.scores[step].astype(np.float64)
    copied: Floats = scores + max(sigma, SHARE_OF_ZETA * part.zeta[step]) * rng.normal(size=(copies, scores.size))
    return copied


def _sets_of(evolution: Evolution, probe: int, step: int, copies: EffectTable) -> list[Encoded]:
    """Ω and Ω^h of each copy of one step."""
    return [evolution.both_of(probe, step, copies, copy) for copy in range(copies.n_steps)]
