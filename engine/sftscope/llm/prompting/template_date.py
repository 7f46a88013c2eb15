"""The date that a chat template writes: one for all of a run, whatever the day it is rendered on.

Llama 3.x, SmolLM3, gpt-oss and Granite write today's date into every prompt. Jinja as transformers runs it gives a
template two things besides its arguments: `strftime_now`, and random choices. The first shows the date kept here, at
midnight; the second begin with the same seed in every rendering. The environment and the time zone reach no template.
"""

from datetime import date
from typing import Any

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

_ATTRIBUTE = "sftscope_template_date"
_CLOCK = "strftime_now"  # no template reaches it but by this name, which Jinja does not let it put together


def today() -> str:
    """The date here, as `[model] template_date` has it: YYYY-MM-DD."""
    return date.today().isoformat()


def freeze_date(tokenizer: Any, day: str) -> None:
    """Give what this tokenizer renders from now on the date `day` (YYYY-MM-DD); SftscopeError where it is none."""
    try:
        date.fromisoformat(day)
    except ValueError:
        shown = safe_text(repr(day), max_length=40)
        raise SftscopeError(f"[model] template_date: expected a date such as 2026-12-01, got {shown}") from None
    setattr(tokenizer, _ATTRIBUTE, day)


def date_of(tokenizer: Any) -> str:
    """The date that this tokenizer's template sees: the one it was given, else today's."""
    return str(getattr(tokenizer, _ATTRIBUTE, "") or today())


def sees_date(tokenizer: Any, template: str) -> bool:
    """Whether what is rendered may depend on the day. template: `chat` or `plain`."""
    return template == "chat" and _CLOCK in str(tokenizer.chat_template)
