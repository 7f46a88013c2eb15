"""transformers: what a forward takes for a token in place of its id, the embedding and, of Gemma 3n and 4, what each
layer gets besides.

Both lie in one input vector: the embedding, (d,), then the per-layer inputs of all layers, (layers · p,), if any.
"""

from inspect import signature
from typing import Any

import torch


def vector_width(model: Any) -> int:
    """Numbers of an input vector: d + layers · p."""
    per_layer = getattr(_text_model(model), "embed_tokens_per_layer", None)
    return int(model.get_input_embeddings().weight.shape[1] + (0 if per_layer is None else per_layer.weight.shape[1]))


def input_vectors(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The input vectors of token ids, (…,) → (…, width), as the embedding modules give them (Gemma scales inside)."""
    embedded: torch.Tensor = model.get_input_embeddings()(ids)
    body = _text_model(model)
    if getattr(body, "embed_tokens_per_layer", None) is None:
        return embedded
    return torch.cat([embedded, _per_layer(body, ids).flatten(-2).to(embedded.dtype)], dim=-1)


def _per_layer(body: Any, ids: torch.Tensor) -> torch.Tensor:
    """What each layer gets of token ids: (…, layers, p). Ids beyond the table count as 0, as in later releases."""
    ids = torch.where(ids < body.embed_tokens_per_layer.weight.shape[0], ids, 0)
    # Gemma 4 of 5.20 wants the embeddings named, which it needs only without ids
    named = {"inputs_embeds": None} if "inputs_embeds" in signature(body.get_per_layer_inputs).parameters else {}
    found: torch.Tensor = body.get_per_layer_inputs(ids, **named)
    return found


def as_arguments(model: Any, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """The arguments of a forward for input vectors, (rows, tokens, width)."""
    width: int = model.get_input_embeddings().weight.shape[1]
    if vectors.shape[-1] == width:
        return {"inputs_embeds": vectors}
    layers = model.config.get_text_config().num_hidden_layers
    per_layer = vectors[..., width:].reshape(*vectors.shape[:-1], layers, -1)
    return {"inputs_embeds": vectors[..., :width], "per_layer_inputs": per_layer}


def _text_model(model: Any) -> Any:
    """The decoder itself, of a model that also sees images or hears too."""
    body = model.base_model
    return getattr(body, "language_model", body)
