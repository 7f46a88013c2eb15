"""The prefix tree on transformers' own cache, for attention that the copy-free tree does not know.

Each level copies its parents' keys and values twice, so this is two to three times slower than
the walk of `prefix_tree.py`, but needs nothing of a model but a cache of keys and values.
"""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sftscope.compat.transformers import DynamicCache, fill_cache
from sftscope.lattice.transforms import Floats
from sftscope.scoring.masking import MaskedPrompt
from sftscope.scoring.prefix_tree import Embed, Read, TokenCost, last_logits

# Keys and values of a level are copied while it grows, and heads are repeated for attention.
_CACHE_COPIES = 3.0


def stock_rows(model: Any, prompt: MaskedPrompt, memory: float) -> int:
    """Rows of a level that fit `memory` bytes; at least 1."""
    cost, length = TokenCost.of(model, len(prompt.targets)), len(prompt.ids)
    row = length * (cost.kv * _CACHE_COPIES + cost.hidden) + cost.logits
    # a depth-first walk holds one cache a level in the worst case, the widest twice
    levels = 1 if memory / row >= 1 << prompt.n_variables else 4
    return max(1, int(memory / levels / row))


class StockWalk:
    """One walk of the tree of one prompt, in chunks of at most `max_rows`; embed and read as in `TreeWalk`."""

    def __init__(self, model: Any, prompt: MaskedPrompt, embed: Embed, read: Read, max_rows: int) -> None:
        self.model = model
        self.prompt = prompt
        self.embed = embed
        self.read = read
        self.max_rows = max_rows
        self.edges = [*prompt.starts(), len(prompt.ids)]
        self.result = np.full(1 << prompt.n_variables, np.nan)

    @torch.inference_mode()
    def scores(self) -> Floats:
        """(2^n,)."""
        cache = DynamicCache(config=self.model.config)
        root = np.zeros(1, dtype=np.int64)
        if self.edges[0] > 0:
            self._forward(root, 0, self.edges[0], cache)
        self._grow(cache, root, 0)
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
            branch = _branch(cache, parents[chosen])
            if variable + 1 < self.prompt.n_variables:
                self._forward(children[chosen], start, stop, branch)
                self._grow(branch, children[chosen], variable + 1)
            else:
                self._score_leaves(children[chosen], start, stop, branch)

    def _forward(self, subsets: NDArray[np.int64], start: int, stop: int, cache: DynamicCache) -> None:
        """Add the keys and values of tokens start…stop to `cache`; no logits."""
        embedded = self.embed(subsets, start, stop)
        fill_cache(self.model, embedded, cache)

    def _score_leaves(self, subsets: NDArray[np.int64], start: int, stop: int, cache: DynamicCache) -> None:
        embedded = self.embed(subsets, start, stop)
        logits = last_logits(self.model, embedded, len(self.prompt.targets), cache)
        self.result[subsets] = self.read(logits)


def _branch(cache: DynamicCache, parents: NDArray[np.int64]) -> DynamicCache:
    """The rows `parents` of a cache as a new cache; the old one stays as it is.

    Layers never change their tensors in place, so a shallow copy of each is enough.
    """
    branch = copy.copy(cache)
    branch.layers = [copy.copy(layer) for layer in cache.layers]
    if any(layer.is_initialized for layer in branch.layers):
        branch.batch_select_indices(torch.from_numpy(parents).to(branch.layers[0].keys.device))
    return branch
