"""The loss of single training rows at some steps: whether the training learned them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import progress
from sftscope.inputs.settings import RunSettings
from sftscope.llm.loading import load_llm
from sftscope.llm.prompting.prompts import resolve_template
from sftscope.llm.weights.adapters import AdapterSlot
from sftscope.store import RunFolder
from sftscope.store.checkpoints import ready_checkpoints
from sftscope.training.answers import read_answers
from sftscope.training.data.examples import make_examples
from sftscope.training.data.shapes import Row
from sftscope.training.held_out import BASE_STEP, enter


def losses_at(
    settings: RunSettings, folder: RunFolder, rows: Sequence[Row], steps: Sequence[int]
) -> NDArray[np.float64]:
    """The loss of each of R rows at S steps, (S, R), nats a token of the answer, in float32.

    settings: with paths resolved. SftscopeError where the weights of a step are not in the run any more.
    """
    checkpoints = ready_checkpoints(folder.checkpoints)
    for step in steps:
        if step != BASE_STEP and step not in checkpoints:
            raise SftscopeError(
                f"{folder.checkpoints}: has no whole weights of step {step}, so that no loss can be measured there"
            )
    llm = load_llm(settings.model, dtype="float32")
    template = resolve_template(llm.tokenizer, settings.model.template)
    training = settings.training
    examples = make_examples(rows, llm.tokenizer, template, cutoff=training.cutoff, trained_end=training.trained_end)
    slot, losses = AdapterSlot(llm.model), np.zeros((len(steps), len(rows)))
    with progress("losses of training rows") as report:
        for count, step in enumerate(steps):
            enter(slot, step, checkpoints)
            found = read_answers(slot.model, examples, batch_size=training.micro_batch_size)
            losses[count] = found.loss / found.tokens
            report(count + 1, len(steps), f"step {step}")
    return losses
