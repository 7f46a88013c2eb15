"""The fine-tuning itself: transformers' Trainer, LoRA by PEFT or all weights, and a grid of checkpoints.

At every step of the grid the train and eval loss are measured on fixed rows and a checkpoint is
saved in the Trainer's own layout. Restarted, it resumes from the last intact checkpoint.
Started by torchrun or accelerate launch, the processes share each batch; the first one writes.
"""

import math
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from sftscope.compat.transformers import recomputation_name
from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.progress import Progress, is_first_process, progress, say
from sftscope.foundation.safe_text import whole_number
from sftscope.inputs.settings import RunSettings, TrainingSettings
from sftscope.llm.loading import LLM, load_llm, load_positions, templated_tokenizer
from sftscope.llm.prompting.prompts import resolve_template
from sftscope.llm.weights.vocabulary import refuse_without_embedding
from sftscope.store import RunFolder, ownership
from sftscope.store.checkpoints import Checkpoint, list_checkpoints, losses_of, ready_checkpoints
from sftscope.store.held_out_file import append_losses
from sftscope.training.answer_loss import AnswerLossTrainer, has_large_logits
from sftscope.training.answers import rows_id
from sftscope.training.data.examples import Collator, Example, make_examples
from sftscope.training.data.row_limit import row_limit, row_warnings
from sftscope.training.data.rows import read_side
from sftscope.training.method import trainable, training_dtype
from sftscope.training.row_losses import PER_ROW, RowLossTrainer, TakeRows

_OPTIMIZER = "optimizer.pt"  # the Trainer resumes without it too, but not to the same result


class _Examples(Dataset[Example]):
    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


def checkpoint_grid(settings: TrainingSettings, rows: int) -> tuple[int, ...]:
    """The steps > 0 at which checkpoints are kept: the wanted ones that are reached, and the last step."""
    last = last_step(settings, rows)
    return tuple(sorted({step for step in settings.checkpoints if 0 < step < last} | {last}))


def schedule_length(settings: TrainingSettings, rows: int) -> int:
    """Optimisation steps of the whole schedule."""
    return max(1, math.ceil(settings.epochs * math.ceil(rows / settings.effective_batch_size)))


def last_step(settings: TrainingSettings, rows: int) -> int:
    """The step that training stops at: the end of the schedule, or earlier where `max_steps` says so."""
    total = schedule_length(settings, rows)
    return min(settings.max_steps, total) if settings.max_steps else total


def train(settings: RunSettings, folder: RunFolder, *, cut_otherwise: bool = False) -> None:
    """Fine-tune by `settings` (paths resolved) into the run folder; done steps are not repeated.

    cut_otherwise: whether an earlier release began it, which cut too long prompts in another way; SftscopeError where
    that makes a difference to what is left to train.
    """
    training = settings.training
    train_rows = read_side(settings.data, "train", note=say)
    grid = checkpoint_grid(training, len(train_rows))
    done = ready_checkpoints(folder.checkpoints)
    if line := _finished(done, grid, training):
        say(line)
        return
    tokenizer = templated_tokenizer(settings.model)
    template = resolve_template(tokenizer, settings.model.template)
    positions = load_positions(settings.model.path)
    for line in row_warnings(train_rows, tokenizer, template, cutoff=training.cutoff, positions=positions):
        say(f"warning: {line}")
    cutoff = row_limit(training.cutoff, positions)
    as_tokens = partial(
        make_examples, tokenizer=tokenizer, template=template, cutoff=cutoff, trained_end=training.trained_end
    )
    train_set, eval_set = as_tokens(train_rows), as_tokens(read_side(settings.data, "eval", note=say))
    if cut_otherwise and done and any(example.prompt_cut or example.answer_cut for example in train_set):
        raise SftscopeError(
            f"{folder.path}: an earlier sftscope began this training and cut rows longer than [training] cutoff = "
            f"{training.cutoff} at their start; begin it again with another --out folder"
        )
    llm = load_llm(settings.model, dtype=training_dtype(settings.model, training))
    for place, examples in ((settings.data.train, train_set), (settings.data.eval, eval_set)):
        refuse_without_embedding(llm.model, tokenizer, ((place, example.input_ids) for example in examples))
    start = max((step for step, found in done.items() if (found.path / _OPTIMIZER).exists()), default=0)
    if is_first_process():
        ownership.begin_checkpoints(folder.checkpoints)
        ownership.drop_unfinished(folder.checkpoints)
        ownership.refuse_overwriting(folder.checkpoints, (step for step in grid if step > start))
    with progress("training") as report:
        trainer = _make_trainer(settings, folder, llm, train_set, eval_set, grid, report)
        # not by evaluate() before: after it the Trainer would not share gradients between processes
        trainer.args.eval_on_start = not start
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.train(resume_from_checkpoint=str(done[start].path) if start else None)


def _finished(done: Mapping[int, Checkpoint], grid: Sequence[int], training: TrainingSettings) -> str:
    """Why there is nothing left to train, in one line; empty where there is."""
    if grid[-1] in done:
        return f"training: all {grid[-1]} steps are done"
    last = max(done, default=0)
    state = done[last].trainer_state() if last else None
    if state is not None and is_patience_over(state.log, training.patience):
        return f"training: stopped at step {last}: no lower eval loss at {training.patience} checkpoints"
    return ""


def is_patience_over(log_history: Sequence[Mapping[str, Any]], patience: int) -> bool:
    """Whether the last `patience` checkpoints brought no lower eval loss than the best before them; never for 0."""
    losses = [row["eval_eval_loss"] for row in log_history if row.get("step") and "eval_eval_loss" in row]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])


def _make_trainer(
    settings: RunSettings,
    folder: RunFolder,
    llm: LLM,
    train_set: Sequence[Example],
    eval_set: Sequence[Example],
    grid: Sequence[int],
    report: Progress,
) -> Trainer:
    training = settings.training
    set_seed(training.seed)
    model = trainable(llm.model, training)
    pad = llm.tokenizer.pad_token_id
    sides = {"train": loss_examples(train_set, training), "eval": loss_examples(eval_set, training)}
    large = has_large_logits(model, train_set, training.micro_batch_size)
    kind = AnswerLossTrainer if large else RowLossTrainer
    trainer = kind(
        model=model,
        args=_arguments(settings, folder, llm, len(train_set)),
        train_dataset=_Examples(train_set),
        eval_dataset={side: _Examples(rows) for side, rows in sides.items() if rows},
        data_collator=Collator(0 if pad is None else pad),
        callbacks=[_Grid(grid, training, folder, report)],
    )
    trainer.take_rows = _keep_held_out(folder, sides["eval"])
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _keep_held_out(folder: RunFolder, held_out: Sequence[Example]) -> TakeRows:
    """Stores the losses of the held-out rows; those of the training rows are only summed up."""
    rows = rows_id(held_out)

    def take(side: str, step: int, loss: NDArray[np.float64], tokens: NDArray[np.int64]) -> None:
        if side == "eval":
            append_losses(folder, step, rows, loss, tokens)

    return take


def _arguments(settings: RunSettings, folder: RunFolder, llm: LLM, rows: int) -> TrainingArguments:
    training = settings.training
    half = settings.model.dtype if llm.device.type == "cuda" else "float32"
    return TrainingArguments(
        output_dir=str(folder.checkpoints),
        max_steps=schedule_length(training, rows),
        per_device_train_batch_size=training.micro_batch_size,
        per_device_eval_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=_accumulation(training),
        **_recomputation(training),
        learning_rate=training.learning_rate,
        lr_scheduler_type=_scheduler(training),
        warmup_steps=training.warmup_ratio,  # below 1: a share of the schedule
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        bf16=half == "bfloat16",
        fp16=half == "float16",
        use_cpu=llm.device.type == "cpu",
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=llm.device.type == "cuda",
        remove_unused_columns=False,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        prediction_loss_only=True,
        label_names=["labels"],
    )


def _scheduler(training: TrainingSettings) -> str:
    """The Trainer's name of the schedule; of its two constant ones, the one that does not ignore the warm-up."""
    return "constant_with_warmup" if training.schedule == "constant" else training.schedule


def _accumulation(training: TrainingSettings) -> int:
    """Micro-batches that each process adds up for one step."""
    processes = whole_number(os.environ.get("WORLD_SIZE", "")) or 1  # as torchrun and accelerate launch set it
    together = processes * training.micro_batch_size
    if training.effective_batch_size % together:
        raise SftscopeError(
            f"[training] effective_batch_size: {training.effective_batch_size} is not a multiple of {processes} "
            f"processes × micro_batch_size {training.micro_batch_size}; change one of them"
        )
    return training.effective_batch_size // together


def _recomputation(training: TrainingSettings) -> dict[str, bool]:
    """Gradient checkpointing, by the name that the installed transformers has for it."""
    return {recomputation_name(): True} if training.gradient_checkpointing else {}


class _Grid(TrainerCallback):
    """Saves and evaluates at the steps of the grid, stops at the last, keeps the log and the progress."""

    def __init__(self, grid: Sequence[int], training: TrainingSettings, folder: RunFolder, report: Progress) -> None:
        self._grid, self._last, self._training = frozenset(grid), grid[-1], training
        self._folder, self._log, self._report = folder, folder.training_log, report

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        at_checkpoint = state.global_step in self._grid
        control.should_evaluate = control.should_save = at_checkpoint
        if at_checkpoint and state.is_world_process_zero:
            ownership.will_save(self._folder.checkpoints, state.global_step)
        control.should_training_stop = state.global_step >= self._last
        return control

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if is_patience_over(state.log_history, self._training.patience):
            control.should_training_stop = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Of a full model only the last checkpoint can be resumed from: its optimizer is twice as large as itself."""
        if self._training.method == "full" and state.is_world_process_zero:
            for checkpoint in list_checkpoints(self._folder.checkpoints):
                if checkpoint.step < state.global_step:
                    ownership.drop_file(checkpoint.path, _OPTIMIZER)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append the losses to the training log; a line torn by a kill is skipped by readers."""
        if not state.is_world_process_zero or not logs:
            return
        losses = losses_of(logs)
        if not losses:
            return
        extra: dict[str, Any] = {key: logs[key] for key in ("learning_rate", "grad_norm") if key in logs}
        per_row = {f"{side}_per_row": logs.get(f"eval_{side}_{PER_ROW}") for side in losses}
        extra |= {name: loss for name, loss in per_row.items() if loss is not None}
        kind = "batch" if "loss" in logs else "checkpoint"
        row: dict[str, Any] = {"step": state.global_step, "kind": kind, **losses, **extra}
        self._folder.append_log(row)
        note = ", ".join(f"{side} loss {loss:.3f}" for side, loss in losses.items())
        self._report(state.global_step, self._last, note)


def loss_examples(examples: Sequence[Example], training: TrainingSettings) -> Sequence[Example]:
    """The fixed rows that a loss is measured on."""
    if not 0 < training.loss_rows < len(examples):
        return examples
    return random.Random(training.seed).sample(list(examples), training.loss_rows)
