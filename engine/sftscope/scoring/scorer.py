"""Scores of masked states, v(x_T) of Eq. (1): by a prefix tree that equals plain forwards, or by those.

Which tree serves a model is tried out before it is used, on a short prompt and on one as long as the longest: the
copy-free one, else the one on the stock cache, else none. A method whose scores differ from plain forwards is not
used. Where a token's rotation depends on the length of the whole (longrope, dynamic NTK), prompts beyond the length
from which it does are scored by plain forwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sftscope.compat.input_vectors import input_vectors
from sftscope.compat.positions import forget_length, same_up_to
from sftscope.compat.transformers import can_branch
from sftscope.foundation.machine_errors import is_out_of_memory
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.lattice.transforms import Floats
from sftscope.llm.arithmetic import FLOAT32, Arithmetic
from sftscope.scoring.cache_tree import StockWalk, stock_rows
from sftscope.scoring.masking import MaskedPrompt
from sftscope.scoring.prefix_tree import (
    Embed,
    Read,
    TokenCost,
    TreeWalk,
    forward_tokens,
    grow_root,
    last_logits,
    plan_walk,
    tree_tokens,
)
from sftscope.scoring.sample_trie import TrieWalk
from sftscope.scoring.tree_attention import Segment, UnknownAttentionError

__all__ = [
    "COPY_FREE",
    "NAIVE",
    "STOCK",
    "TOLERANCE",
    "Scorer",
    "log_odds",
    "response_log_odds",
    "tree_tokens",
]

Plan = TypeVar("Plan")
Scored = Callable[[int], None]
COPY_FREE, STOCK, NAIVE = "copy-free tree", "prefix tree", "naive"
# Tokens of a trie over sampled states for each of plain forwards, up to which it is walked
_WORTH_A_TRIE = 0.9
# Largest difference of v in log-odds that rounding is believed to make, by precision. On SmolLM2-135M σ of the
# layout is 1e-5 in float32, 4e-5 in mixed, 1e-2 in float16 and 9e-2 in bfloat16, so these are 100 times σ in both
# and about ten times σ in less. TF32 has the digits of float16. An int8 base rounds activations by what is next to them
# in the batch, whatever precision is asked for: σ is 0.06 to 0.4 there, 0.65 the largest of 72.
TOLERANCE = {"float32": 1e-3, "mixed": 5e-3, "tf32": 0.1, "float16": 0.1, "bfloat16": 1.0, "int8": 1.0}


@dataclass(frozen=True)
class Refusal:
    """Why a method does not serve a model. unexpected: by an error that no known kind of model raises."""

    method: str
    reason: str
    unexpected: bool = False


def unwatched(scored: int) -> None:
    """Nobody asks how many masked states are scored."""


@dataclass(eq=False)
class Scorer:
    """An LLM, what masks its words, and how much memory scoring may take (bytes).

    fixed_cost: tokens that a forward costs besides its own, which decides where the tree is cut; None: the device's.
    precision: how products are computed (see `llm.precision`); the model's weights have its dtype already.
    shared: tokens that all prompts begin with, as `shared_prefix` finds them; forwarded once, until the weights change.
    longest: tokens of the longest prompt that will be scored; 0: not known.
    """

    model: Any
    baseline: torch.Tensor
    memory: float
    fixed_cost: int | None = None
    precision: str = FLOAT32
    shared: tuple[int, ...] = ()
    longest: int = 0
    refusals: list[Refusal] = field(
        init=False, default_factory=list
    )  # of the methods before `method`, once it is known
    _limit: float = field(init=False)  # `memory`, or what was left of it after an out-of-memory
    _root: Segment | None = field(init=False, default=None)  # keys and values of the shared tokens

    def __post_init__(self) -> None:
        self._limit = self.memory
        self._arithmetic = Arithmetic(self.model, self.precision)
        self._same_up_to = same_up_to(self.model.config)  # tokens; beyond, a prefix is not that of every prompt

    def weights_changed(self) -> None:
        """Forget what was computed with the weights before; to be called with every exchange of an adapter."""
        self._root = None
        self._arithmetic.forget()

    @cached_property
    def method(self) -> str:
        """How `score` works on this model: COPY_FREE, STOCK or NAIVE, the first that proves exact.

        Why the others do not serve is in `refusals`, and said.
        """
        if not can_branch(self.model):
            self.refusals.append(Refusal(STOCK, "its cache is not made of keys and values alone"))
            return NAIVE
        for method in (COPY_FREE, STOCK):
            refusal = self._tried(method)
            if refusal is None:
                return method
            self.refusals.append(refusal)
            hint = ", which is not the model's fault: please report it" if refusal.unexpected else ""
            say(f"the {method} cannot be used on this model ({refusal.reason}){hint}; trying the next method")
        return NAIVE

    def score(self, prompt: MaskedPrompt, scored: Scored = unwatched) -> Floats:
        """v(x_T) of the prompt's masked states, in their order: (m,), in log-odds; (2^n,) by subset where all are.

        scored: called after each batch with how many there are; from 0 again after memory ran out.
        """
        if self.shares_prefixes(prompt):
            return self.score_by(self.method, prompt, scored=scored)
        return self.score_naively(prompt, prompt.states.subset.tolist(), scored)

    def shares_prefixes(self, prompt: MaskedPrompt) -> bool:
        """Whether `score` walks a tree; a sample only the copy-free one, and only where it saves tokens."""
        if self._same_up_to is not None and len(prompt.ids) > self._same_up_to:
            return False
        if prompt.sampled is None:
            return self.method != NAIVE
        return self.method == COPY_FREE and tree_tokens(prompt) <= _WORTH_A_TRIE * prompt.n_states * len(prompt.ids)

    def score_naively(self, prompt: MaskedPrompt, subsets: Sequence[int], scored: Scored = unwatched) -> Floats:
        """v(x_T) of the given subsets by plain batched forwards of the whole prompt: (len(subsets),)."""
        length, cost = len(prompt.ids), TokenCost.of(self.model, len(prompt.targets))
        row = length * cost.activation(length) + cost.logits
        most = max(1, forward_tokens(self.model) // length)
        with self._arithmetic.active():
            return self._with_less_memory(
                lambda memory: min(most, max(1, int(memory / row))),
                lambda rows: self._naive(prompt, subsets, rows, scored),
            )

    def embed(self, prompt: MaskedPrompt, subsets: NDArray[Any], start: int, stop: int) -> torch.Tensor:
        """Input vectors of tokens start…stop under each subset: (len(subsets), stop - start, width)."""
        device = self.baseline.device
        ids = torch.tensor(prompt.ids[start:stop], device=device)
        owner = np.array(prompt.owner[start:stop])
        bit = np.maximum(owner, 0).astype(np.uint64)
        masked = (owner >= 0) & ((subsets.astype(np.uint64)[:, None] >> bit) & np.uint64(1) == 0)
        kept = input_vectors(self.model, ids)
        return torch.where(torch.from_numpy(masked).to(device)[..., None], self.baseline, kept)

    def score_by(
        self, method: str, prompt: MaskedPrompt, fixed_cost: int | None = None, scored: Scored = unwatched
    ) -> Floats:
        """As `score`, by the tree that `method` names; whether it is exact on this model is the caller's business."""

        def embed(subsets: NDArray[Any], start: int, stop: int) -> torch.Tensor:
            return self.embed(prompt, subsets, start, stop)

        def reader() -> Read:
            return _counting(lambda logits: response_log_odds(logits, prompt.targets), scored)

        if self._same_up_to is not None:
            forget_length(self.model)
        with self._arithmetic.active():
            if method == COPY_FREE:
                cost, root = self.fixed_cost if fixed_cost is None else fixed_cost, self._root_of(prompt, embed)
                walk: type[TreeWalk | TrieWalk] = TreeWalk if prompt.sampled is None else TrieWalk
                return self._with_less_memory(
                    lambda memory: plan_walk(self.model, prompt, memory, cost, root.stop if root else 0),
                    lambda plan: walk(self.model, prompt, embed, reader(), plan, root).scores(),
                )
            return self._with_less_memory(
                lambda memory: stock_rows(self.model, prompt, memory),
                lambda rows: StockWalk(self.model, prompt, embed, reader(), rows).scores(),
            )

    def _root_of(self, prompt: MaskedPrompt, embed: Embed) -> Segment | None:
        """Keys and values of the shared tokens, where this prompt begins with them."""
        length = len(self.shared)
        if not length or prompt.ids[:length] != self.shared or prompt.starts()[0] < length:
            return None
        if self._root is None:
            self._root = grow_root(self.model, embed, length)
        return self._root

    def _tried(self, method: str) -> Refusal | None:
        """Why `method` does not serve; None where two random prompts score by it as they do in plain forwards.

        One is short, with a long word, neighbouring words and a tail. One is as long as the longest of those to come,
        with a word in its middle and one near its end: a window, or whatever depends on the length, shows there.
        """
        rows = self.model.get_input_embeddings().weight.shape[0]
        short = _random_prompt(rows, 16, [[4, 5], [7], [8], [11]])
        length = self.longest if self._same_up_to is None else min(self.longest, self._same_up_to)
        if length <= len(short.ids):
            return self._differs(method, short)
        return self._differs(method, short) or self._differs(
            method, _random_prompt(rows, length, [[length // 2], [length - 2]])
        )

    def _differs(self, method: str, prompt: MaskedPrompt) -> Refusal | None:
        expected = self.score_naively(prompt, range(prompt.n_states))
        try:
            scores = self.score_by(method, prompt, 0)
        except UnknownAttentionError as error:
            return Refusal(method, safe_text(str(error), max_length=200))
        except Exception as error:  # whatever a foreign forward makes of our cache, the next method is tried
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {safe_text(str(error), max_length=200)}"
            return Refusal(method, reason, unexpected=True)
        off = float(np.abs(scores - expected).max())
        if off <= TOLERANCE[self.precision]:
            return None
        return Refusal(method, f"it is off by {off:.2g} log-odds on {len(prompt.ids)} tokens")

    @torch.inference_mode()
    def _naive(self, prompt: MaskedPrompt, subsets: Sequence[int], rows: int, scored: Scored) -> Floats:
        length, read = len(prompt.ids), _counting(lambda logits: response_log_odds(logits, prompt.targets), scored)
        chosen = np.array(subsets, dtype=np.uint64)
        parts = []
        for start in range(0, len(chosen), rows):
            embedded = self.embed(prompt, chosen[start : start + rows], 0, length)
            if self._same_up_to is not None:
                forget_length(self.model)
            logits = last_logits(self.model, embedded, len(prompt.targets))
            parts.append(read(logits))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _with_less_memory(self, plan: Callable[[float], Plan], work: Callable[[Plan], Floats]) -> Floats:
        """`work(plan(limit))`; after each out-of-memory again, with the limit halved until the plan changes.

        The lower limit stays: the next prompt would meet the same end.
        """
        while True:
            current = plan(self._limit)
            try:
                return work(current)
            except (MemoryError, RuntimeError) as error:  # torch's own on a GPU, a plain RuntimeError on a CPU
                if not is_out_of_memory(error):
                    raise
                limit = self._limit
                while plan(limit) == current:
                    if limit < 1:
                        raise
                    limit /= 2
                self._limit = limit
            torch.cuda.empty_cache()


def _random_prompt(vocabulary: int, length: int, words: Sequence[Sequence[int]]) -> MaskedPrompt:
    """`length` random tokens, of which each word owns those at its places."""
    ids = np.random.default_rng(0).integers(vocabulary, size=length)
    owner = np.full(length, -1)
    for word, places in enumerate(words):
        owner[list(places)] = word
    return MaskedPrompt(tuple(ids.tolist()), tuple(owner.tolist()), int(ids[0]), len(words))


def _counting(read: Read, scored: Scored) -> Read:
    """`read`, which tells how many masked states it has read."""
    done = 0

    def counted(logits: torch.Tensor) -> Floats:
        nonlocal done
        found = read(logits)
        done += len(found)
        scored(done)
        return found

    return counted


def response_log_odds(logits: torch.Tensor, targets: Sequence[int]) -> Floats:
    """v of Eq. (1): Σ_i log p_i/(1-p_i), target i at the i-th of the m positions.

    logits: (rows, m, V) → (rows,) float64.
    """
    return np.sum([log_odds(logits[:, i], target) for i, target in enumerate(targets)], axis=0)


def log_odds(logits: torch.Tensor, target: int) -> Floats:
    """log p/(1-p) of the target: z_y - logsumexp(z without y), on float32 logits (rows, V) → (rows,) float64.

    log(p / (1 - p)) of a probability saturates; this does not.
    """
    scores = logits.float().clone()
    chosen = scores[:, target].clone()
    scores[:, target] = -torch.inf
    return (chosen - torch.logsumexp(scores, dim=-1)).double().cpu().numpy()
