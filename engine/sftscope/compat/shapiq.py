"""shapiq and its sparse_transform: SPEX and ProxySPEX on given masked states, and their result as Möbius values.

Their public interface draws the masked states itself and converts the result to an index. ImportError where they are
not installed.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Effects = dict[tuple[int, ...], float]  # Möbius value of each set of words, (): the bias


def solver_of(name: str, n: int, seed: int) -> Any:
    """The solver `name` of shapiq for n words, whose result is Möbius values, not an index of them."""
    import shapiq

    class Unconverted(getattr(shapiq, name)):  # type: ignore[misc]  # shapiq is not followed
        def _process_moebius(self, moebius_transform: Effects) -> Floats:
            self._interaction_lookup = {words: place for place, words in enumerate(moebius_transform)}
            return np.array(list(moebius_transform.values()))

    # of order n, the Shapley-Taylor index is the Möbius transform
    return Unconverted(n=n, index="STII", max_order=n, random_state=seed)


def give_states(proxyspex: Any, masks: Bools) -> None:
    """Have a ProxySPEX read these masked states, (m, n), instead of drawing its own."""
    proxyspex._uniform_sampler = SimpleNamespace(sample=lambda budget: None, coalitions_matrix=masks)


def set_budget(spex: Any, budget: int) -> int:
    """How many masked states a SPEX asks for, at most `budget`. ValueError where so few are too few."""
    return int(spex._set_transform_budget(budget))


def states_asked(spex: Any, n: int, asked: Callable[[Any], Floats]) -> None:
    """Call `asked` with the masked states, (m, n), that a SPEX with a budget wants the scores of."""
    from sparse_transform.qsft.signals.input_signal_subsampled import SubsampledSignal

    SubsampledSignal(func=asked, n=n, q=2, query_args=spex.query_args)
