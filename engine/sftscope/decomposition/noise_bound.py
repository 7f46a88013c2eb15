"""The two kinds of noise bound ζ: fixed per probe over a run, or a share of the range of v at each step.

The fixed one, a share of |v(x_N) - v(x_∅)| at step 0, is measured by the extraction; the moving one follows from the
scores of its step alone, so that no other step has to be there, and a step can be repaired by itself.
"""

from typing import Final

import numpy as np

from sftscope.lattice.transforms import Floats
from sftscope.store import StepRecord

BASE: Final = "base"
RANGE: Final = "range"  # as `[extraction] zeta_of` names them
RANGE_SOURCE: Final = "range at this step"  # where such a ζ was measured, for the step file
# |v(x_N) - v(x_∅)|, or range of v, in log-odds below which a model does not react to the words of a probe
SCALE_FLOOR: Final = 0.5


def range_zeta(scored: StepRecord, share: float) -> tuple[Floats, list[str]]:
    """ζ = share · max(max v - min v, SCALE_FLOOR) of each probe at this step, (P,), and where it was measured.

    Over the masked states that were scored: all, or the sample.
    """
    parts = [scored.scores[scored.probe_slice(probe)] for probe in range(scored.n_variables.size)]
    spread = np.array([np.ptp(part) for part in parts])
    return share * np.maximum(spread, SCALE_FLOOR), [RANGE_SOURCE] * len(parts)
