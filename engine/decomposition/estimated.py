"""AND-OR interactions of more words than can be enumerated, from sampled masked states: an estimate, and how good.

Part of the masked states is held out: what the interactions say of them is the only word on how far they
can be believed, since those that were matched are matched by construction.
"""

from dataclasses import dataclass, replace

import numpy as np

from engine.decomposition.sampled_program import (
    MOST_ORDER,
    Ints,
    SampledProgram,
    entries,
    subsets_of,
)
from engine.errors import SftscopeError
from engine.interactions import Bools, Floats, Subsets
from engine.sampling import HELD_OUT, MOST_WORDS

TOLERANCE = 1e-3
SEED = 0


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimated interactions of up to `most_order` words, in log-odds or whatever the scores are.

    relation (Relation), subset (bitmask), effect: (k,). gap: certified for this program, over all effects of
    up to `most_order` words on the matched states, not for the whole lattice. mismatch: largest |h − v| of the
    matched states. held_out_r2: 1 − Σ(v − h)² / Σ(v − mean v)², NaN without held-out states. error_by_present:
    number of words present → mean |v − h| / |v(x_N) − v(x_∅)| of the held-out states.
    """

    n_variables: int
    relation: Ints
    subset: Subsets
    effect: Floats
    bias: float
    zeta: float
    objective: float
    gap: float
    mismatch: float
    n_matched: int
    n_held_out: int
    held_out_r2: float
    error_by_present: dict[int, float]
    most_order: int = MOST_ORDER

    def model(self, masks: Bools) -> Floats:
        """h at masked states (m, n): (m,)."""
        return np.asarray(self.bias + entries(subsets_of(masks), self.relation, self.subset) @ self.effect)


def sample_masks(n: int, count: int, seed: int = SEED) -> Bools:
    """Distinct masked states (count, n): none, all, then sizes drawn evenly from 1 to n − 1.

    With even sizes the AND of k words is triggered in 1 of k + 1 states and its OR missed in as many, while of
    subsets drawn evenly it would be 1 of 2^k. Equal arguments give equal masks, so that steps can be compared.
    """
    if not 1 <= n <= MOST_WORDS or not 2 <= count <= 2.0**n:
        raise SftscopeError(f"{count} masked states of {n} words: expected 1 to {MOST_WORDS} words, 2 to 2^n states")
    random = np.random.default_rng(seed)
    seen = {bytes(n): None, b"\x01" * n: None}
    while len(seen) < count:
        row = np.zeros(n, dtype=np.uint8)
        row[random.permutation(n)[: random.integers(1, n)] if n > 1 else []] = 1
        seen.setdefault(row.tobytes())
    return np.array([np.frombuffer(row, dtype=np.uint8) for row in seen]).astype(bool)


def estimate(
    masks: Bools,
    scores: Floats,
    zeta: float,
    *,
    held_out: float = HELD_OUT,
    seed: int = SEED,
    tolerance: float = TOLERANCE,
) -> Estimate:
    """The sparsest AND-OR interactions that match scores (m,) at masks (m, n) to ζ, but for those held out.

    The states with no word and with all words must be there: they give the bias and the scale, and are matched.
    Raises SftscopeError where they are not, for more than 64 words, and for scores that are not finite.
    """
    _check(masks, scores)
    sizes = masks.sum(axis=1)
    others = np.flatnonzero((sizes > 0) & (sizes < masks.shape[1]))
    out = np.random.default_rng(seed).permutation(others)[: round(held_out * len(others))]
    is_matched = sizes > 0
    is_matched[out] = False
    bias = float(scores[sizes == 0][0])
    program = SampledProgram(masks[is_matched])
    solved = program.solve(scores[is_matched] - bias, zeta, tolerance)
    made = Estimate(
        n_variables=masks.shape[1],
        relation=solved.relation,
        subset=solved.subset,
        effect=solved.effect,
        bias=bias,
        zeta=zeta,
        objective=solved.objective,
        gap=solved.gap,
        mismatch=0.0,
        n_matched=int(is_matched.sum()) + 1,
        n_held_out=len(out),
        held_out_r2=np.nan,
        error_by_present={},
    )
    left = np.abs(made.model(masks) - scores)
    spread = abs(float(scores[sizes == masks.shape[1]][0]) - bias)
    errors = {int(size): float(left[out][sizes[out] == size].mean()) / spread for size in np.unique(sizes[out])}
    variance = float(((scores[out] - scores[out].mean()) ** 2).sum()) if len(out) else 0.0
    return replace(
        made,
        mismatch=float(left[is_matched].max()),
        held_out_r2=1.0 - float((left[out] ** 2).sum()) / variance if variance > 0.0 else float("nan"),
        error_by_present=errors if spread > 0.0 else {},
    )


def _check(masks: Bools, scores: Floats) -> None:
    if masks.ndim != 2 or masks.dtype != bool or scores.shape != masks.shape[:1]:
        raise SftscopeError(
            f"expected masks (m, n) of true and false and scores (m,), got {masks.shape}, {scores.shape}"
        )
    if not 1 <= masks.shape[1] <= MOST_WORDS:
        raise SftscopeError(f"{masks.shape[1]} words: expected 1 to {MOST_WORDS}")
    if not np.isfinite(scores).all():
        raise SftscopeError(f"score {int(np.flatnonzero(~np.isfinite(scores))[0])} is not a finite number")
    sizes = masks.sum(axis=1)
    if (sizes == 0).sum() != 1 or (sizes == masks.shape[1]).sum() != 1:
        raise SftscopeError("the masked states with no word and with all words must be there once each")
