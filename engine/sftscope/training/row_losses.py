"""A Trainer that evaluates row by row: the loss of a set is one number, whatever the micro-batch.

The stock Trainer averages the means of its batches, in which a token counts more the fewer others are in its batch.
Here a set's loss is Σ loss / Σ tokens over all of its rows. Training steps are the stock Trainer's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from sftscope.training.data.examples import IGNORED

PER_ROW = "loss_per_row"  # how the mean over rows of a row's own mean loss is called among the metrics of a set
# of a set, by its name: step, Σ loss (R,) in nats, tokens (R,)
TakeRows = Callable[[str, int, NDArray[np.float64], NDArray[np.int64]], None]


class RowLossTrainer(Trainer):
    """A Trainer that hands over the loss of each row at each evaluation, by `take_rows`, on the first process.

    `eval_NAME_loss` is Σ loss / Σ tokens, `eval_NAME_loss_per_row` the mean over rows of their own means. Rows come in
    the order of their set, also where several processes share it.
    """

    take_rows: TakeRows | None = None

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """The loss of a batch as the stock Trainer has it, and (B, 2): Σ loss and tokens of each row."""
        given = self._prepare_inputs(inputs)
        labels = given["labels"]
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, given, return_outputs=True)
        return loss.detach().mean(), row_sums(self._answer_logits(outputs, labels), labels), None

    def evaluation_loop(self, *given: Any, **named: Any) -> EvalLoopOutput:
        """As the stock Trainer's, with the two losses of the set among its metrics."""
        output = super().evaluation_loop(*given, **named)
        prefix = named.get("metric_key_prefix", "eval")
        loss, tokens = output.predictions[:, 0], output.predictions[:, 1]
        output.metrics[f"{prefix}_loss"] = float(loss.sum() / tokens.sum())
        output.metrics[f"{prefix}_{PER_ROW}"] = float((loss / tokens).mean())
        if self.take_rows is not None and self.is_world_process_zero():
            self.take_rows(prefix.removeprefix("eval_"), self.state.global_step, loss, tokens.astype(np.int64))
        return output

    def _answer_logits(self, outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        """The logits (K, V) that predict the K tokens of the batch's answers, row after row."""
        chosen: torch.Tensor = outputs.logits[:, :-1][labels[:, 1:] != IGNORED]
        return chosen


def row_sums(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Σ loss and tokens of each row, (B, 2) float64. logits: (K, V), of the answers' tokens, row after row."""
    answered = labels[:, 1:] != IGNORED
    losses = cross_entropy(logits.float(), labels[:, 1:][answered], reduction="none").double()
    row = answered.nonzero()[:, 0]
    sums = torch.zeros(len(labels), dtype=torch.float64, device=logits.device).index_add_(0, row, losses)
    return torch.stack([sums, answered.sum(dim=1).double()], dim=1)
