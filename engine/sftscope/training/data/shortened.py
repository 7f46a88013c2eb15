"""A prompt that is too long, made to fit: the user's text is shortened, the frame that a template puts around it stays.

What tokens a model expects before an answer (the first of all, the roles, the system prompt) is never cut. The oldest
exchanges of a conversation go first, whole, then the end of the user's last message.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sftscope.llm.prompting.prompts import Template, TokenizedPrompt, tokenize_prompt
from sftscope.training.data.shapes import USER, Row, Turn


@dataclass(frozen=True)
class Fitted:
    """The tokens of a prompt. cut: how many fewer they are than those of the whole prompt."""

    ids: tuple[int, ...]
    cut: int = 0


def fit_prompt(row: Row, tokenizer: Any, template: Template, *, room: int) -> Fitted:
    """The prompt of `row` in at most `room` tokens, or its frame alone where even that takes more."""

    def tokens(message: str, history: tuple[Turn, ...]) -> TokenizedPrompt:
        return tokenize_prompt(tokenizer, message, template, system=row.system, history=history)

    history, whole = row.history, tokens(row.prompt, row.history)
    found = whole
    while len(found.ids) > room and history:
        history = _without_oldest(history)
        found = tokens(row.prompt, history)
    if len(found.ids) > room:
        found = _shortened(row.prompt, found, partial(tokens, history=history), room)
    return Fitted(found.ids, len(whole.ids) - len(found.ids))


def _without_oldest(history: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns from the second one of the user on; none where there is no other."""
    later = (place for place, (role, _) in enumerate(history) if place and role == USER)
    return history[next(later, len(history)) :]


def _shortened(
    message: str, found: TokenizedPrompt, tokens: Callable[[str], TokenizedPrompt], room: int
) -> TokenizedPrompt:
    """The prompt with a beginning of `message`, the longest that fits but for what its last tokens become.

    found: the prompt with all of it. The text is cut and tokenised again: cut tokens could be half a character.
    """
    ends = [end for start, end in found.spans if 0 <= start < end <= len(message)]
    kept = len(ends)
    while len(found.ids) > room and kept > 0:
        kept = max(0, kept - (len(found.ids) - room))
        found = tokens(message[: ends[kept - 1]] if kept else "")
    return found
