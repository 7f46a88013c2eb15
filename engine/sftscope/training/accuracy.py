"""Held-out accuracy of every checkpoint: how often the model's most likely answer is the one that was asked for."""

from typing import Any

from sftscope.foundation.progress import is_first_process, progress
from sftscope.inputs.settings import RunSettings
from sftscope.llm.loading import load_llm, load_positions, templated_tokenizer
from sftscope.llm.prompting.prompts import Template, resolve_template
from sftscope.llm.weights.adapters import AdapterSlot
from sftscope.store import RunFolder
from sftscope.store.checkpoints import ready_checkpoints
from sftscope.store.held_out_file import append_correct, steps_with
from sftscope.training.answers import read_answers, rows_id
from sftscope.training.data.examples import Example, make_examples
from sftscope.training.data.row_limit import row_limit
from sftscope.training.data.rows import read_side
from sftscope.training.held_out import BASE_STEP, enter


def measure_accuracy(settings: RunSettings, folder: RunFolder) -> None:
    """Store which rows are right at each checkpoint, step 0 included, that lacks it; their share goes to the log.

    settings: with paths resolved; `accuracy_rows` 0, or no held-out data, measures nothing.
    """
    if not settings.training.accuracy_rows or not settings.data.eval or not is_first_process():
        return
    checkpoints = ready_checkpoints(folder.checkpoints)
    tokenizer = templated_tokenizer(settings.model)
    examples = held_out_examples(settings, tokenizer, resolve_template(tokenizer, settings.model.template))
    rows = rows_id(examples)
    logged = {(row["step"], row["accuracy"]) for row in folder.read_log() if "accuracy" in row}
    done = {step for step, _ in logged} & steps_with(folder, "right", rows)
    todo = sorted({BASE_STEP, *checkpoints} - done)
    if not todo:
        return
    slot = AdapterSlot(load_llm(settings.model, dtype="float32").model)
    with progress("held-out accuracy") as report:
        for count, step in enumerate(todo):
            enter(slot, step, checkpoints)
            right = read_answers(slot.model, examples, batch_size=settings.training.micro_batch_size).right
            share = float(right.mean())
            append_correct(folder, step, rows, right)
            if (step, share) not in logged:
                folder.append_log({"step": step, "kind": "checkpoint", "accuracy": share})
            report(count + 1, len(todo), f"step {step}: {share:.3f}")


def held_out_examples(settings: RunSettings, tokenizer: Any, template: Template) -> list[Example]:
    """The examples that accuracy is measured on, a seeded choice; none where it is not asked for."""
    wanted = settings.training.accuracy_rows
    if not wanted:
        return []
    rows = read_side(settings.data, "eval", limit=wanted)
    cutoff = row_limit(settings.training.cutoff, load_positions(settings.model.path))
    return make_examples(rows, tokenizer, template, cutoff=cutoff, trained_end=settings.training.trained_end)
