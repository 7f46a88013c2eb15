"""Scores of masked states, v(x_T) of Eq. (1): by the exact prefix tree, or naively in batches.

In a causal LM the keys and values at a position depend only on the masks of words at or before
it: after the k-th word there are 2^k distinct prefixes, not 2^n. The tree doubles its rows at
each word (absent, present) and runs only the last segment for all 2^n masked states. It is walked
depth first in chunks of rows whose keys and values fit the memory limit.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from engine.extraction.masking import MaskedPrompt
from engine.interactions import Floats

# Keys and values of a level are copied while it grows, and heads are repeated for attention.
_CACHE_COPIES = 3.0


@dataclass(frozen=True, eq=False)
class Scorer:
    """An LLM, what masks its words, and how much memory keys and values may take (bytes)."""

    model: Any
    baseline: torch.Tensor
    memory: float

    def score(self, prompt: MaskedPrompt) -> Floats:
        """v(x_T) of every masked state: (2^n,), in log-odds, indexed by subset."""
        if not can_branch(self.model):
            return self.score_naively(prompt, range(1 << prompt.n_variables))
        return self._with_less_memory(lambda memory: _Tree(self, prompt, memory).scores())

    def score_naively(self, prompt: MaskedPrompt, subsets: Sequence[int]) -> Floats:
        """v(x_T) of the given subsets by plain batched forwards of the whole prompt: (len(subsets),)."""
        return self._with_less_memory(lambda memory: self._naive(prompt, subsets, memory))

    def embed(self, prompt: MaskedPrompt, subsets: NDArray[np.int64], start: int, stop: int) -> torch.Tensor:
        """Input embeddings of tokens start…stop under each subset: (len(subsets), stop - start, d)."""
        device = self.baseline.device
        ids = torch.tensor(prompt.ids[start:stop], device=device)
        owner = np.array(prompt.owner[start:stop])
        masked = (owner >= 0) & ((subsets[:, None] >> np.maximum(owner, 0)) & 1 == 0)
        kept = self.model.get_input_embeddings()(ids)
        return torch.where(torch.from_numpy(masked).to(device)[..., None], self.baseline, kept)

    @torch.inference_mode()
    def _naive(self, prompt: MaskedPrompt, subsets: Sequence[int], memory: float) -> Floats:
        length = len(prompt.ids)
        rows = _rows_that_fit(self.model, length, memory, len(prompt.targets))
        chosen = np.array(subsets, dtype=np.int64)
        parts = []
        for start in range(0, len(chosen), rows):
            embedded = self.embed(prompt, chosen[start : start + rows], 0, length)
            kept = len(prompt.targets)
            logits = self.model(inputs_embeds=embedded, use_cache=False, logits_to_keep=kept).logits
            parts.append(response_log_odds(logits, prompt.targets))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _with_less_memory(self, work: Any) -> Floats:
        """`work(memory)`, again with half the memory after each out-of-memory."""
        memory = self.memory
        while True:
            try:
                return work(memory)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if memory < 2**20:
                    raise
                memory /= 2


class _Tree:
    """One walk of the prefix tree of one prompt."""

    def __init__(self, scorer: Scorer, prompt: MaskedPrompt, memory: float) -> None:
        self.scorer = scorer
        self.prompt = prompt
        # a depth-first walk holds one cache a level in the worst case, the widest twice
        length, kept = len(prompt.ids), len(prompt.targets)
        levels = 1 if _rows_that_fit(scorer.model, length, memory, kept) >= 1 << prompt.n_variables else 4
        self.max_rows = _rows_that_fit(scorer.model, length, memory / levels, kept)
        self.edges = [*prompt.starts(), len(prompt.ids)]
        self.result = np.full(1 << prompt.n_variables, np.nan)

    @torch.inference_mode()
    def scores(self) -> Floats:
        """(2^n,)."""
        cache = DynamicCache(config=self.scorer.model.config)
        root = np.zeros(1, dtype=np.int64)
        if self.edges[0] > 0:
            self._forward(root, 0, self.edges[0], cache)
        self._grow(cache, root, 0)
        assert not np.isnan(self.result).any() or not torch.isfinite(self.scorer.baseline).all()
        return self.result

    def _grow(self, cache: DynamicCache, subsets: NDArray[np.int64], variable: int) -> None:
        """Score all masked states that extend `subsets` by the words from `variable` on.

        cache: keys and values of the tokens before that word, one row a subset.
        """
        start, stop = self.edges[variable], self.edges[variable + 1]
        children = np.concatenate([subsets, subsets | (1 << variable)])
        parents = np.tile(np.arange(len(subsets)), 2)
        for first in range(0, len(children), self.max_rows):
            chosen = slice(first, first + self.max_rows)
            branch = _branch(cache, parents[chosen], self.scorer.baseline.device)
            if variable + 1 < self.prompt.n_variables:
                self._forward(children[chosen], start, stop, branch)
                self._grow(branch, children[chosen], variable + 1)
            else:
                self._score_leaves(children[chosen], start, stop, branch)

    def _forward(self, subsets: NDArray[np.int64], start: int, stop: int, cache: DynamicCache) -> None:
        """Add the keys and values of tokens start…stop to `cache`; no logits."""
        embedded = self.scorer.embed(self.prompt, subsets, start, stop)
        self.scorer.model.base_model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)

    def _score_leaves(self, subsets: NDArray[np.int64], start: int, stop: int, cache: DynamicCache) -> None:
        embedded = self.scorer.embed(self.prompt, subsets, start, stop)
        logits = self.scorer.model(
            inputs_embeds=embedded, past_key_values=cache, use_cache=True, logits_to_keep=len(self.prompt.targets)
        ).logits
        self.result[subsets] = response_log_odds(logits, self.prompt.targets)


def response_log_odds(logits: torch.Tensor, targets: Sequence[int]) -> Floats:
    """v of Eq. (1): Σ_i log p_i/(1-p_i), target i at the i-th of the last m positions.

    logits: (rows, m, V) → (rows,) float64.
    """
    last = logits[:, -len(targets) :]
    return np.sum([log_odds(last[:, i], target) for i, target in enumerate(targets)], axis=0)


def log_odds(logits: torch.Tensor, target: int) -> Floats:
    """log p/(1-p) of the target: z_y - logsumexp(z without y), on float32 logits (rows, V) → (rows,) float64.

    log(p / (1 - p)) of a probability saturates; this does not.
    """
    scores = logits.float().clone()
    chosen = scores[:, target].clone()
    scores[:, target] = -torch.inf
    return (chosen - torch.logsumexp(scores, dim=-1)).double().cpu().numpy()


def can_branch(model: Any) -> bool:
    """Whether the model's cache is made of keys and values alone, so that a prefix can be continued in branches."""
    if model.config.is_encoder_decoder or getattr(model, "_is_stateful", False):
        return False
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def tree_tokens(prompt: MaskedPrompt) -> int:
    """Tokens that the tree forwards: P + Σ_k 2^k s_k, against 2^n L naively."""
    edges = [*prompt.starts(), len(prompt.ids)]
    widths = [stop - start for start, stop in pairwise(edges)]
    return edges[0] + sum(width << (k + 1) for k, width in enumerate(widths))


def _branch(cache: DynamicCache, parents: NDArray[np.int64], device: torch.device) -> DynamicCache:
    """The rows `parents` of a cache as a new cache; the old one stays as it is.

    Layers never change their tensors in place, so a shallow copy of each is enough.
    """
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    if any(layer.is_initialized for layer in branch.layers):
        branch.batch_select_indices(torch.from_numpy(parents).to(device))
    return branch


def _rows_that_fit(model: Any, length: int, memory: float, kept: int) -> int:
    """Rows of `length` tokens whose keys, values, hidden states and `kept` logits fit `memory` bytes; at least 1."""
    config = model.config.get_text_config()
    size = model.get_input_embeddings().weight.element_size()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_bytes = 2 * config.num_hidden_layers * kv_heads * head_dim * size * length * _CACHE_COPIES
    hidden_bytes = 8 * config.hidden_size * size * length
    logit_bytes = (2 + kept) * 4 * config.vocab_size
    return max(1, int(memory / (kv_bytes + hidden_bytes + logit_bytes)))
