"""AND-OR interactions from a sample of the masked states: an estimate, and how far it can be believed.

Part of the sample is held out: what the interactions say of it is the only word on how far they can be
believed, since the states that were matched are matched by construction. Replicates are estimates from the same
states resampled; how much they differ is how much the choice of states matters.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sftscope.decomposition.exact.incumbent import Search, settled
from sftscope.decomposition.exact.lattice_program import lattice_program
from sftscope.decomposition.exact.program import Ints
from sftscope.decomposition.exact.vertex import repaired
from sftscope.decomposition.sampled.column_generation import SampledProgram, SampledSolution, masks_of
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.masked_states import (
    MOST_ORDER,
    MOST_SAMPLED,
    MOST_WORDS,
    States,
    candidates,
    largest_order,
    model_at,
)
from sftscope.lattice.transforms import Floats, Subsets

TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Replicate:
    """An estimate from resampled masked states: relation, subset and effect, each (k,)."""

    relation: Ints
    subset: Subsets
    effect: Floats


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimated interactions, in log-odds or whatever the scores are.

    relation (Relation), subset (bitmask), effect: (k,). gap: certified for this program, over all effects of up to
    `most_order` words and those of the matched states, not for the whole lattice. mismatch: largest |h − v| of the
    matched states. candidates: which effects there could have been, for people.
    """

    states: States
    relation: Ints
    subset: Subsets
    effect: Floats
    bias: float
    zeta: float
    objective: float
    gap: float
    mismatch: float
    most_order: int
    candidates: str
    replicates: tuple[Replicate, ...] = ()

    def model(self, subsets: Subsets) -> Floats:
        """h at masked states (m,): (m,)."""
        return np.asarray(self.bias + model_at(self.states.n, subsets, self.relation, self.subset, self.effect))


def estimate(
    states: States,
    scores: Floats,
    zeta: float,
    *,
    tolerance: float = TOLERANCE,
    replicates: int = 0,
    only_and: bool = False,
) -> Estimate:
    """The sparsest AND-OR interactions that match scores (m,) at the states to ζ, but for those held out.

    |h − v| ≤ ζ (1 + 1e-9) at the others, as `decompose` has it.
    replicates: how many estimates from resampled states are made besides. Which states each of them has depends on
    the states alone, so that replicate b of one step is comparable with replicate b of another.
    only_and: a sparse Möbius transform, of AND effects alone.
    Raises SftscopeError for more than 64 words or MOST_SAMPLED states, and for scores that are not finite or not one a
    state.
    """
    check_sample(states, scores)
    if states.subset.size > MOST_SAMPLED and not states.are_all:
        raise SftscopeError(f"a sample of {states.subset.size} masked states: expected at most {MOST_SAMPLED}")
    bias = float(scores[0])
    matched = np.flatnonzero(~states.held_out)[1:]  # without the empty state, which the bias matches
    solved = _solve(states, matched, scores - bias, zeta, tolerance, only_and)
    again = []
    for number in range(replicates):
        chosen = resampled(len(matched), number)
        found = _solve(states, matched[chosen], scores - bias, zeta, tolerance, only_and, near=solved)
        again.append(Replicate(found.relation, found.subset, found.effect))
    h = model_at(states.n, states.subset[matched], solved.relation, solved.subset, solved.effect)
    return Estimate(
        states=states,
        relation=solved.relation,
        subset=solved.subset,
        effect=solved.effect,
        bias=bias,
        zeta=zeta,
        objective=solved.objective,
        gap=solved.gap,
        mismatch=float(np.abs(h - (scores[matched] - bias)).max(initial=0.0)),
        most_order=MOST_ORDER if only_and else largest_order(states.n),
        candidates=candidates(states.n, only_and),
        replicates=tuple(again),
    )


def resampled(count: int, number: int) -> Ints:
    """Which of `count` matched states replicate `number` is made from: drawn with replacement, the full one kept."""
    drawn = np.random.default_rng([count, number]).integers(0, count, count)
    return np.union1d(drawn, [count - 1])


def _solve(
    states: States,
    rows: Ints,
    v: Floats,
    zeta: float,
    tolerance: float,
    only_and: bool,
    near: SampledSolution | None = None,
) -> SampledSolution:
    """The program on the states numbered `rows`; near: a solution on more of them."""
    n = states.n
    if float(np.abs(v[rows]).max(initial=0.0)) <= zeta:
        return SampledSolution(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64), np.zeros(0), 0.0, 0.0)
    if largest_order(n) == n and not only_and:
        return _solve_on_lattice(n, states.subset[rows].astype(np.int64), v[rows], zeta, tolerance)
    program = SampledProgram(masks_of(states.subset[rows], n), only_and)
    start = None
    if near is not None:
        start = np.union1d(program.first_columns(), program.columns_of(near.relation, near.subset))
    return program.solve(v[rows], zeta, tolerance, start)


def _solve_on_lattice(n: int, rows: Ints, v: Floats, zeta: float, tolerance: float) -> SampledSolution:
    """The program over effects of every order, whose products are butterflies."""
    exponent = int(np.frexp(float(np.abs(v).max()))[1])
    program = lattice_program(n)
    search = Search(program.on(rows), np.ldexp(v, -exponent), float(np.ldexp(zeta, -exponent)))
    with np.errstate(all="ignore"):  # what is not finite is caught where it is offered
        point = settled(search, lambda: None)
        if not np.isfinite(search.cost):  # near the optimum, but no vertex: ties that rounding leaves open
            near = np.zeros(program.n_columns) if point is None else point
            search.offer(repaired(search.program, search.v, search.zeta, near), "interior")
        found = search.solution(tolerance)
    effects = np.ldexp(program.spread(found.x), exponent)
    relation, subset = np.nonzero(effects)
    cost, bound = (float(np.ldexp(value, exponent)) for value in (found.cost, found.bound))
    return SampledSolution(relation, subset.astype(np.uint64), effects[relation, subset], cost, bound)


def error_by_present(states: States, scores: Floats, model: Floats) -> dict[int, float]:
    """Number of words present → mean |v − h| / |v(x_N) − v(x_∅)| of the held-out states; empty without a scale."""
    sizes, left = np.bitwise_count(states.subset), np.abs(scores - model)
    spread = abs(float(scores[-1] - scores[0]))
    if spread == 0.0:
        return {}
    out = states.held_out
    return {int(size): float(left[out & (sizes == size)].mean()) / spread for size in np.unique(sizes[out])}


def check_sample(states: States, scores: Any) -> None:
    """Raises SftscopeError for what `estimate` refuses."""
    if scores.shape != states.subset.shape:
        raise SftscopeError(f"expected one score per masked state, got {scores.shape[0]} of {states.subset.size}")
    if not 1 <= states.n <= MOST_WORDS:
        raise SftscopeError(f"{states.n} words: expected 1 to {MOST_WORDS}")
    if not np.isfinite(scores).all():
        raise SftscopeError(f"score {int(np.flatnonzero(~np.isfinite(scores))[0])} is not a finite number")
    if states.subset[0] != 0 or int(states.subset[-1]) != (1 << states.n) - 1 or states.held_out[[0, -1]].any():
        raise SftscopeError("expected the masked states with no word and with all words, once each")
