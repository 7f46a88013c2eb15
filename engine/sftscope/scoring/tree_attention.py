"""Attention over a branching prefix without copying it: the model's own forward calls it through transformers.

Rows are nodes of a tree whose descendants are neighbours. The keys and values of a segment are kept once per
node. A batch of neighbouring rows attends in two products: all its queries together against the segments in which
the batch has a single ancestor (the long shared path, never repeated), and each row against the few tokens since.

Knows nothing of words, masks or scores.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sftscope.compat.transformers import Cache, DynamicLayer, attention_by, register_attention, sdpa_mask

NAME = "sftscope_tree"
# what attention layers pass along that does not change the result of a forward in evaluation mode
_HARMLESS = frozenset({"use_cache", "position_ids", "output_attentions", "is_causal", "position_embeddings"})
# seen by the mask, which the model itself asks for with its window
_IN_THE_MASK = frozenset({"sliding_window"})


class UnknownAttentionError(Exception):
    """A model's attention has a part that the tree does not know (attention sinks, a position bias, …)."""


@dataclass(eq=False)
class Segment:
    """Keys and values of tokens start…stop of some rows.

    keys, values: by layer, (kv_heads, rows, stop - start, head_dim).
    """

    rows: int
    start: int
    stop: int
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)

    def write(self, layer: int, first: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep what a forward of the rows from `first` on made; each (rows, kv_heads, length, head_dim)."""
        for kept, new in ((self.keys, keys), (self.values, values)):
            if layer not in kept:
                kept[layer] = new.new_empty(new.shape[1], self.rows, *new.shape[2:])
            kept[layer][:, first : first + len(new)] = new.transpose(0, 1)


Ancestors = tuple[Segment, NDArray[np.int64]]
Rows = slice | torch.Tensor


class TreeCache(Cache):
    """What one forward of a batch of rows sees of its ancestors.

    ancestors: segments in text order, each with the row in it that each row of the batch descends from, ascending.
    store: takes the keys and values of the batch, from its row `first` on. path: segments in which all rows have one
    ancestor; local: the later ones.
    """

    def __init__(self, ancestors: Sequence[Ancestors], first: int = 0, store: Segment | None = None) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.first = first
        self.store = store
        self.past = ancestors[-1][0].stop if ancestors else 0
        self.path: list[tuple[Segment, int]] = []
        self.local: list[tuple[Segment, Rows]] = []
        for segment, rows in ancestors:
            if rows[0] == rows[-1]:
                self.path.append((segment, int(rows[0])))
            else:
                self.local.append((segment, _rows_to_take(rows)))
        self.states: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor, torch.Tensor] | None = None
        self.attended = 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Take the keys and values of this forward; attention fetches them from `states`, with the ancestors'."""
        if self.store is not None:
            self.store.write(layer_idx, self.first, key_states, value_states)
        self.states = (
            self._shared([segment.keys[layer_idx][:, row] for segment, row in self.path]),
            self._shared([segment.values[layer_idx][:, row] for segment, row in self.path]),
            self._own([(segment.keys[layer_idx], rows) for segment, rows in self.local], key_states),
            self._own([(segment.values[layer_idx], rows) for segment, rows in self.local], value_states),
        )
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before this forward's."""
        return self.past

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:
        """Masks cover the whole path: sliding layers keep all keys too."""
        length = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.past + length, 0

    @staticmethod
    def _shared(parts: list[torch.Tensor]) -> torch.Tensor | None:
        """(kv_heads, path length, head_dim)."""
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _own(self, parts: list[tuple[torch.Tensor, Rows]], new: torch.Tensor) -> torch.Tensor:
        """(kv_heads, rows, local length + new length, head_dim)."""
        rows, heads, length, width = new.shape
        own = new.new_empty(heads, rows, sum(kept.shape[2] for kept, _ in parts) + length, width)
        offset = 0
        for kept, taken in parts:
            stop = offset + kept.shape[2]
            if isinstance(taken, slice):
                by_ancestor = own.view(heads, taken.stop - taken.start, -1, own.shape[2], width)
                by_ancestor[:, :, :, offset:stop] = kept[:, taken, None]
            else:
                own[:, :, offset:stop] = kept[:, taken.to(kept.device)]
            offset = stop
        own[:, :, offset:] = new.transpose(0, 1)
        return own


def _rows_to_take(rows: NDArray[np.int64]) -> Rows:
    """Neighbours with equally many descendants each as a slice, which is not copied row by row; else an index."""
    low, count = int(rows[0]), int(rows[-1] - rows[0]) + 1
    if len(rows) % count == 0 and np.array_equal(rows, np.repeat(np.arange(low, low + count), len(rows) // count)):
        return slice(low, low + count)
    return torch.from_numpy(rows)


_active: ContextVar[TreeCache | None] = ContextVar("active_tree_cache", default=None)


@contextmanager
def tree_attention(model: Any, cache: TreeCache) -> Iterator[None]:
    """Inside, forwards of `model` with `cache` attend to the ancestors; the model is as before afterwards."""
    token = _active.set(cache)
    try:
        with attention_by(model, NAME):
            yield
    finally:
        _active.reset(token)
    if cache.attended == 0:
        raise UnknownAttentionError("the model does not attend through the attention interface")


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of query, (rows, heads, s, head_dim), to path, local and own keys: (rows, s, heads, value_dim).

    attention_mask: see `_mask`. Softmax in float32.
    """
    cache = _active.get()
    known = _HARMLESS | _IN_THE_MASK
    unknown = [name for name, given in kwargs.items() if given is not None and given is not False and name not in known]
    if cache is None or cache.states is None or unknown or dropout or attention_mask is None:
        raise UnknownAttentionError(f"attention with {', '.join(unknown) or 'no tree'}")
    shared_keys, shared_values, own_keys, own_values = cache.states
    cache.states = None
    cache.attended += 1
    kv_heads, rows, n_own, width = own_keys.shape
    heads, s = query.shape[1], query.shape[2]
    queries = rows * (heads // kv_heads) * s  # of one key/value head, in one matrix
    scale = width**-0.5 if scaling is None else scaling
    # a key/value head's queries become rows of one matrix: (kv_heads, rows, group, s, head_dim)
    grouped = query.new_empty(kv_heads, rows, heads // kv_heads, s, width)
    torch.mul(query.view(rows, kv_heads, -1, s, width).transpose(0, 1), scale, out=grouped)

    by_row = (kv_heads * rows, queries // rows)
    own_scores = torch.bmm(grouped.view(*by_row, width), own_keys.view(by_row[0], n_own, width).mT)
    if shared_keys is None:
        scores = own_scores.view(kv_heads, queries, n_own)
    else:
        n_shared = shared_keys.shape[1]
        scores = query.new_empty(kv_heads, queries, n_shared + n_own)
        torch.bmm(grouped.view(kv_heads, queries, width), shared_keys.mT, out=scores[:, :, :n_shared])
        scores[:, :, n_shared:] = own_scores.view(kv_heads, queries, n_own)
    if softcap is not None:
        scores.div_(softcap).tanh_().mul_(softcap)
    if attention_mask.shape[-1]:
        scores.view(-1, s, scores.shape[-1])[:, :, -attention_mask.shape[-1] :] += attention_mask[0]

    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    own_weights = weights[:, :, -n_own:].reshape(*by_row, n_own)
    output = torch.bmm(own_weights, own_values.view(by_row[0], n_own, -1)).view(kv_heads, queries, -1)
    if shared_values is not None:
        output.baddbmm_(weights[:, :, : shared_values.shape[1]], shared_values)
    output = output.view(kv_heads, rows, -1, s, own_values.shape[-1])
    return output.permute(1, 3, 0, 2, 4).reshape(rows, s, heads, -1), None


def _mask(*args: Any, device: Any = "cpu", dtype: torch.dtype = torch.float32, **kwargs: Any) -> torch.Tensor:
    """The model's own mask of one row, (1, 1, s, last keys), as what is added to scores: 0 or -inf.

    No row is padded, so one serves all. It covers only the last keys: those before its first are seen by every query.
    """
    kwargs.update(batch_size=1, allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    seen = sdpa_mask(*args, device="cpu", **kwargs)
    hidden = (~seen[0, 0]).any(dim=0).nonzero()
    first = int(hidden[0]) if len(hidden) else seen.shape[-1]
    added = torch.zeros(seen[..., first:].shape).masked_fill_(~seen[..., first:], -torch.inf)
    return added.to(device=device, dtype=dtype)


register_attention(NAME, _attend, _mask)
