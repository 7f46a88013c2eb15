"""Chat templates are rendered in a process of their own: a template is a program that came with somebody's model.

transformers' sandbox limits what a template reaches, not how much it computes nor how much memory it takes. The child
renders with the same function of transformers, and has a limit on both; a template that needed more computing, at the
second try too, is not tried again. What the machine does to the child is never called the template's fault.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from subprocess import Popen
from typing import IO, Any

from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.foundation.sandbox import (
    Child,
    ChildEndedError,
    Ending,
    computing,
    confine,
    is_machine_short,
    limit_memory,
    ready,
    receive,
)
from sftscope.llm.prompting.template_date import date_of

SECONDS, GENEROUS = 10.0, 3.0  # of computing for a rendering; how many times as much at the second try
MEMORY = 2**29  # bytes beyond what the child had when it started
_ADVICE = "use template = 'plain'"


def render(tokenizer: Any, messages: Sequence[dict[str, str]], *, generate: bool) -> str:
    """`tokenizer.apply_chat_template` as text, on the day of `date_of`.

    SftscopeError where the template fails, or computes for too long.

    NotReadError where it could not be rendered now, by the machine's doing.
    generate: with what begins an answer (`add_generation_prompt`).
    """
    try:
        template = str(tokenizer.get_chat_template())
    except ValueError as error:
        raise _failed(str(error)) from error
    if template in _LATE:
        raise _failed(_LATE[template])
    question = {
        "template": template,
        "messages": list(messages),
        "generate": generate,
        "names": dict(tokenizer.special_tokens_map),
        "date": date_of(tokenizer),
    }
    try:
        return _RENDERER.ask(
            lambda process, seconds: _exchange(process, {**question, "seconds": seconds}),
            (SECONDS, GENEROUS * SECONDS),
            passes=SftscopeError,
        )
    except ChildEndedError as error:
        if error.how in (Ending.MACHINE, Ending.NOT_STARTED):
            raise NotReadError(
                f"chat templates are rendered in a process of their own, which {error}; run the same command again"
            ) from error
        _LATE[template] = f"it {error}"
        raise _failed(_LATE[template]) from error


def start_early(template: str) -> None:
    """Let the child import what it needs while this process imports PyTorch; not where no chat template is wanted."""
    if template != "plain":
        with contextlib.suppress(ChildEndedError):  # said when it is needed
            _RENDERER.start()


_RENDERER = Child("sftscope.llm.prompting.template_sandbox", "chat templates are rendered")
_LATE: dict[str, str] = {}


_HARMLESS: dict[str, Any] = {
    "template": "",
    "messages": [{"role": "user", "content": ""}],
    "generate": False,
    "names": {},
    "date": "2000-01-01",
}


def _failed(reason: str) -> SftscopeError:
    return SftscopeError(f"the model's chat template fails: {safe_text(reason, max_length=200)}; {_ADVICE}")


def _exchange(process: Popen[bytes], question: dict[str, Any]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    _send(process.stdin, question)
    answer = receive(process.stdout)
    if "short" in answer:
        raise NotReadError("no memory is left to render the model's chat template; free some and try again")
    if "error" in answer:
        raise _failed(str(answer["error"]))
    return str(answer["text"])


def _send(pipe: IO[bytes], content: dict[str, Any]) -> None:
    pipe.write(json.dumps(content, default=str).encode() + b"\n")
    pipe.flush()


# In the child.


def serve() -> None:
    """Answer questions until the parent closes the pipe."""
    os.environ["TZ"] = "UTC"  # `%s` of a date depends on it
    time.tzset()
    _rendered(**_HARMLESS)  # imports what rendering needs, while the memory is not limited yet
    base = confine()
    ready()
    while True:
        try:
            question = receive(sys.stdin.buffer)
        except EOFError:
            return
        seconds = question.pop("seconds")
        if base:
            limit_memory(base + MEMORY)
        answer = _answer(question, seconds)
        if answer.get("error") == MemoryError.__name__ and is_machine_short(MEMORY):
            answer = {"short": True}
        _send(sys.stdout.buffer, answer)


def _answer(question: dict[str, Any], seconds: float) -> dict[str, Any]:
    try:
        with computing(seconds):
            return {"text": _rendered(**question)}
    except Exception as error:  # whatever a stranger's template raises is its fault, and one line
        return {"error": type(error).__name__ if isinstance(error, MemoryError) else str(error) or type(error).__name__}


def _rendered(template: str, messages: list[dict[str, str]], generate: bool, names: dict[str, str], date: str) -> str:
    from sftscope.compat.templates import rendered_template

    return rendered_template(template, messages, generate=generate, names=names, date=date)
