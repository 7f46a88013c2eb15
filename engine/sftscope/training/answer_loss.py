"""The loss of a model with a large vocabulary, its logits computed where an answer is, and nowhere else.

Only the answer is trained, a few tokens of each example, but a causal LM computes logits at every position: with a
vocabulary of 262,144 that is most of the time and most of the memory of a step. The loss is the Trainer's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from sftscope.training.data.examples import IGNORED, Example
from sftscope.training.row_losses import RowLossTrainer

LARGE_LOGITS = 2**28  # bytes of a micro-batch in float32 from which on the positions are chosen


def has_large_logits(model: Any, examples: Sequence[Example], micro_batch: int) -> bool:
    """Whether logits at every position of a micro-batch of the longest of `examples` take `LARGE_LOGITS` or more."""
    longest = max(len(example.input_ids) for example in examples)
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    return 4 * micro_batch * longest * vocabulary >= LARGE_LOGITS


class AnswerLossTrainer(RowLossTrainer):
    """A Trainer whose model computes logits for answers only.

    What the output head is given is cut down to the positions before the answers' tokens, so that all that a model
    does after its head (a soft cap, say) stays as it is.
    """

    def __init__(self, model: Any, **given: Any) -> None:
        super().__init__(model=model, compute_loss_func=self._loss_of_answers, **given)
        self._wanted: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._choose)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *given: Any, **more: Any) -> Any:
        """The loss of a batch, as the Trainer asks for it."""
        self._wanted = _predicting(inputs["labels"])
        try:
            return super().compute_loss(model, inputs, *given, **more)
        finally:
            self._wanted = None

    def _answer_logits(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """All of them: (1, K, V) is what `_choose` left."""
        logits: torch.Tensor = outputs.logits[0]
        return logits

    def _choose(self, head: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The hidden states (B, L, d) of the head as (1, K, d)."""
        return given if self._wanted is None else (given[0][self._wanted][None], *given[1:])

    def _loss_of_answers(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Mean cross-entropy of the answers' tokens, or their sum over the tokens of all accumulated batches."""
        targets = labels[:, 1:][labels[:, 1:] != IGNORED]
        total = cross_entropy(outputs.logits[0].float(), targets, reduction="sum")
        return total / (len(targets) if num_items_in_batch is None else num_items_in_batch)


def _predicting(labels: torch.Tensor) -> torch.Tensor:
    """The positions (B, L) whose next token is of an answer."""
    wanted = torch.zeros_like(labels, dtype=torch.bool)
    wanted[:, :-1] = labels[:, 1:] != IGNORED
    return wanted
