"""Answers that begin with the same token: scored by their first token they look the same."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.prompts import first_content_token, special_ids, tokenize_response

MOST_LABELS = 500
_REPEATS = 4  # data are a classification where an answer recurs so often, on average
_SHOWN = 6


def labels_of(answers: Sequence[str]) -> tuple[str, ...]:
    """The distinct answers of classification data, in alphabetic order; none where the answers hardly recur."""
    counts = Counter(answer.strip() for answer in answers)
    if len(counts) > MOST_LABELS or len(answers) < _REPEATS * len(counts):
        return ()
    return tuple(sorted(counts))


def shared_first_tokens(labels: Iterable[str], tokenizer: Any) -> dict[str, list[str]]:
    """Labels by the text of their first content token, for each token that begins two or more of them."""
    groups: dict[int, list[str]] = {}
    special = special_ids(tokenizer)
    for label in sorted(set(labels)):
        ids = tokenize_response(tokenizer, label)
        try:
            first = first_content_token(tokenizer, ids, special)
        except SftscopeError:
            continue
        groups.setdefault(ids[first], []).append(label)
    shared: dict[str, list[str]] = {}
    for token, group in groups.items():
        if len(group) > 1:
            shared.setdefault(tokenizer.decode([token]), []).extend(group)
    return shared


def collision_warning(collisions: dict[str, list[str]]) -> str:
    """One line that names the labels; empty where there are none."""
    if not collisions:
        return ""
    groups = [
        " = ".join(safe_text(label, max_length=40) for label in group[:_SHOWN])
        + (" = …" if len(group) > _SHOWN else "")
        for group in list(collisions.values())[:_SHOWN]
    ]
    more = "; …" if len(collisions) > _SHOWN else ""
    return (
        f"labels that share their first token look the same to it: {'; '.join(groups)}{more}; "
        'use [extraction] target = "all", or other names for the labels'
    )
