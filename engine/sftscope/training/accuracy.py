"""Held-out accuracy of every checkpoint: how often the model's most likely answer is the one that was asked for.

An answer counts where each of its tokens, and the end of turn, is the most likely one after those before it: just
then greedy decoding would write this answer and nothing else. So one forward pass tells, and nothing is generated.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch

from sftscope.foundation.progress import is_first_process, progress
from sftscope.inputs.settings import RunSettings
from sftscope.llm.adapters import AdapterSlot
from sftscope.llm.loading import load_llm
from sftscope.llm.prompts import Template, resolve_template
from sftscope.store import RunFolder
from sftscope.store.checkpoints import ready_checkpoints
from sftscope.training.data.examples import IGNORED, Example, make_examples
from sftscope.training.data.rows import read_side

BASE_STEP = 0


def measure_accuracy(settings: RunSettings, folder: RunFolder) -> None:
    """Append `accuracy` to the training log for each checkpoint, step 0 included, that has none there yet.

    settings: with paths resolved; `accuracy_rows` 0, or no held-out data, measures nothing.
    """
    if not settings.training.accuracy_rows or not settings.data.eval or not is_first_process():
        return
    checkpoints = ready_checkpoints(folder.checkpoints)
    done = {row["step"] for row in folder.read_log() if "accuracy" in row}
    todo = sorted({BASE_STEP, *checkpoints} - done)
    if not todo:
        return
    llm = load_llm(settings.model, dtype="float32")
    template = resolve_template(llm.tokenizer, settings.model.template)
    examples = held_out_examples(settings, llm.tokenizer, template)
    slot = AdapterSlot(llm.model)
    with progress("held-out accuracy") as report:
        for count, step in enumerate(todo):
            if step == BASE_STEP:
                slot.clear()
            else:
                slot.load(checkpoints[step].path)
            share = share_answered(slot.model, examples, batch_size=settings.training.micro_batch_size)
            folder.append_log({"step": step, "kind": "checkpoint", "accuracy": share})
            report(count + 1, len(todo), f"step {step}: {share:.3f}")


def held_out_examples(settings: RunSettings, tokenizer: Any, template: Template) -> list[Example]:
    """The examples that accuracy is measured on, a seeded choice; none where it is not asked for."""
    wanted = settings.training.accuracy_rows
    rows = read_side(settings.data, "eval", limit=wanted) if wanted else ()
    return make_examples(rows, tokenizer, template, cutoff=settings.training.cutoff)


def share_answered(model: Any, examples: Sequence[Example], *, batch_size: int) -> float:
    """Share of `examples` whose whole answer is the model's most likely one, token by token.

    Examples of one length go through the model together, so that nothing is padded.
    """
    device = model.get_input_embeddings().weight.device
    right = 0
    for (_, answer), group in groupby(sorted(examples, key=_lengths), key=_lengths):
        alike = list(group)
        for start in range(0, len(alike), batch_size):
            batch = alike[start : start + batch_size]
            tokens = torch.tensor([example.input_ids for example in batch], device=device)
            with torch.no_grad():
                logits = model(input_ids=tokens, use_cache=False, logits_to_keep=answer + 1).logits[:, :-1]
            right += int((logits.argmax(-1) == tokens[:, -answer:]).all(dim=1).sum())
    return right / len(examples)


def _lengths(example: Example) -> tuple[int, int]:
    """Tokens in all, and of the answer with its end of turn."""
    return len(example.input_ids), sum(label != IGNORED for label in example.labels)
