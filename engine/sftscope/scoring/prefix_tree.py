"""The prefix tree over masked states, walked without copies: where to cut it, and in which batches.

In a causal LM the keys and values at a position depend only on the masks of words at or before
it: after the k-th word there are 2^k distinct prefixes, not 2^n. The tree is grown breadth first, so
that batches stay large, and split depth first where a level's keys and values do not fit the
memory limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sftscope.compat.transformers import Cache, causal_lm_logits, fill_cache
from sftscope.lattice.transforms import Floats
from sftscope.scoring.masking import MaskedPrompt
from sftscope.scoring.tree_attention import Ancestors, Segment, TreeCache, tree_attention

# Tokens that a forward costs besides its tokens (weights read, kernels launched), and that one takes at most: on a
# CPU activations of more leave its caches. Measured on 2 cores; for a GPU, of the order of launching its kernels.
_FIXED_COST = {"cpu": 24, "cuda": 512}
_BATCH = {"cpu": 2048, "cuda": 65_536}

Embed = Callable[[NDArray[Any], int, int], torch.Tensor]
Read = Callable[[torch.Tensor], Floats]


@dataclass(frozen=True)
class Cut:
    """Tokens start…stop, forwarded once the first `bits` words are decided, in `rows` rows."""

    bits: int
    start: int
    stop: int
    rows: int

    @property
    def tokens(self) -> int:
        """Of all its rows."""
        return (self.stop - self.start) * self.rows


def cut_tree(prompt: MaskedPrompt, fixed_cost: int = 0, begin: int = 0) -> list[Cut]:
    """The cheapest cuts, counting each forward as `fixed_cost` tokens; with 0 before every word.

    Segments of few rows and tokens are merged with the next: more tokens, one forward less. begin: the first
    token to be forwarded; those before it are shared.
    """
    edges, rows = [begin, *prompt.starts(), len(prompt.ids)], prompt.distinct_prefixes()
    best: list[tuple[int, list[Cut]]] = [(0, [])]
    for end in range(1, len(edges)):
        options = []
        for start in range(end):
            cost, cuts = best[start]
            cut = Cut(end - 1, edges[start], edges[end], rows[end - 1])
            options.append((cost + cut.tokens + fixed_cost, [*cuts, cut]) if cut.tokens else (cost, cuts))
        # of equals the finest
        best.append(min(options, key=lambda option: (option[0], -len(option[1]))))
    return best[-1][1]


def tree_tokens(prompt: MaskedPrompt) -> int:
    """Tokens that the fully cut tree forwards: P + Σ_k 2^k s_k, against 2^n L naively; fewer rows of a sample."""
    return sum(cut.tokens for cut in cut_tree(prompt))


def row_subsets(bits: int, first: int, rows: int) -> NDArray[np.int64]:
    """Subset of each row: its bits reversed, as the first word is decided first."""
    numbers = np.arange(first, first + rows, dtype=np.int64)
    subsets = np.zeros_like(numbers)
    for variable in range(bits):
        subsets |= ((numbers >> (bits - 1 - variable)) & 1) << variable
    return subsets


@dataclass(frozen=True)
class Plan:
    """Where the tree is cut, rows of a level kept at once, and rows of each cut forwarded at once.

    Both are powers of two where all masked states are scored.

    peak: bytes that this takes at once, as estimated: keys and values kept, and the largest batch.
    """

    cuts: tuple[Cut, ...]
    kept: int
    batch: tuple[int, ...]
    peak: float


def forward_tokens(model: Any) -> int:
    """Tokens that a forward takes at most, where memory allows them."""
    return _BATCH.get(_device(model), _BATCH["cuda"])


def shared_prefix(prompts: Sequence[MaskedPrompt]) -> tuple[int, ...]:
    """The longest run of tokens that all prompts begin with and no word of any stands in; P of several at once."""
    shared = prompts[0].ids
    for prompt in prompts:
        pairs = zip(shared, prompt.ids[: prompt.starts()[0]], strict=False)
        shared = tuple(token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return shared


@torch.inference_mode()
def grow_root(model: Any, embed: Embed, length: int) -> Segment:
    """Keys and values of the first `length` tokens, which no word masks."""
    root = Segment(1, 0, length)
    cache = TreeCache([], store=root)
    with tree_attention(model, cache):
        embedded = embed(np.zeros(1, dtype=np.int64), 0, length)
        fill_cache(model, embedded, cache)
    return root


def plan_walk(model: Any, prompt: MaskedPrompt, memory: float, fixed_cost: int | None = None, begin: int = 0) -> Plan:
    """The widest walk whose keys, values and activations fit `memory` bytes; one row where none does.

    begin: the first token to be forwarded.
    """
    if fixed_cost is None:
        fixed_cost = _FIXED_COST.get(_device(model), _FIXED_COST["cuda"])
    cuts = cut_tree(prompt, fixed_cost, begin)
    cost, length = TokenCost.of(model, len(prompt.targets)), len(prompt.ids)
    most_tokens = forward_tokens(model)

    def row_bytes(cut: Cut) -> float:
        # of one layer: activations, and the keys and values of the path, gathered
        return (cut.stop - cut.start) * cost.activation(length) + length * cost.kv / cost.layers + cost.logits

    def width(cut: Cut) -> int:
        return _power_of_two(min(memory / 2 / row_bytes(cut), most_tokens / (cut.stop - cut.start), cut.rows))

    def kept_bytes(rows: int) -> float:
        # the last level's own keys and values are never kept
        return sum(min(cut.rows, rows) * (cut.stop - cut.start) * cost.kv for cut in cuts[:-1])

    kept = cuts[-1].rows
    while kept > 1 and kept_bytes(kept) > memory / 2:
        kept //= 2
    batch = tuple(min(width(cut), kept) for cut in cuts)
    largest = max(rows * row_bytes(cut) for rows, cut in zip(batch, cuts, strict=True))
    return Plan(tuple(cuts), kept, batch, kept_bytes(kept) + largest)


def _power_of_two(limit: float) -> int:
    """The largest one up to `limit`; at least 1."""
    return 1 << max(0, int(limit).bit_length() - 1)


def _device(model: Any) -> str:
    return str(model.get_input_embeddings().weight.device.type)


def _most(size: Any) -> Any:
    """A size of a config; the largest where its layers differ."""
    return max(size) if isinstance(size, list | tuple) else size


@dataclass(frozen=True)
class TokenCost:
    """Bytes: keys and values of a token in all layers, and what it takes to estimate a forward's activations."""

    kv: float
    layers: int
    hidden: float
    heads: int
    logits: float

    def activation(self, length: int) -> float:
        """Of a token while a layer runs; its scores are kept twice."""
        return self.hidden + 8 * self.heads * length

    @classmethod
    def of(cls, model: Any, kept: int = 1) -> "TokenCost":
        """Of this model, where the logits of the last `kept` positions are read."""
        config = model.config.get_text_config()
        size = model.get_input_embeddings().weight.element_size()
        heads = _most(getattr(config, "num_attention_heads", None)) or 1  # a model without attention has none
        kv_heads = _most(getattr(config, "num_key_value_heads", None)) or heads
        head_dim = _most(getattr(config, "head_dim", None)) or config.hidden_size // heads
        inner = _most(getattr(config, "intermediate_size", None)) or 4 * config.hidden_size
        return cls(
            kv=2 * config.num_hidden_layers * kv_heads * head_dim * size,
            layers=config.num_hidden_layers,
            hidden=(8 * config.hidden_size + 3 * inner) * size,
            heads=heads,
            logits=(2 + kept) * 4 * config.vocab_size,
        )


@dataclass(frozen=True, eq=False)
class Kept:
    """A segment of the rows from `first` on after `bits` words: its row numbers are those of the whole level.

    Bits of a row's number, most significant first, are the decisions of its ancestors.
    """

    segment: Segment
    bits: int
    first: int

    def of(self, numbers: NDArray[np.int64], bits: int) -> Ancestors:
        """The segment, and in it the ancestors of rows by their numbers after `bits` words."""
        return self.segment, (numbers >> (bits - self.bits)) - self.first


class TreeWalk:
    """One walk of the tree of all masked states of one prompt.

    embed(subsets, start, stop): input embeddings. read(logits): scores from (rows, m, V), the last m positions.
    root: keys and values of the tokens before those of the plan, if any.
    """

    def __init__(
        self, model: Any, prompt: MaskedPrompt, embed: Embed, read: Read, plan: Plan, root: Segment | None = None
    ) -> None:
        self.model = model
        self.embed = embed
        self.read = read
        self.plan = plan
        self.roots = [root] if root else []
        self.kept = len(prompt.targets)
        self.result = np.full(1 << prompt.n_variables, np.nan)

    @torch.inference_mode()
    def scores(self) -> Floats:
        """(2^n,), indexed by subset."""
        self._grow([Kept(root, 0, 0) for root in self.roots], 0, 0, 1 << self.plan.cuts[0].bits)
        return self.result

    def _grow(self, ancestors: list[Kept], level: int, first: int, rows: int) -> None:
        """Score all masked states below these rows of a level, in parts whose keys and values can be kept."""
        cut = self.plan.cuts[level]
        part = min(rows, self.plan.kept)
        for start in range(first, first + rows, part):
            if level + 1 == len(self.plan.cuts):
                self._forward(ancestors, level, start, part, None)
                continue
            kept = Kept(Segment(part, cut.start, cut.stop), cut.bits, start)
            self._forward(ancestors, level, start, part, kept)
            branch = self.plan.cuts[level + 1].bits - cut.bits
            self._grow([*ancestors, kept], level + 1, start << branch, part << branch)

    def _forward(self, ancestors: list[Kept], level: int, first: int, rows: int, kept: Kept | None) -> None:
        """Run a level's segment for these rows in batches: keys and values are kept, or scores of leaves are read."""
        cut, batch = self.plan.cuts[level], min(rows, self.plan.batch[level])
        store = kept.segment if kept else None
        for start in range(first, first + rows, batch):
            subsets = row_subsets(cut.bits, start, batch)
            embedded = self.embed(subsets, cut.start, cut.stop)
            numbers = np.arange(start, start + batch)
            cache = TreeCache([above.of(numbers, cut.bits) for above in ancestors], start - first, store)
            with tree_attention(self.model, cache):
                if store is not None:
                    fill_cache(self.model, embedded, cache)
                    continue
                logits = last_logits(self.model, embedded, self.kept, cache)
            self.result[subsets] = self.read(logits)


def last_logits(model: Any, embedded: torch.Tensor, kept: int, cache: Cache | None = None) -> torch.Tensor:
    """Logits after each of the last `kept` positions, given what `cache` holds: (rows, kept, V).

    They are given by index: of a slice, which is not contiguous, the head is one small product a row.
    """
    length = embedded.shape[1]
    last = torch.arange(length - kept, length, device=embedded.device)
    return causal_lm_logits(model, embedded, last, cache)[:, -kept:]
