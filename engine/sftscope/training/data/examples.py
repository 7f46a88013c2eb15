"""Training examples as tokens: prompt and answer tokenised apart and joined, loss on the answer and what ends it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.settings import TrainedEnd
from sftscope.llm.prompting.prompts import Closing, Template, closing_tokens, tokenize_prompt, tokenize_response
from sftscope.training.data.shapes import Row
from sftscope.training.data.shortened import fit_prompt

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """Tokens and labels of one example, equally long; labels are `IGNORED` on the prompt.

    after_end: how many tokens at the end come after the one that ends the answer. prompt_cut, answer_cut: tokens that
    the cutoff took from each.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    after_end: int = 0
    prompt_cut: int = 0
    answer_cut: int = 0


def make_examples(
    rows: Sequence[Row], tokenizer: Any, template: Template, *, cutoff: int, trained_end: TrainedEnd = "token"
) -> list[Example]:
    """Each row as an example of at most `cutoff` tokens.

    The user's text is shortened where the whole is too long (see `shortened`); the answer is kept. One that leaves no
    room for the frame of the prompt is cut at its end, and the prompt then keeps half of the cutoff.
    trained_end: what is trained after the answer, the token that ends it or all that the template has there.
    """
    ending = closing_tokens(tokenizer, template, whole=trained_end == "template")
    return [_example(row, tokenizer, template, ending, cutoff) for row in rows]


def _example(row: Row, tokenizer: Any, template: Template, ending: Closing, cutoff: int) -> Example:
    place = f"{row.where}: " if row.where else ""
    answer = tokenize_response(tokenizer, row.response)
    if not answer:
        raise SftscopeError(f"{place}the answer {safe_text(row.response, max_length=40)!r} has no tokens")
    answer = (*answer, *ending.ids)
    try:
        prompt = fit_prompt(row, tokenizer, template, room=cutoff - len(answer))
        if len(prompt.ids) + len(answer) > cutoff:  # the answer has to be cut in any case
            prompt = fit_prompt(row, tokenizer, template, room=cutoff // 2)
    except SftscopeError as error:
        raise type(error)(f"{place}{error}") from None
    room = cutoff - len(prompt.ids)
    if room < 1:
        raise SftscopeError(
            f"{place}[training] cutoff is {cutoff}, and the template with the system prompt alone takes "
            f"{len(prompt.ids)} tokens: none is left for the answer; raise the cutoff"
        )
    kept, lost = answer[:room], max(0, len(answer) - room)
    return Example(
        prompt.ids + kept,
        (IGNORED,) * len(prompt.ids) + kept,
        after_end=max(0, ending.after_end - lost),
        prompt_cut=prompt.cut,
        answer_cut=lost,
    )


def count_cut(
    rows: Sequence[Row], tokenizer: Any, template: Template, *, cutoff: int, trained_end: TrainedEnd = "token"
) -> tuple[int, int]:
    """How many rows `make_examples` takes something from: from the user's text, and from the end of the answer.

    Only rows with more bytes than the cutoff has tokens are tokenised: no token is less than a byte.
    """
    ending = closing_tokens(tokenizer, template, whole=trained_end == "template")
    frame = len(tokenize_prompt(tokenizer, "u", template).ids)
    prompts = answers = 0
    for row in rows:
        texts = (row.prompt, row.response, row.system, *(content for _, content in row.history))
        most = sum(len(text.encode()) for text in texts) + frame * (1 + len(row.history)) + len(ending.ids)
        if most <= cutoff:
            continue
        example = _example(row, tokenizer, template, ending, cutoff)
        prompts += example.prompt_cut > 0
        answers += example.answer_cut > 0
    return prompts, answers


def cut_in_words(prompts: int, answers: int, rows: int, cutoff: int) -> list[str]:
    """What a cutoff does to the rows of a training, in one line for each part of them that it cuts."""
    parts = ((prompts, "the user's text"), (answers, "the answer"))
    return [
        f"[training] cutoff = {cutoff} shortens {part} at its end in {count:,} of {rows:,} rows"
        for count, part in parts
        if count
    ]


@dataclass(frozen=True)
class Collator:
    """Pads a batch of examples on the right with `pad`; labels with `IGNORED`."""

    pad: int

    def __call__(self, batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        width = max(len(example.input_ids) for example in batch)
        fill = [width - len(example.input_ids) for example in batch]
        return {
            "input_ids": torch.tensor([list(e.input_ids) + [self.pad] * n for e, n in zip(batch, fill, strict=True)]),
            "attention_mask": torch.tensor(
                [[1] * len(e.input_ids) + [0] * n for e, n in zip(batch, fill, strict=True)]
            ),
            "labels": torch.tensor([list(e.labels) + [IGNORED] * n for e, n in zip(batch, fill, strict=True)]),
        }
