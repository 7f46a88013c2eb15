"""The same masked states scored twice in different batch layouts: how far v can be trusted.

What a check finds is either numerical noise, whose size σ goes into the step file and makes the noise
floor, or an error of scoring; above a tolerance it is called the latter and the step is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.lattice.transforms import Floats
from sftscope.scoring.masking import MaskedPrompt
from sftscope.scoring.scorer import TOLERANCE, Scorer


@dataclass(frozen=True)
class Difference:
    """What scoring again changed in v, in log-odds.

    noise: σ, root mean square over the states compared. largest: maximum; at `subset`. All NaN (and
    subset -1) where no state was compared or the scores are not finite.
    """

    noise: float
    largest: float
    subset: int


NOT_MEASURED = Difference(float("nan"), float("nan"), -1)


def check_scores(
    scorer: Scorer, prompt: MaskedPrompt, scores: Floats, *, states: int, seed: tuple[int, int]
) -> Difference:
    """Score `states` random masked states again by plain forwards and compare them with `scores`, (m,)."""
    count = min(states, len(scores))
    if not count or not np.isfinite(scores).all():  # what is not finite is refused by the store, by its name
        return NOT_MEASURED
    places = np.sort(np.random.default_rng(seed).choice(len(scores), size=count, replace=False))
    chosen = prompt.states.subset[places]
    difference = compare(scores[places], scorer.score_naively(prompt, chosen.tolist()))
    return Difference(difference.noise, difference.largest, int(chosen[difference.subset]))


def compare(scores: Floats, again: Floats) -> Difference:
    """The difference of two scorings of the same masked states, both (K,), K ≥ 1; a NaN is the largest."""
    apart = np.abs(again - scores)
    where = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
    return Difference(float(np.sqrt(np.mean(apart**2))), float(apart[where]), where)


def verify_record(found: Sequence[Difference], states: int) -> dict[str, Any]:
    """What a step file's provenance keeps of the checks of its probes, `states` masked states each."""
    return {"states": states, "largest_difference": [difference.largest for difference in found]}


def refuse_beyond_tolerance(difference: Difference, *, step: int, probe: str, precision: str) -> None:
    """SftscopeError where two scorings differ by more than rounding can explain."""
    tolerance = TOLERANCE[precision]
    if difference.subset < 0 or difference.largest <= tolerance:
        return
    raise SftscopeError(
        f"step {step}, probe {safe_text(repr(probe), max_length=80)}: masked state {difference.subset} scored again in "
        f"another batch layout differs by {difference.largest:.3g} log-odds (at most {tolerance:g} for {precision}); "
        "this step was not stored: its scores cannot be trusted; extract on another device, or with another "
        "[extraction] dtype or release of torch"
    )
