"""Prompts longer than the positions of a model: refused where nothing lies beyond them, else said."""

from collections.abc import Sequence

from sftscope.compat.positions import Positions
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.scoring.masking import MaskedPrompt


def refuse_beyond_positions(prompts: Sequence[MaskedPrompt], probes: Sequence[str], positions: Positions) -> None:
    """SftscopeError for a prompt longer than the positions that a model has learned. probes: their ids."""
    for prompt, probe in zip(prompts, probes, strict=True):
        if positions.learned and positions.limit is not None and len(prompt.ids) > positions.limit:
            raise SftscopeError(
                f"probe {safe_text(repr(probe), max_length=80)}: {len(prompt.ids)} tokens, and the model has learned "
                f"{positions.limit} positions ({positions.field}); shorten this probe or leave it out"
            )


def position_warnings(prompts: Sequence[MaskedPrompt], probes: Sequence[str], positions: Positions) -> list[str]:
    """One line where prompts are longer than a model with rotary positions was made for; it still computes them."""
    if positions.limit is None or positions.learned:
        return []
    over = [(len(prompt.ids), probe) for prompt, probe in zip(prompts, probes, strict=True)]
    over = [each for each in over if each[0] > positions.limit]
    if not over:
        return []
    length, probe = max(over)
    return [
        f"{len(over)} of {len(prompts)} probes are longer than the {positions.limit} positions that the model is made "
        f"for ({positions.field}), {safe_text(repr(probe), max_length=80)} with {length} tokens: what it scores "
        "there may mean little"
    ]
