"""Scores of masked states, v(x_T) of Eq. (1): by a prefix tree that equals plain forwards, or by those.

Which tree serves a model is tried out on a short prompt before it is used: the copy-free one, else
the one on the stock cache, else none. A method whose scores differ from plain forwards is not used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from engine.extraction.masking import MaskedPrompt
from engine.extraction.prefix_tree import (
    TokenCost,
    TreeWalk,
    forward_tokens,
    last_logits,
    plan_walk,
    tree_tokens,
)
from engine.extraction.stock_tree import StockWalk, can_branch, stock_rows
from engine.interactions import Floats
from engine.progress import say
from engine.text import safe_text

__all__ = ["COPY_FREE", "NAIVE", "STOCK", "Scorer", "can_branch", "log_odds", "response_log_odds", "tree_tokens"]

Plan = TypeVar("Plan")
COPY_FREE, STOCK, NAIVE = "copy-free tree", "prefix tree", "naive"
# Largest difference in log-odds (relative where they exceed 1) between a tree and plain forwards that is rounding
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
_TOLERANCE_REDUCED = 0.5


@dataclass(eq=False)
class Scorer:
    """An LLM, what masks its words, and how much memory scoring may take (bytes).

    fixed_cost: tokens that a forward costs besides its own, which decides where the tree is cut; None: the device's.
    """

    model: Any
    baseline: torch.Tensor
    memory: float
    fixed_cost: int | None = None
    _limit: float = field(init=False)  # `memory`, or what was left of it after an out-of-memory

    def __post_init__(self) -> None:
        self._limit = self.memory

    @cached_property
    def method(self) -> str:
        """How `score` works on this model: COPY_FREE, STOCK or NAIVE, the first that proves exact."""
        if can_branch(self.model):
            for method in (COPY_FREE, STOCK):
                if self._proves_exact(method):
                    return method
        return NAIVE

    def score(self, prompt: MaskedPrompt) -> Floats:
        """v(x_T) of every masked state: (2^n,), in log-odds, indexed by subset."""
        if self.method == NAIVE:
            return self.score_naively(prompt, range(1 << prompt.n_variables))
        return self.score_by(self.method, prompt)

    def score_naively(self, prompt: MaskedPrompt, subsets: Sequence[int]) -> Floats:
        """v(x_T) of the given subsets by plain batched forwards of the whole prompt: (len(subsets),)."""
        length, cost = len(prompt.ids), TokenCost.of(self.model, len(prompt.targets))
        row = length * cost.activation(length) + cost.logits
        most = max(1, forward_tokens(self.model) // length)
        return self._with_less_memory(
            lambda memory: min(most, max(1, int(memory / row))), lambda rows: self._naive(prompt, subsets, rows)
        )

    def embed(self, prompt: MaskedPrompt, subsets: NDArray[np.int64], start: int, stop: int) -> torch.Tensor:
        """Input embeddings of tokens start…stop under each subset: (len(subsets), stop - start, d)."""
        device = self.baseline.device
        ids = torch.tensor(prompt.ids[start:stop], device=device)
        owner = np.array(prompt.owner[start:stop])
        masked = (owner >= 0) & ((subsets[:, None] >> np.maximum(owner, 0)) & 1 == 0)
        kept = self.model.get_input_embeddings()(ids)
        return torch.where(torch.from_numpy(masked).to(device)[..., None], self.baseline, kept)

    def score_by(self, method: str, prompt: MaskedPrompt, fixed_cost: int | None = None) -> Floats:
        """As `score`, by the tree that `method` names; whether it is exact on this model is the caller's business."""

        def embed(subsets: NDArray[np.int64], start: int, stop: int) -> torch.Tensor:
            return self.embed(prompt, subsets, start, stop)

        def read(logits: torch.Tensor) -> Floats:
            return response_log_odds(logits, prompt.targets)

        if method == COPY_FREE:
            cost = self.fixed_cost if fixed_cost is None else fixed_cost
            return self._with_less_memory(
                lambda memory: plan_walk(self.model, prompt, memory, cost),
                lambda plan: TreeWalk(self.model, prompt, embed, read, plan).scores(),
            )
        return self._with_less_memory(
            lambda memory: stock_rows(self.model, prompt, memory),
            lambda rows: StockWalk(self.model, prompt, embed, read, rows).scores(),
        )

    def _proves_exact(self, method: str) -> bool:
        """Whether a short random prompt with a long word, neighbouring words and a tail scores as in plain forwards."""
        rng = np.random.default_rng(0)
        ids = rng.integers(self.model.get_input_embeddings().weight.shape[0], size=16)
        owner = np.full(16, -1)
        owner[[4, 5]], owner[7], owner[8], owner[11] = 0, 1, 2, 3
        prompt = MaskedPrompt(tuple(ids.tolist()), tuple(owner.tolist()), int(ids[0]), 4)
        expected = self.score_naively(prompt, range(16))
        try:
            scores = self.score_by(method, prompt, 0)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a foreign forward makes of our cache, the next method is tried
            reason = safe_text(str(error), max_length=200)
            say(f"the {method} cannot be used on this model ({type(error).__name__}: {reason}); trying the next method")
            return False
        tolerance = _TOLERANCE.get(self.baseline.dtype, _TOLERANCE_REDUCED)
        exact = bool(np.all(np.abs(scores - expected) <= tolerance * np.maximum(1, np.abs(expected))))
        if not exact:
            off = float(np.abs(scores - expected).max())
            say(f"the {method} is off by {off:.2g} log-odds on this model; trying the next method")
        return exact

    @torch.inference_mode()
    def _naive(self, prompt: MaskedPrompt, subsets: Sequence[int], rows: int) -> Floats:
        length = len(prompt.ids)
        chosen = np.array(subsets, dtype=np.int64)
        parts = []
        for start in range(0, len(chosen), rows):
            embedded = self.embed(prompt, chosen[start : start + rows], 0, length)
            logits = last_logits(self.model, embedded, len(prompt.targets), use_cache=False)
            parts.append(response_log_odds(logits, prompt.targets))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _with_less_memory(self, plan: Callable[[float], Plan], work: Callable[[Plan], Floats]) -> Floats:
        """`work(plan(limit))`; after each out-of-memory again, with the limit halved until the plan changes.

        The lower limit stays: the next prompt would meet the same end.
        """
        while True:
            current = plan(self._limit)
            try:
                return work(current)
            except torch.OutOfMemoryError:
                limit = self._limit
                while plan(limit) == current:
                    if limit < 1:
                        raise
                    limit /= 2
                self._limit = limit
            torch.cuda.empty_cache()


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
