"""transformers: how far the positions of a model reach, and whether what a token gets depends on the prompt's length.

GPT-2 and its kin look positions up in a table and fail beyond it. Rotary positions reach further than was trained.
With dynamic NTK and longrope the rotation of every token changes once the whole is longer than a limit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len")  # older configs have one of the latter
_LENGTH_DEPENDENT = ("dynamic", "longrope")
_SINUSOIDS = ("gptj", "codegen", "ctrl")  # rotary or sinusoidal, but from a table of that many rows
_ENDLESS = ("bloom", "mpt", "xglm", "nemotron_h", "jamba", "bamba")  # no positions, or of any length


@dataclass(frozen=True)
class Positions:
    """limit: tokens that the positions are made for; None where there is no limit. learned: nothing lies beyond it."""

    limit: int | None = None
    learned: bool = False
    field: str = ""


def positions_of(config: Any) -> Positions:
    """How far the positions of the model with this config reach."""
    text = config.get_text_config()
    name = next((name for name in _NAMES if type(getattr(text, name, None)) is int), "")
    kind = getattr(text, "model_type", "")
    if not name or kind in _ENDLESS or getattr(text, "alibi", False) or getattr(text, name) < 1:
        return Positions()
    rotary = bool(_rope(text)) and kind not in _SINUSOIDS
    shown = text.attribute_map.get(name, name)
    return Positions(int(getattr(text, name)), not rotary, shown)


def same_up_to(config: Any) -> int | None:
    """Tokens up to which a token's rotation does not depend on how many follow; None where it never does."""
    text = config.get_text_config()
    limits = [
        int(rope.get("original_max_position_embeddings") or text.max_position_embeddings)
        for rope in _ropes(_rope(text))
        if any(kind in str(rope.get("rope_type", rope.get("type", ""))) for kind in _LENGTH_DEPENDENT)
    ]
    return min(limits, default=None)


def forget_length(model: Any) -> None:
    """Make the next forward that of a fresh model: dynamic NTK keeps the rotation of the longest prompt so far."""
    for module in model.modules():
        if "dynamic" not in str(getattr(module, "rope_type", "")):
            continue
        own = vars(module)
        for name in [name for name in own if name.endswith("max_seq_len_cached")]:
            setattr(module, name, module.original_max_seq_len)
        for name in [name for name in (*own, *module._buffers) if name.endswith("original_inv_freq")]:
            kept = name.removesuffix("original_inv_freq") + "inv_freq"
            module.register_buffer(kept, getattr(module, name).to(getattr(module, kept).device), persistent=False)


def _rope(config: Any) -> Mapping[str, Any]:
    """The rotary parameters of a config; empty where it has none."""
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(config, name, None)
        if isinstance(found, Mapping) and found:
            return found
    return {"rope_theta": theta} if (theta := getattr(config, "rope_theta", None) or _rotary(config)) else {}


def _rotary(config: Any) -> Any:
    return getattr(config, "rotary_pct", None) or getattr(config, "rotary_dim", None)


def _ropes(rope: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parameters of each kind of layer, which some models tell apart."""
    tables = [each for each in rope.values() if isinstance(each, Mapping)]
    yield from tables or [rope]
