"""The prefix tree over a sample of masked states: only the prefixes that occur, as a trie of bit strings.

Sorted by their first word, then the second …, the states below a node are neighbours, as in the tree of all of them
(`prefix_tree`), but nodes have one child or two: a row's ancestors are looked up, not computed.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sftscope.compat.transformers import fill_cache
from sftscope.lattice.transforms import Floats, Subsets
from sftscope.scoring.masking import MaskedPrompt
from sftscope.scoring.prefix_tree import Embed, Plan, Read, last_logits
from sftscope.scoring.tree_attention import Ancestors, Segment, TreeCache, tree_attention


class TrieWalk:
    """One walk of the sampled masked states of one prompt; the arguments are those of `TreeWalk`.

    plan.kept: masked states that are scored at a time, so that the keys and values of their prefixes fit.
    """

    def __init__(
        self, model: Any, prompt: MaskedPrompt, embed: Embed, read: Read, plan: Plan, root: Segment | None = None
    ) -> None:
        self.model = model
        self.prompt = prompt
        self.embed = embed
        self.read = read
        self.plan = plan
        self.root = root
        self.kept = len(prompt.targets)

    @torch.inference_mode()
    def scores(self) -> Floats:
        """(m,), in the order of the prompt's states."""
        subset = self.prompt.states.subset
        order = np.argsort(first_word_first(subset, self.prompt.n_variables), kind="stable")
        result = np.empty(subset.size)
        for start in range(0, subset.size, self.plan.kept):
            part = order[start : start + self.plan.kept]
            result[part] = self._score(subset[part])
        return result

    def _score(self, subsets: Subsets) -> Floats:
        """Scores of neighbouring masked states, level by level."""
        above: list[tuple[Segment, NDArray[np.int64]]] = []  # segments, and in them the row of each state
        if self.root is not None:
            above.append((self.root, np.zeros(subsets.size, dtype=np.int64)))
        parts: list[Floats] = []
        for cut, batch in zip(self.plan.cuts, self.plan.batch, strict=True):
            node = nodes(subsets, cut.bits)
            first = np.flatnonzero(np.diff(node, prepend=-1))  # the first state of each node stands for it
            is_leaf = cut is self.plan.cuts[-1]
            segment = None if is_leaf else Segment(len(first), cut.start, cut.stop)
            for start in range(0, len(first), batch):
                states = first[start : start + batch]
                ancestors = [(kept, rows[states]) for kept, rows in above]
                logits = self._forward(ancestors, self.embed(subsets[states], cut.start, cut.stop), start, segment)
                if logits is not None:
                    parts.append(self.read(logits))
            if segment is not None:
                above.append((segment, node))
        return np.concatenate(parts)

    def _forward(
        self, ancestors: list[Ancestors], embedded: torch.Tensor, start: int, store: Segment | None
    ) -> torch.Tensor | None:
        """Keys and values into `store`, or the logits of leaves."""
        cache = TreeCache(ancestors, start, store)
        with tree_attention(self.model, cache):
            if store is not None:
                fill_cache(self.model, embedded, cache)
                return None
            return last_logits(self.model, embedded, self.kept, cache)


def first_word_first(subsets: Subsets, n: int) -> Subsets:
    """Bitmasks read from their first word on: as numbers they sort like paths from the root."""
    path = np.zeros_like(subsets)
    for word in range(n):
        path |= ((subsets >> np.uint64(word)) & np.uint64(1)) << np.uint64(n - 1 - word)
    return path


def nodes(subsets: Subsets, bits: int) -> NDArray[np.int64]:
    """The number of each state's node after `bits` words, from 0 on; states sorted by their paths."""
    prefix = subsets & np.uint64((1 << bits) - 1)
    is_new = np.concatenate([[False], prefix[1:] != prefix[:-1]])
    return np.cumsum(is_new)
