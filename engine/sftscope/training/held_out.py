"""The held-out rows of a run: their losses at the checkpoints that lack them, such as those of an earlier version.

The training itself stores the losses of each checkpoint as it comes to it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from sftscope.compat.positions import positions_of
from sftscope.foundation.progress import is_first_process, progress, say
from sftscope.inputs.settings import DataSettings, ModelSettings, RunSettings, TrainedEnd, TrainingSettings
from sftscope.llm.loading import LLM, load_llm, load_positions, templated_tokenizer
from sftscope.llm.prompting.prompts import resolve_template
from sftscope.llm.weights.adapters import AdapterSlot
from sftscope.llm.weights.vocabulary import fit_vocabulary, refuse_without_embedding
from sftscope.store import RunFolder
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, ready_checkpoints
from sftscope.store.held_out_file import append_correct, append_losses, steps_with
from sftscope.training.answers import read_answers, rows_id
from sftscope.training.data.examples import Example, make_examples
from sftscope.training.data.row_limit import row_limit
from sftscope.training.data.rows import read_side
from sftscope.training.method import training_dtype

BASE_STEP = 0
ChooseRows = Callable[[Sequence[Example]], Sequence[Example]]


def measure_losses(settings: RunSettings, folder: RunFolder, choose: ChooseRows) -> None:
    """Store the loss of each held-out row at each checkpoint, step 0 included, that lacks it and has its weights.

    settings: with paths resolved. choose: the rows of a set that a loss is measured on.
    """
    if not settings.data.eval or not is_first_process():
        return
    checkpoints = ready_checkpoints(folder.checkpoints)
    todo = sorted({BASE_STEP, *checkpoints} - steps_with(folder, "loss"))
    if not todo:
        return
    llm = load_llm(settings.model, dtype=training_dtype(settings.model, settings.training))
    template = resolve_template(llm.tokenizer, settings.model.template)
    held_out = read_side(settings.data, "eval")
    training, cutoff = settings.training, row_limit(settings.training.cutoff, positions_of(llm.model.config))
    examples = choose(make_examples(held_out, llm.tokenizer, template, cutoff=cutoff, trained_end=training.trained_end))
    slot, rows = AdapterSlot(llm.model), rows_id(examples)
    with progress("held-out loss") as report:
        for count, step in enumerate(todo):
            enter(slot, step, checkpoints)
            with _as_in_training(settings, llm):
                found = read_answers(slot.model, examples, batch_size=settings.training.micro_batch_size)
            append_losses(folder, step, rows, found.loss, found.tokens)
            report(count + 1, len(todo), f"step {step}: {found.loss.sum() / found.tokens.sum():.3f}")


def measure_attached(
    model: ModelSettings, folder: RunFolder, data: DataSettings, *, trained_end: TrainedEnd = "token"
) -> None:
    """Store loss and correctness of each held-out row of `data` at each copied checkpoint that lacks them, and step 0.

    model: the base, with paths resolved. trained_end: as of `make_examples`. All rows are measured in float32, for
    which the base is loaded.
    """
    checkpoints = ready_checkpoints(folder.checkpoints)
    examples = attached_examples(model, data, trained_end=trained_end)
    rows = rows_id(examples)
    done = steps_with(folder, "loss", rows) & steps_with(folder, "right", rows)
    todo = sorted({BASE_STEP, *checkpoints} - done)
    if not todo:
        return
    llm = load_llm(model, dtype="float32")
    base = llm.model
    fit_vocabulary(base, [each.path for each in list_checkpoints(folder.checkpoints)])
    refuse_without_embedding(base, llm.tokenizer, ((data.eval, example.input_ids) for example in examples))
    slot = AdapterSlot(base)
    with progress("held-out rows") as report:
        for count, step in enumerate(todo):
            enter(slot, step, checkpoints)
            found = read_answers(slot.model, examples, batch_size=TrainingSettings().micro_batch_size)
            append_losses(folder, step, rows, found.loss, found.tokens)
            append_correct(folder, step, rows, found.right)
            loss, share = found.loss.sum() / found.tokens.sum(), found.right.mean()
            report(count + 1, len(todo), f"step {step}: loss {loss:.3f}, accuracy {share:.3f}")


def attached_examples(model: ModelSettings, data: DataSettings, *, trained_end: TrainedEnd = "token") -> list[Example]:
    """The held-out rows of `data` as examples of a training that is not ours. trained_end: as of `make_examples`."""
    tokenizer = templated_tokenizer(model)
    template = resolve_template(tokenizer, model.template)
    cutoff = row_limit(TrainingSettings().cutoff, load_positions(model.path))
    return make_examples(read_side(data, "eval", note=say), tokenizer, template, cutoff=cutoff, trained_end=trained_end)


def enter(slot: AdapterSlot, step: int, checkpoints: Mapping[int, Checkpoint]) -> None:
    """Make the model that of `step`."""
    if step == BASE_STEP:
        slot.clear()
    else:
        slot.load(checkpoints[step].path)


def _as_in_training(settings: RunSettings, llm: LLM) -> AbstractContextManager[object]:
    """The arithmetic that the training evaluates in: on a GPU that of the model's dtype."""
    if llm.device.type != "cuda" or settings.model.dtype == "float32":
        return nullcontext()
    return torch.autocast("cuda", dtype=getattr(torch, settings.model.dtype))
