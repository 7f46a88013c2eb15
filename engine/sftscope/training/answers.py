"""What a model makes of held-out answers, row by row: their loss, and whether greedy decoding would write them.

An answer is right where each of its tokens, and the end of turn, is the most likely one after those before it: just
then greedy decoding would write this answer and nothing else. What a template has after that belongs to the loss only.
So one forward pass tells both, and nothing is generated.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from sftscope.training.data.examples import IGNORED, Example


@dataclass(frozen=True, eq=False)
class Answers:
    """Of R examples, in their order: Σ loss over the answer's tokens in nats, these tokens, whether all are right."""

    loss: NDArray[np.float64]  # (R,)
    tokens: NDArray[np.int64]  # (R,)
    right: NDArray[np.bool_]  # (R,)


def read_answers(model: Any, examples: Sequence[Example], *, batch_size: int) -> Answers:
    """What `model` makes of `examples`.

    Examples of one length go through the model together, so that nothing is padded.
    Tokens within an answer that have no label are read and not asked for.
    """
    device = model.get_input_embeddings().weight.device
    loss, right = np.zeros(len(examples)), np.zeros(len(examples), dtype=np.bool_)
    for rows, answer in _alike(examples, batch_size):
        tokens = torch.tensor([examples[row].input_ids for row in rows], device=device)
        wanted = torch.tensor([examples[row].labels[-answer:] for row in rows], device=device)
        with torch.no_grad():
            logits = model(input_ids=tokens, use_cache=False, logits_to_keep=answer + 1).logits[:, :-1]
            losses = cross_entropy(logits.float().transpose(1, 2), wanted, reduction="none", ignore_index=IGNORED)
        loss[rows] = losses.double().sum(dim=1).cpu().numpy()
        until_end = answer - torch.tensor([examples[row].after_end for row in rows], device=device)
        free = (torch.arange(answer, device=device) >= until_end[:, None]) | (wanted == IGNORED)
        right[rows] = ((logits.argmax(-1) == wanted) | free).all(dim=1).cpu().numpy()
    return Answers(loss, np.array([_asked_for(example) for example in examples], dtype=np.int64), right)


def rows_id(examples: Sequence[Example]) -> str:
    """Which rows these are, in which order: a hash of their tokens and labels."""
    content = [
        [example.input_ids, count if (count := _asked_for(example)) == _lengths(example)[1] else example.labels]
        for example in examples
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _alike(examples: Sequence[Example], batch_size: int) -> Iterator[tuple[list[int], int]]:
    """The places of at most `batch_size` examples of the same lengths, and the tokens of their answers."""
    places = sorted(range(len(examples)), key=lambda place: _lengths(examples[place]))
    for (_, answer), group in groupby(places, key=lambda place: _lengths(examples[place])):
        alike = list(group)
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size], answer


def _lengths(example: Example) -> tuple[int, int]:
    """Tokens in all, and from the first that is asked for to the end; the very first token has nothing before it."""
    before = next((place for place, label in enumerate(example.labels) if place and label != IGNORED), None)
    return len(example.input_ids), 0 if before is None else len(example.labels) - before


def _asked_for(example: Example) -> int:
    """Tokens of the answer, with its end of turn."""
    return sum(label != IGNORED for label in example.labels[1:])
