"""transformers: its sandboxed renderer of chat templates, for a process that must not import PyTorch."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any


def rendered_template(
    template: str, messages: Sequence[Mapping[str, str]], *, generate: bool, names: Mapping[str, str], date: str
) -> str:
    """A chat template over messages. generate: with what begins an answer; names: the special tokens by their names.

    date: YYYY-MM-DD, which the template takes for today, at midnight. What it draws at random is the same every time.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    random.seed(0)  # the filter `random` and the function `lipsum` of Jinja draw from this module
    with _clock_at(datetime.fromisoformat(date)):
        rendered = render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=generate, **names
        )
    # transformers ≥ 5 gives (texts, places of the answers)
    return str(rendered[0][0] if isinstance(rendered, tuple) else rendered[0])


@contextmanager
def _clock_at(moment: datetime) -> Iterator[None]:
    """Inside, `strftime_now` of a template formats `moment`: transformers asks `datetime.now()` of its own module."""
    from transformers.utils import chat_template_utils

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return moment

    module: Any = chat_template_utils
    before, module.datetime = module.datetime, Frozen
    try:
        yield
    finally:
        module.datetime = before
