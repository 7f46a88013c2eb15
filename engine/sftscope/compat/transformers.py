"""transformers: names that differ between releases in the declared range, and its hooks for attention and masks.

`past_key_values` of a forward became `cache` in 5.24, and the old name goes in 5.40; gradient checkpointing became
activation checkpointing. The hooks are not in its public interface. Chat templates are in `templates`, without PyTorch.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, TrainingArguments
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from sftscope.compat.input_vectors import as_arguments

__all__ = [
    "Cache",
    "DynamicCache",
    "DynamicLayer",
    "attention_by",
    "cache_argument",
    "can_branch",
    "causal_lm_logits",
    "fill_cache",
    "recomputation_name",
    "register_attention",
    "sdpa_mask",
]

_CACHE_NAMES = ("cache", "past_key_values")


def cache_argument(model: Any) -> str:
    """What the forward of `model` calls its cache; empty where it takes none (a state-space model, say)."""
    return _cache_name(model.__class__.forward)


@lru_cache(maxsize=32)
def _cache_name(forward: Callable[..., Any]) -> str:
    # decorators that accept a deprecated name keep the signature of the function they wrap
    parameters = inspect.signature(forward).parameters
    return next((name for name in _CACHE_NAMES if name in parameters), "")


def fill_cache(model: Any, embedded: torch.Tensor, cache: Cache) -> None:
    """Forward the input vectors `embedded`, (rows, tokens, width), without logits: keys and values go into `cache`."""
    body = model.base_model
    body(**as_arguments(model, embedded), use_cache=True, **{cache_argument(body): cache})


def causal_lm_logits(model: Any, embedded: torch.Tensor, places: torch.Tensor, cache: Cache | None) -> torch.Tensor:
    """Logits at the given places of `embedded`, (rows, tokens, width), after what `cache` holds: (rows, places, V)."""
    past = {} if cache is None else {cache_argument(model): cache}
    logits: torch.Tensor = model(
        **as_arguments(model, embedded), logits_to_keep=places, use_cache=cache is not None, **past
    ).logits
    return logits


def can_branch(model: Any) -> bool:
    """Whether the model's cache is made of keys and values alone, so that a prefix can be continued in branches."""
    if model.config.is_encoder_decoder or getattr(model, "_is_stateful", False) or not cache_argument(model):
        return False
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def recomputation_name() -> str:
    """What recomputing activations is called: an argument of the Trainer, `…_enable` and `is_…` of a model."""
    known = {field.name for field in fields(TrainingArguments)}
    return "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"


def register_attention(name: str, attend: Callable[..., Any], mask: Callable[..., Any]) -> None:
    """Let models attend by `attend` and build their masks by `mask` inside `attention_by(model, name)`."""
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, mask)


@contextmanager
def attention_by(model: Any, name: str) -> Iterator[None]:
    """Inside, `model` attends by the registered `name`; afterwards as before."""
    # the public `set_attn_implementation` loads kernels and checks each submodule: too slow for every forward
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def sdpa_mask(*args: Any, **kwargs: Any) -> torch.Tensor:
    """The mask that scaled-dot-product attention would be given, true where a key is seen: (rows, 1, s, keys)."""
    mask: torch.Tensor = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](*args, **kwargs)
    return mask
