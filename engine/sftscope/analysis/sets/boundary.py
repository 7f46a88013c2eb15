"""Where a threshold rule has the fewest encoded interactions: the sparsest step as hard sets see it.

For the sensitivity to τ alone. What a run is judged by needs no threshold, see `events`.
"""

import numpy as np

from sftscope.analysis.sets.events import Event as Boundary
from sftscope.analysis.sets.events import sparsest_of
from sftscope.analysis.sets.evolution import Evolution

__all__ = ["Boundary", "find_boundary"]


def find_boundary(evolution: Evolution) -> Boundary:
    """The checkpoint with the fewest encoded interactions, over all probes; none where there are no two stages."""
    return sparsest_of(evolution.counts().astype(np.float64) + 1.0, evolution.history.steps)
