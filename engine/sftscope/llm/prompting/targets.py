"""Which tokens of a probe's answer are scored: its target.

v(x) is the sum of Eq. (1), log p/(1-p), over the target's tokens, each given those before it. A single first token is
often no more than a piece of a word, which other answers begin with too, so a label is scored by its whole first word,
and free text by its first tokens.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.inputs.probes import Probe
from sftscope.inputs.segmentation import STOP_WORDS
from sftscope.llm.prompting.prompts import first_content_token, single_token

LABEL_WORDS = 3  # an answer of more words is free text
FREE_TEXT = 8  # tokens of a longer answer that are scored
_SHOWN = 3  # probes, or answers, that a warning names


@dataclass(frozen=True)
class Target:
    """The scored tokens: ids (m,), and how many tokens of the answer come before them."""

    ids: tuple[int, ...]
    start: int


def target_in(response: str, wanted: str, tokenizer: Any, special: set[int] | None = None) -> Target:
    """The target of an answer.

    wanted: `first`, the first content token; `word`, the tokens of the first word; `first-k:K`, the first K tokens;
    `all`, all of them; `span:TEXT`, those of TEXT within the answer; `token:TEXT`, that one token instead of the first;
    `auto`, `word` for an answer of at most three words, else `first-k:8`. special: as of `first_content_token`.
    SftscopeError where there is none.
    """
    encoded = tokenizer(response, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = tuple(encoded["input_ids"]), encoded["offset_mapping"]
    first = first_content_token(tokenizer, ids, special)
    kind, _, value = wanted.partition(":")
    match kind:
        case "all":
            return Target(ids[first:], first)
        case "first-k":
            return Target(ids[first : first + int(value)], first)
        case "token":
            return Target((single_token(tokenizer, value, setting="[extraction] target"),), first)
        case "span":
            return _overlapping(ids, spans, _place_of(value, response))
        case "word":
            return _first_word(response, ids, spans, first)
        case "auto":
            words = [span for span in _words(response) if span[1] > spans[first][0]]
            word = _first_word(response, ids, spans, first)
            is_label = len(words) <= LABEL_WORDS and len(word.ids) <= FREE_TEXT
            return word if is_label else Target(ids[first : first + FREE_TEXT], first)
    return Target(ids[first : first + 1], first)


def target_texts(probes: Sequence[Probe], tokenizer: Any, wanted: str) -> list[str]:
    """The target of each probe's answer as text."""
    return [tokenizer.decode(list(target_in(probe.response, wanted, tokenizer).ids)) for probe in probes]


def target_warnings(probes: Sequence[Probe], texts: Sequence[str]) -> list[str]:
    """What to know before trusting the targets, in safe lines. texts: what of each probe's answer is scored.

    A target that is a piece of a word, a word that says little, or the same for different answers.
    """
    pairs = list(zip(probes, texts, strict=True))
    pieces = [f"{text!r} of {probe.response!r}" for probe, text in pairs if _is_piece(probe.response, text)]
    little = [repr(text.strip()) for _, text in pairs if text.strip().lower() in STOP_WORDS]
    shared: dict[str, set[str]] = {}
    for probe, text in pairs:
        shared.setdefault(text.strip(), set()).add(probe.response.strip())
    same = [
        f"{text!r} of {', '.join(map(repr, sorted(answers)[:_SHOWN]))}"
        for text, answers in shared.items()
        if len(answers) > 1
    ]
    advice = 'choose another [extraction] target, such as "word" or "first-k:8"'
    return [
        *_warning("scored by a piece of a word", pieces, advice),
        *_warning("scored by a word that says little", little, advice),
        *_warning("different answers that have the same target, and so look the same", same, advice),
    ]


def _warning(what: str, cases: Iterable[str], advice: str) -> list[str]:
    named = list(dict.fromkeys(cases))
    if not named:
        return []
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    shown = "; ".join(safe_text(case, max_length=80) for case in named[:_SHOWN])
    return [f"{what}: {shown}{more}; {advice}"]


def _is_piece(response: str, text: str) -> bool:
    """Whether the target's text ends, or begins, within a word of the answer."""
    wanted = text.strip()
    start = response.find(wanted) if wanted else -1
    if start < 0:
        return False
    end = start + len(wanted)
    return any(left < edge < right for left, right in _words(response) for edge in (start, end))


def _words(text: str) -> list[tuple[int, int]]:
    """What stands between white space, without punctuation at either end: the same on every machine."""
    return [match.span() for match in re.finditer(r"\w(?:\S*\w)?", text)]


def _first_word(response: str, ids: tuple[int, ...], spans: Sequence[tuple[int, int]], first: int) -> Target:
    """The first word that ends after the first content token begins; that token where there is no word."""
    for start, end in _words(response):
        if end > spans[first][0]:
            found = _overlapping(ids, spans, (start, end))
            ids_from = max(found.start, first)
            return Target(found.ids[ids_from - found.start :], ids_from)
    return Target(ids[first : first + 1], first)


def _overlapping(ids: tuple[int, ...], spans: Sequence[tuple[int, int]], span: tuple[int, int]) -> Target:
    within = [place for place, (left, right) in enumerate(spans) if left < span[1] and span[0] < right]
    return Target(ids[within[0] : within[-1] + 1], within[0])


def _place_of(text: str, response: str) -> tuple[int, int]:
    start = response.find(text)
    if start < 0 or not text.strip():
        shown, inside = safe_text(repr(text), max_length=60), safe_text(repr(response), max_length=60)
        raise SftscopeError(f"[extraction] target: expected a part of the answer {inside} after 'span:', got {shown}")
    return start, start + len(text)
