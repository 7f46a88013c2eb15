"""SPEX and ProxySPEX by shapiq: other readings of sampled masked states, to compare with.

Both give AND effects only (an OR of k words is 2^k − 1 of them), without the bound ζ and without a certificate.
ProxySPEX reads any sample: boosted trees, their Fourier transform, and its Möbius values. SPEX finds the Fourier
transform by error-correcting codes, for which it asks for masked states of its own choice; they do not depend
on the scores, so `spex_states` tells them beforehand.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sftscope.compat.shapiq import Effects, give_states, set_budget, solver_of, states_asked
from sftscope.decomposition.process_pool import threads_kept
from sftscope.decomposition.sampled.column_generation import masks_of, subsets_of
from sftscope.decomposition.sampled.estimate import Estimate, check_sample
from sftscope.foundation.errors import SftscopeError
from sftscope.lattice.masked_states import HELD_OUT, MOST_WORDS, States, sample_states
from sftscope.lattice.transforms import Bools, Floats, Relation, Subsets

NAN = float("nan")
Game = Callable[[Bools], Floats]  # scores (m,) of masked states (m, n)


def estimate_by_proxyspex(states: States, scores: Floats, *, seed: int = 0) -> Estimate:
    """AND effects that predict scores (m,) from the states that are not held out; ζ, gap are NaN.

    Raises SftscopeError without the extra `spex`, and for what is no sample (see `check_sample`).
    """
    check_sample(states, scores)
    masks, own = masks_of(states.subset[~states.held_out], states.n), scores[~states.held_out]
    solver = _solver("ProxySPEX", states.n, seed)
    give_states(solver, masks)
    return _and_estimate(states, scores, _solved(solver, len(masks), lambda asked: own, seed))


def spex_states(n: int, budget: int, seed: int = 0, held_out: float = HELD_OUT) -> States:
    """The masked states of which SPEX needs the scores, at most `budget`, and besides them a share to be held out.

    Raises SftscopeError without the extra `spex`, and where so few states are too few for SPEX.
    """
    if not 1 <= n <= MOST_WORDS:
        raise SftscopeError(f"{n} words: expected 1 to {MOST_WORDS}")
    asked = _asked(n, budget, seed)
    more = sample_states(n, min(2 + round(held_out * asked.size), 1 << n), seed).subset  # none and all are there
    return _held_out_but(n, np.union1d(asked, more), asked)


def estimate_by_spex(states: States, scores: Floats, *, seed: int = 0) -> Estimate:
    """AND effects from the scores (m,) of `spex_states` with this seed; ζ, gap are NaN.

    All other states are held out, whatever `states` says. Raises SftscopeError without the extra `spex`, for what is
    no sample, and where states that SPEX asks for are not there.
    """
    check_sample(states, scores)
    budget = 4 * states.subset.size  # SPEX may ask for a state more than once
    while True:
        try:
            asked = _asked(states.n, budget, seed)
        except SftscopeError as error:
            raise SftscopeError(
                "these are not the masked states that SPEX asks for; take them from sftscope.decomposition.rivals.spex."
                "spex_states, or read these by proxyspex"
            ) from error
        if np.isin(asked, states.subset).all():
            break
        budget = _budget(states.n, budget)[1] - 1

    def given(masks: Bools) -> Floats:
        return np.asarray(scores[np.searchsorted(states.subset, subsets_of(masks))])

    found = _solved(_solver("SPEX", states.n, seed), budget, given, seed)
    return _and_estimate(_held_out_but(states.n, states.subset, asked), scores, found)


def _held_out_but(n: int, subset: Subsets, asked: Subsets) -> States:
    out = ~np.isin(subset, asked)
    out[[0, -1]] = False
    return States(n, subset, out)


def _asked(n: int, budget: int, seed: int) -> Subsets:
    """The masked states that SPEX asks for, each once, ascending."""
    solver, _ = _budget(n, budget)
    seen: list[Subsets] = []

    def asked(masks: Any) -> Floats:
        seen.append(subsets_of(masks.astype(bool)))
        return np.zeros(len(masks))

    with _seeded(seed):
        states_asked(solver, n, asked)
    return np.unique(np.concatenate(seen))


def _budget(n: int, budget: int) -> tuple[Any, int]:
    """A SPEX of at most `budget` states, and how many it asks for."""
    solver = _solver("SPEX", n, 0)
    try:
        return solver, set_budget(solver, budget)
    except ValueError as error:
        raise SftscopeError(f"SPEX needs more than {budget} masked states for {n} words; score more") from error


def _solver(name: str, n: int, seed: int) -> Any:
    """A solver of shapiq whose result is Möbius values, not an index of them."""
    try:
        return solver_of(name, n, seed)
    except ImportError as error:
        raise SftscopeError(f"{name} needs shapiq and lightgbm: pip install 'sftscope[spex]'") from error


def _solved(solver: Any, budget: int, game: Game, seed: int) -> Effects:
    with warnings.catch_warnings(), np.errstate(all="ignore"), _seeded(seed), threads_kept():
        warnings.simplefilter("ignore")  # scikit-learn's, about names of features and descents that did not converge
        found = solver.approximate(budget, game)
    return {words: float(found.values[place]) for words, place in found.interaction_lookup.items()}


def _and_estimate(states: States, scores: Floats, effects: Effects) -> Estimate:
    """An estimate of these effects; the scores are (m,)."""
    bias = effects.pop((), 0.0)
    subset = np.array([sum(1 << int(word) for word in words) for words in effects], dtype=np.uint64)
    order = int(np.bitwise_count(subset).max(initial=0))
    made = Estimate(
        states=states,
        relation=np.full(len(effects), Relation.AND, dtype=np.int64),
        subset=subset,
        effect=np.array(list(effects.values()), dtype=np.float64),
        bias=bias,
        zeta=NAN,
        objective=float(np.abs(list(effects.values())).sum()),
        gap=NAN,
        mismatch=NAN,
        most_order=order,
        candidates=f"AND effects, found of up to {order} words",
    )
    mismatch = float(np.abs(made.model(states.subset) - scores)[~states.held_out].max())
    return Estimate(**{**vars(made), "mismatch": mismatch})


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """NumPy's shared generator, from which sparse_transform draws, seeded and then as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
