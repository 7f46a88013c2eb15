"""ProxySPEX on sampled masked states: boosted trees, their Fourier transform, and its Möbius values, by shapiq.

Another reading of the same sample, to compare with: AND effects only, without the bound ζ and without a certificate.
An OR of k words is 2^k − 1 AND effects here. SPEX itself is not offered: it asks for masked states of its own
choice, so the sample of a run does not serve it.
"""

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np

from engine.decomposition.estimated import Estimate, check_sample
from engine.decomposition.sampled_program import masks_of
from engine.errors import SftscopeError
from engine.interactions import Floats, Relation
from engine.sampling import States

NAN = float("nan")


def estimate_by_proxyspex(states: States, scores: Floats, *, seed: int = 0) -> Estimate:
    """AND effects that predict scores (m,) from the states that are not held out; ζ, gap are NaN.

    Raises SftscopeError without the extra `spex`, and for what is no sample (see `check_sample`).
    """
    check_sample(states, scores)
    matched = ~states.held_out
    values = _moebius(states.n, masks_of(states.subset[matched], states.n), scores[matched], seed)
    bias = values.pop((), 0.0)
    subset = np.array([sum(1 << int(word) for word in words) for words in values], dtype=np.uint64)
    made = Estimate(
        states=states,
        relation=np.full(len(values), Relation.AND, dtype=np.int64),
        subset=subset,
        effect=np.array(list(values.values()), dtype=np.float64),
        bias=bias,
        zeta=NAN,
        objective=float(np.abs(list(values.values())).sum()),
        gap=NAN,
        mismatch=NAN,
        most_order=int(np.bitwise_count(subset).max(initial=0)),
    )
    mismatch = float(np.abs(made.model(states.subset) - scores)[matched].max())
    return Estimate(**{**vars(made), "mismatch": mismatch})


def _moebius(n: int, masks: Any, scores: Floats, seed: int) -> dict[tuple[int, ...], float]:
    """Möbius value of each set of words, (): the bias, from masks (m, n) and scores (m,)."""
    try:
        from shapiq import ProxySPEX

        class GivenSample(ProxySPEX):  # type: ignore[misc]  # shapiq is not followed
            """On given masked states instead of its own draw; and as they are, Möbius values, unconverted."""

            def _process_moebius(self, moebius_transform: dict[tuple[int, ...], float]) -> Floats:
                self._interaction_lookup = {words: place for place, words in enumerate(moebius_transform)}
                return np.array(list(moebius_transform.values()))

        # of order n, the Shapley-Taylor index is the Möbius transform
        solver = GivenSample(n=n, index="STII", max_order=n, random_state=seed)
    except ImportError as error:
        raise SftscopeError("ProxySPEX needs shapiq and lightgbm: pip install 'sftscope[spex]'") from error
    solver._uniform_sampler = SimpleNamespace(sample=lambda budget: None, coalitions_matrix=masks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, about names of features
        found = solver.approximate(len(masks), lambda asked: scores)
    return {words: float(found.values[place]) for words, place in found.interaction_lookup.items()}
