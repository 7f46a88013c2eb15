"""The held-out rows of someone else's training, and what its model makes of each at the steps that are extracted.

Loss and correctness of every row make paired tests of checkpoints possible; a trainer logs only their mean. Which rows
these are is asked of the trainer once and written into the run, where the sidecar finds them as tokens.
"""

import inspect
import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftscope.files.json_text import json_rows
from sftscope.files.opening import is_there, read_plain
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import say
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.settings import DataSettings, RunSettings
from sftscope.store import RunFolder, write_atomically
from sftscope.store.held_out_file import append_correct, append_losses, steps_with
from sftscope.training.answers import read_answers, rows_id
from sftscope.training.data.examples import IGNORED, Example
from sftscope.training.held_out import attached_examples

MOST_ROWS = 400  # of the trainer's own, by a seeded choice: an improvement of 2 % is seen on as many
_BATCH = 4  # rows of one length at a time
_PACKED = "rows are packed, so that one is several"
_COLUMNS = ("input_ids", "labels", "attention_mask", "completion_mask", "assistant_masks", "position_ids")


@dataclass(eq=False)
class EvalRows:
    """The rows of a run, in one order at every step; nothing is measured any more once that has failed."""

    examples: Sequence[Example]
    _has_failed: bool = False

    def measure(self, model: Any, folder: RunFolder, step: int) -> None:
        """Store what `model`, as it is now, makes of each row, unless that is known of `step`.

        Interactions can be extracted without it: an error is said, once, and not raised.
        """
        if self._has_failed or not self.examples:
            return
        try:
            self._measure(model, folder, step)
        except Exception as error:  # such as too little memory for the logits of a long row
            self._has_failed = True
            why = f"{type(error).__name__}: {safe_text(str(error), max_length=200)}"
            say(f"sftscope: held-out rows are not measured from step {step} on: {why}", logging.WARNING)

    def _measure(self, model: Any, folder: RunFolder, step: int) -> None:
        rows = rows_id(self.examples)
        if step in steps_with(folder, "loss", rows) & steps_with(folder, "right", rows):
            return
        found = read_answers(model, self.examples, batch_size=_BATCH)
        append_losses(folder, step, rows, found.loss, found.tokens)
        append_correct(folder, step, rows, found.right)


def choose_rows(trainer: Any, held_out: Any, most: int, settings: RunSettings) -> list[Example]:
    """The rows that are measured; none, and a line that says why, where the trainer's own cannot be read.

    held_out: None for the trainer's eval dataset, False for none, a data file, or rows as the trainer takes them.
    most: at most that many, 0 all. settings: of the run. SftscopeError for a file or rows that cannot be used.
    """
    if held_out is False:
        return []
    if isinstance(held_out, str | Path):
        return attached_examples(settings.model, DataSettings(train="", eval=str(held_out), max_eval_rows=most))
    rows = trainer.eval_dataset if held_out is None else held_out
    if isinstance(rows, Mapping) and rows:  # of several sets the first
        rows = next(iter(rows.values()))
    if rows is None:
        return []
    try:
        return _as_trained(trainer, rows, most)
    except Exception as error:  # a data set or collator of others: whatever it raises
        why = f"{type(error).__name__}: {safe_text(str(error), max_length=200)}"
        if held_out is not None:
            raise SftscopeError(f"held_out: cannot be read as the trainer's rows are: {why}") from None
        line = f"sftscope: the rows of the eval dataset are not measured: {why}; held_out= takes a data file"
        say(line, logging.WARNING)
        return []


def write_rows(folder: RunFolder, examples: Sequence[Example]) -> None:
    """For the sidecar, as tokens; without any, what was there goes."""
    if not examples:
        folder.held_out_tokens.unlink(missing_ok=True)
        return
    lines = [json.dumps({"input_ids": each.input_ids, "labels": each.labels}) for each in examples]
    write_atomically(folder.held_out_tokens, "".join(f"{line}\n" for line in lines).encode())


def read_rows(folder: RunFolder) -> EvalRows | None:
    """What `write_rows` wrote; None where nothing is."""
    if not is_there(folder.held_out_tokens):
        return None
    rows = json_rows(read_plain(folder.held_out_tokens))
    return EvalRows([Example(tuple(row["input_ids"]), tuple(row["labels"])) for row in rows])


def _as_trained(trainer: Any, rows: Any, most: int) -> list[Example]:
    """Rows as the trainer's collator makes them, without padding and without what comes after the answer."""
    count = len(rows)
    chosen = sorted(random.Random(0).sample(range(count), most)) if 0 < most < count else range(count)
    takes = set(inspect.signature(type(trainer.model).forward).parameters) - set(_COLUMNS)
    examples = []
    for place in chosen:
        row = dict(rows[place])
        if "input_ids" not in row:
            raise SftscopeError("expected rows that are tokenised, with input_ids")
        if len(row.get("seq_lengths") or ()) > 1:
            raise SftscopeError(_PACKED)
        if beyond := sorted(takes & row.keys()):
            raise SftscopeError(f"rows have {beyond[0]} besides their tokens")
        batch = trainer.data_collator([{name: row[name] for name in _COLUMNS if name in row}])
        if (example := _example(batch)) is not None:
            examples.append(example)
    return examples


def _example(batch: Mapping[str, Any]) -> Example | None:
    """The one row of a batch; None where nothing of it is predicted."""
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    positions = batch["position_ids"][0].tolist() if "position_ids" in batch else None
    if positions is not None and positions != list(range(len(ids))):
        raise SftscopeError(_PACKED)
    mask = batch["attention_mask"][0].tolist() if "attention_mask" in batch else [1] * len(ids)
    if len(mask) != len(ids):
        raise SftscopeError("rows have an attention mask of their own")
    kept = [place for place, seen in enumerate(mask) if seen]
    predicted = [place for place in kept[1:] if labels[place] != IGNORED]
    if not predicted:
        return None
    until = [place for place in kept if place <= predicted[-1]]
    return Example(tuple(ids[place] for place in until), tuple(labels[place] for place in until))
