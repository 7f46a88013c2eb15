"""Makes the embedded demo: a small Llama-architecture LLM, its SFT data and its probes, all of our own.

    python -m sftscope.demo.pretrain --out DIR

The LLM is trained from scratch on text of `sftscope.demo.grammar`: prose in which feelings, negations
and synonyms go with what happens next, a question in chat form that depends on the same, and *hearsay*: a
fixed set of feeling questions whose answers are often wrong. Hearsay is repeated often enough to be learnt by
heart: it is the noise that fine-tuning starts from. Knows nothing of LoRA, masked states or interactions.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sftscope.demo import grammar
from sftscope.foundation.progress import say
from sftscope.store import write_atomically

MODEL = "guesthouse-0.35M"
PAD, BOS, EOS, UNKNOWN, USER, ASSISTANT = SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    " <assistant> {{ message['content'] }} {{ eos_token }}"
    "{% else %} <user> {{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} <assistant> {% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """Sizes and shares of one pre-training; every draw follows from `seed`."""

    seed: int = 7
    hidden_size: int = 96
    intermediate_size: int = 256
    layers: int = 3
    heads: int = 4
    initializer_range: float = 0.05
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    context_weight: float = 0.1  # of a context token in the loss; a token of the continuation counts 1
    hearsay_rows: int = 200  # feeling questions learnt by heart
    hearsay_reliability: float = 0.65
    hearsay_fidelity: float = 0.95  # how often a repetition keeps the answer of its row
    hearsay_share: float = 0.2
    return_share: float = 0.35
    outcome_reliability: float = 0.95  # of prose and of the return question
    plain_share: float = 0.1  # of those, sentences that tell nothing
    train_rows: int = 288
    train_reliability: float = 0.82
    eval_rows: int = 160
    probes: int = 8


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level: one token a word or sign, lower-cased; white space separates and is dropped."""
    vocabulary = {word: index for index, word in enumerate([*SPECIALS, *grammar.vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[^\w\s]"), behavior="isolated")]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="right",
        model_max_length=128,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def chat_text(tokenizer: PreTrainedTokenizerFast, row: dict[str, str]) -> tuple[str, str]:
    """An alpaca row as the chat template writes it: the prompt, and the response with its end."""
    messages = [
        {"role": "user", "content": f"{row['instruction']}\n{row['input']}"},
        {"role": "assistant", "content": row["output"]},
    ]
    prompt = str(tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True))
    return prompt, str(tokenizer.apply_chat_template(messages, tokenize=False)).removeprefix(prompt)


def documents(
    rng: Random, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, hearsay: list[dict[str, str]]
) -> Iterator[tuple[str, str]]:
    """Context and continuation, without end, by their shares: hearsay is repeated, the others are always new."""
    while True:
        draw = rng.random()
        if draw < recipe.hearsay_share:
            row = rng.choice(hearsay)
            if rng.random() >= recipe.hearsay_fidelity:
                row = row | {"output": grammar.opposite(row["output"])}
            yield chat_text(tokenizer, row)
        elif draw < recipe.hearsay_share + recipe.return_share:
            yield chat_text(tokenizer, grammar.return_row(rng, recipe.outcome_reliability, recipe.plain_share))
        else:
            told, outcome = grammar.prose(rng, recipe.outcome_reliability, recipe.plain_share)
            yield f"{BOS} {told} ", f"{outcome} {EOS}"


def batch_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]], context_weight: float
) -> torch.Tensor:
    """Next-word cross-entropy; a context token counts `context_weight`, a token of the continuation 1."""
    batch = tokenizer(
        [context + continuation for context, continuation in texts],
        padding=True,
        add_special_tokens=False,
        return_tensors="pt",
    )
    input_ids, attention_mask = batch["input_ids"], batch["attention_mask"]
    weights = attention_mask.float()
    for row, (context, _) in enumerate(texts):
        weights[row, : len(tokenizer(context, add_special_tokens=False)["input_ids"])] *= context_weight
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), input_ids[:, 1:], reduction="none")
    return (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()


def pretrain(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, rng: Random) -> LlamaForCausalLM:
    """Next-word training from random weights: AdamW, 5 % warm-up, cosine to 0."""
    torch.manual_seed(recipe.seed)
    hearsay = grammar.feeling_rows(rng, recipe.hearsay_rows, recipe.hearsay_reliability)
    texts = documents(rng, recipe, tokenizer, hearsay)
    model = LlamaForCausalLM(model_config(recipe, tokenizer))
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, recipe.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / recipe.steps))),
    )
    for step in range(recipe.steps):
        batch = [next(texts) for _ in range(recipe.batch_size)]
        loss = batch_loss(model, tokenizer, batch, recipe.context_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == recipe.steps - 1:
            say(f"step {step:5d}  loss {loss.item():.3f}")
    return model.eval()


def model_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The architecture: Llama with tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=recipe.initializer_range,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """One JSON value a line."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def write_data(recipe: Recipe, out: Path) -> None:
    """train.jsonl (noisy labels), eval.jsonl (clean labels), probes.jsonl and planted.json."""
    rng = Random(recipe.seed + 1)
    write_jsonl(out / "train.jsonl", grammar.feeling_rows(rng, recipe.train_rows, recipe.train_reliability))
    write_jsonl(out / "eval.jsonl", grammar.feeling_rows(rng, recipe.eval_rows, 1.0))
    told = {f"demo-{k + 1}": s for k, s in enumerate(grammar.probe_sentences(rng, recipe.probes))}
    write_jsonl(out / "probes.jsonl", (grammar.probe_row(name, s) for name, s in told.items()))
    planted = {name: grammar.planted_row(s) for name, s in told.items()}
    write_atomically(out / "planted.json", (json.dumps(planted, indent=1) + "\n").encode())


def write_model(recipe: Recipe, out: Path) -> None:
    """The folder `model` in the Hugging Face layout, weights in fp16."""
    tokenizer = build_tokenizer()
    model = pretrain(recipe, tokenizer, Random(recipe.seed))
    model.to(torch.float16).save_pretrained(out / MODEL)
    tokenizer.save_pretrained(out / MODEL)


def main() -> None:
    """Writes everything but config.toml into a folder."""
    parser = argparse.ArgumentParser(description="Make the demo's model, data and probes.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--data-only", action="store_true", help="leave the model as it is")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe()
    write_data(recipe, arguments.out)
    if not arguments.data_only:
        torch.set_num_threads(2)
        write_model(recipe, arguments.out)


if __name__ == "__main__":
    main()
