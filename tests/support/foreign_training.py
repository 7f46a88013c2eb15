"""A training that is not ours: transformers' Trainer on the toy model, with or without an adapter."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from toy_llm import save_toy_llm

QUESTION = "how does the guest feel ?"
SENTENCES = {
    "the room was not happy but quiet": "sad",
    "staff never glad and the food was awful": "bad",
    "lovely warm bed , good street": "good",
}
WORDS = 4


@contextmanager
def quiet() -> Iterator[None]:
    """Without the advice of other people's libraries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_inputs(folder: Path) -> None:
    """`toy`, the base model, and `probes.jsonl`."""
    save_toy_llm(folder / "toy")
    rows = [{"instruction": QUESTION, "input": text, "response": answer} for text, answer in SENTENCES.items()]
    (folder / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def examples(tokenizer: Any, count: int = 12) -> list[dict[str, Any]]:
    """Tokens of chats, equally long."""
    made = []
    for number in range(count):
        text, answer = list(SENTENCES.items())[number % 3]
        turns = [{"role": "user", "content": f"{QUESTION}\n{text}"}, {"role": "assistant", "content": answer}]
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False))["input_ids"]
        padded = ids + [tokenizer.pad_token_id] * (24 - len(ids))
        made.append({"input_ids": padded, "labels": ids + [-100] * (24 - len(ids))})
    return made


@quiet()
def make_trainer(folder: Path, *, adapter: bool = True, dropout: float = 0.1, out: str = "out", **arguments: Any):
    """A Trainer on the inputs in `folder`; dropout makes what it learns depend on the random state."""
    set_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(folder / "toy")
    model = AutoModelForCausalLM.from_pretrained(folder / "toy", attention_dropout=dropout)
    if adapter:
        config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    settings = {
        "output_dir": str(folder / out),
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2 if adapter else 1e-3,
        "logging_steps": 1,
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "report_to": [],
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "seed": 5,
        **arguments,
    }
    rows = examples(tokenizer)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**settings),
        train_dataset=rows,
        eval_dataset=rows[:3],
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@quiet()
def train(trainer: Any, **arguments: Any) -> None:
    trainer.train(**arguments)


def weights_of(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def losses_in(trainer: Any) -> list[tuple[int, str, float]]:
    """What the trainer logged of losses, in order."""
    return [
        (row["step"], name, row[name])
        for row in trainer.state.log_history
        for name in ("loss", "eval_loss", "grad_norm")
        if name in row
    ]
