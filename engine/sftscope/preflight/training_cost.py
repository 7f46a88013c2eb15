"""What a fine-tuning costs: steps and tokens counted, one micro-batch timed. Knows nothing of probes."""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from sftscope.foundation.progress import say
from sftscope.foundation.timing import settled_seconds
from sftscope.inputs.settings import RunSettings
from sftscope.llm.loading import load_positions
from sftscope.llm.prompting.prompts import Template
from sftscope.training.accuracy import held_out_examples
from sftscope.training.data.examples import Collator, Example, cut_in_words, make_examples
from sftscope.training.data.markers import find_markers
from sftscope.training.data.row_limit import row_limit, row_warnings
from sftscope.training.data.rows import read_side
from sftscope.training.data.sources import SIDES
from sftscope.training.sft import checkpoint_grid, loss_examples

_BUDGET = 40.0  # seconds of timing after which no further micro-batch is timed
_SAMPLED_BATCHES = 64


@dataclass(frozen=True, eq=False)
class TrainingWork:
    """steps: optimisation steps. grid: those that are kept, without 0. tokens: padded, of the whole training.

    loss_tokens: padded, of the train and eval loss at one checkpoint. accuracy_tokens: of its held-out accuracy.
    batch: a typical micro-batch. remarks: what to know of the training rows, in lines.
    """

    rows: int
    steps: int
    grid: tuple[int, ...]
    tokens: int
    loss_tokens: int
    accuracy_tokens: int
    batch: Sequence[Example]
    remarks: tuple[str, ...] = ()


NO_WORK = TrainingWork(rows=0, steps=0, grid=(), tokens=0, loss_tokens=0, accuracy_tokens=0, batch=())


@dataclass(frozen=True)
class TrainingSpeed:
    """Seconds per padded token: forward and backward, and forward alone."""

    per_token: float
    per_loss_token: float


def count_work(settings: RunSettings, tokenizer: Any, template: Template) -> TrainingWork:
    """The work of the training that `settings` (paths resolved) ask for."""
    training = settings.training
    positions = load_positions(settings.model.path)
    rows = [read_side(settings.data, side, note=say) for side in SIDES]
    cutoff = row_limit(training.cutoff, positions)
    examples = [
        make_examples(side, tokenizer, template, cutoff=cutoff, trained_end=training.trained_end) for side in rows
    ]
    answered = held_out_examples(settings, tokenizer, template)
    grid = checkpoint_grid(training, len(examples[0]))
    micro = training.micro_batch_size
    rng = random.Random(training.seed)
    batches = [rng.choices(examples[0], k=min(micro, len(examples[0]))) for _ in range(_SAMPLED_BATCHES)]
    batches.sort(key=_padded)
    per_step = sum(map(_padded, batches)) / len(batches) * training.effective_batch_size / micro
    return TrainingWork(
        rows=len(examples[0]),
        steps=grid[-1],
        grid=grid,
        tokens=round(grid[-1] * per_step),
        loss_tokens=sum(_padded_in_order(loss_examples(side, training), micro) for side in examples if side),
        accuracy_tokens=sum(len(example.input_ids) for example in answered),
        batch=batches[len(batches) // 2],
        remarks=(
            *_cut(examples[0], cutoff),
            *find_markers(rows[0], tokenizer).in_words(),
            *row_warnings(rows[0], tokenizer, template, cutoff=training.cutoff, positions=positions),
        ),
    )


def measure_speed(model: Any, work: TrainingWork, pad: int, *, half: torch.dtype | None = None) -> TrainingSpeed:
    """Time a typical micro-batch on `model`, which has a fresh adapter; half: the precision of autocast."""
    device = model.get_input_embeddings().weight.device
    batch = {name: tensor.to(device) for name, tensor in Collator(pad)(work.batch).items()}
    tokens = batch["input_ids"].numel()
    casting: AbstractContextManager[Any] = torch.autocast(device.type, half) if half else nullcontext()

    def learn() -> None:
        with casting:
            loss = model(**batch).loss
        loss.backward()
        model.zero_grad(set_to_none=True)

    def look() -> None:
        with torch.no_grad(), casting:
            model(**batch)

    return TrainingSpeed(_seconds(learn, device) / tokens, _seconds(look, device) / tokens)


def training_seconds(work: TrainingWork, speed: TrainingSpeed) -> float:
    """Predicted seconds: every step, and losses and accuracy at step 0 and at every checkpoint."""
    looked_at = (work.loss_tokens + work.accuracy_tokens) * (1 + len(work.grid))
    return speed.per_token * work.tokens + speed.per_loss_token * looked_at


def _cut(examples: Sequence[Example], cutoff: int) -> list[str]:
    prompts, answers = (sum(bool(getattr(each, part)) for each in examples) for part in ("prompt_cut", "answer_cut"))
    return cut_in_words(prompts, answers, len(examples), cutoff)


def _padded(batch: Sequence[Example]) -> int:
    return len(batch) * max(len(example.input_ids) for example in batch)


def _padded_in_order(examples: Sequence[Example], micro: int) -> int:
    return sum(_padded(examples[start : start + micro]) for start in range(0, len(examples), micro))


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Seconds of a warm call."""

    def waited_for() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return settled_seconds(waited_for, budget=_BUDGET)[0]
