"""Training examples as tokens: prompt and answer tokenised apart and joined, loss on the answer only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.prompts import Template, end_of_turn, tokenize_prompt, tokenize_response
from sftscope.training.data.shapes import Row

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """Tokens and labels of one example, equally long; labels are `IGNORED` on the prompt."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def make_examples(rows: Sequence[Row], tokenizer: Any, template: Template, *, cutoff: int) -> list[Example]:
    """Each row as an example of at most `cutoff` tokens.

    The prompt is cut at its start where it is too long; the answer is kept, or, where it alone is
    longer than the cutoff, cut at its end.
    """
    end = end_of_turn(tokenizer, template)
    return [_example(row, tokenizer, template, end, cutoff) for row in rows]


def _example(row: Row, tokenizer: Any, template: Template, end: int, cutoff: int) -> Example:
    place = f"{row.where}: " if row.where else ""
    answer = tokenize_response(tokenizer, row.response)
    if not answer:
        raise SftscopeError(f"{place}the answer {safe_text(row.response, max_length=40)!r} has no tokens")
    answer = (*answer, end)[: cutoff - 1]
    try:
        whole = tokenize_prompt(tokenizer, row.prompt, template, system=row.system, history=row.history)
    except SftscopeError as error:
        raise type(error)(f"{place}{error}") from None
    prompt = whole.ids[-(cutoff - len(answer)) :]
    return Example(prompt + answer, (IGNORED,) * len(prompt) + answer)


def count_cut(rows: Sequence[Row], tokenizer: Any, template: Template, *, cutoff: int) -> tuple[int, int]:
    """How many rows `make_examples` cuts at the start of the prompt, and how many at the end of the answer.

    Only rows with more bytes than the cutoff has tokens are tokenised: no token is less than a byte.
    """
    frame = len(tokenize_prompt(tokenizer, "u", template).ids)
    prompts = answers = 0
    for row in rows:
        texts = (row.prompt, row.response, row.system, *(content for _, content in row.history))
        if sum(len(text.encode()) for text in texts) + frame * (1 + len(row.history)) < cutoff:
            continue
        answer = len(tokenize_response(tokenizer, row.response)) + 1  # with what ends it
        prompt = tokenize_prompt(tokenizer, row.prompt, template, system=row.system, history=row.history)
        answers += answer > cutoff - 1
        prompts += len(prompt.ids) > cutoff - min(answer, cutoff - 1)
    return prompts, answers


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
