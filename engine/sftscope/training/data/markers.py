"""Text in the data that means more to a model than to its reader: control tokens written out, markers of other tools.

A tokenizer reads `<|im_end|>` in a user's text as the token that ends a turn. And a marker that ends every answer
(`###eos_token###`) is trained as text, before the token that ends an answer.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from sftscope.foundation.safe_text import safe_text
from sftscope.llm.prompting.prompts import special_ids
from sftscope.training.data.shapes import Row

_LEAST_MARKER = 3  # characters: many answers end in a full stop
_SHOWN = 4


@dataclass(frozen=True)
class Markers:
    """control_rows: rows with control tokens in their text, and of which ones. shared_end: how all answers end."""

    rows: int
    control_rows: int
    control_tokens: list[str]
    shared_end: str

    def in_words(self) -> list[str]:
        """One safe line for each thing that was found."""
        lines = []
        if self.control_rows:
            shown = ", ".join(safe_text(text, max_length=40) for text in self.control_tokens[:_SHOWN])
            more = f" and {len(self.control_tokens) - _SHOWN} more" if len(self.control_tokens) > _SHOWN else ""
            lines.append(
                f"{self.control_rows:,} of {self.rows:,} rows have control tokens in their text ({shown}{more}): the "
                "tokenizer reads them as such, not as text"
            )
        if self.shared_end:
            shown = safe_text(self.shared_end[-60:], max_length=60)
            lines.append(
                f"all {self.rows:,} answers end in {shown!r}: it is trained as text; if another tool left it there, "
                "remove it from the data"
            )
        return lines


def find_markers(rows: Sequence[Row], tokenizer: Any) -> Markers:
    """What the texts of `rows` have of both: prompts, system prompts, earlier turns and answers."""
    control = _control_tokens(tokenizer)
    found: set[str] = set()
    count = 0
    for row in rows:
        texts = (row.prompt, row.system, row.response, *(content for _, content in row.history))
        here = {match for text in texts for match in control.findall(text)} if control is not None else set()
        found |= here
        count += bool(here)
    return Markers(len(rows), count, sorted(found), shared_end(row.response for row in rows))


def shared_end(answers: Iterable[str]) -> str:
    """How all of at least two different answers end: whole words, 3 characters or more; empty where they do not."""
    different = sorted({answer.rstrip() for answer in answers}, key=lambda answer: answer[::-1])
    if len(different) < 2:
        return ""
    first, last = different[0], different[-1]  # by their ends: what these two share, all share
    pairs = zip(reversed(first), reversed(last), strict=False)
    end = first[len(first) - sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) :]
    while end and end[0].isalnum() and any(answer[: -len(end)][-1:].isalnum() for answer in different):
        end = end[1:]  # within a word: positive, negative
    return end.strip() if len(end.strip()) >= _LEAST_MARKER else ""


def _control_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches the text of each special token, the longest first; None where there is none."""
    texts = {str(text) for text in tokenizer.convert_ids_to_tokens(sorted(special_ids(tokenizer)))}
    known = sorted((text for text in texts if text.strip()), key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, known))) if known else None
