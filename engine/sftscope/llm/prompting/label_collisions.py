"""Answers with the same target: they look the same to what is scored."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.prompting.prompts import special_ids
from sftscope.llm.prompting.targets import target_in

MOST_LABELS = 500
_REPEATS = 4  # data are a classification where an answer recurs so often, on average
_SHOWN = 6


def labels_of(answers: Sequence[str]) -> tuple[str, ...]:
    """The distinct answers of classification data, in alphabetic order; none where the answers hardly recur."""
    counts = Counter(answer.strip() for answer in answers)
    if len(counts) > MOST_LABELS or len(answers) < _REPEATS * len(counts):
        return ()
    return tuple(sorted(counts))


def shared_targets(labels: Iterable[str], wanted: str, tokenizer: Any) -> dict[str, list[str]]:
    """Labels by the text of their target (see `target_in`), for each that is the target of two or more of them."""
    groups: dict[tuple[int, ...], list[str]] = {}
    special = special_ids(tokenizer)
    for label in sorted(set(labels)):
        try:
            groups.setdefault(target_in(label, wanted, tokenizer, special).ids, []).append(label)
        except SftscopeError:
            continue
    shared: dict[str, list[str]] = {}
    for ids, group in groups.items():
        if len(group) > 1:
            shared.setdefault(tokenizer.decode(list(ids)), []).extend(group)
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
        f"labels that share what is scored of them look the same: {'; '.join(groups)}{more}; "
        'use [extraction] target = "word" or "all", or other names for the labels'
    )
