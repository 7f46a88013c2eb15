"""Chat templates are rendered in a process of their own: a template is a program that came with somebody's model.

transformers' sandbox limits what a template reaches, not how long it takes nor how much memory. The child renders with
the same function of transformers, and has a deadline and a limit on memory; a template that once took too long is not
tried again.
"""

import json
import sys
from collections.abc import Sequence
from subprocess import Popen
from typing import IO, Any

from sftscope.child import Child, ChildEndedError, confine, limit_memory
from sftscope.errors import SftscopeError
from sftscope.text import safe_text

SECONDS = 10.0  # of a rendering
STARTING = 120.0  # seconds for the child to import transformers: one, or many from a cold network disk
MEMORY = 2**29  # bytes beyond what the child had when it started
_ADVICE = "use template = 'plain'"


def render(tokenizer: Any, messages: Sequence[dict[str, str]], *, generate: bool) -> str:
    """`tokenizer.apply_chat_template` as text; SftscopeError where the template fails, or does not end in time.

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
    }
    _start()
    try:
        return _RENDERER.ask(lambda process: _exchange(process, question), SECONDS, passes=SftscopeError)
    except ChildEndedError as error:
        _LATE[template] = f"it {error}"
        raise _failed(_LATE[template]) from error


_RENDERER = Child("sftscope.llm.rendering", "chat templates are rendered")
_LATE: dict[str, str] = {}


_HARMLESS: dict[str, Any] = {
    "template": "",
    "messages": [{"role": "user", "content": ""}],
    "generate": False,
    "names": {},
}


def _start() -> None:
    """Have a child that has imported what it needs."""
    if _RENDERER.is_running:
        return
    try:
        _RENDERER.ask(lambda process: _exchange(process, _HARMLESS), STARTING, passes=SftscopeError)
    except ChildEndedError as error:
        raise SftscopeError(
            f"chat templates are rendered in a process of their own, and {error} as it started; free memory, try again"
        ) from error


def _failed(reason: str) -> SftscopeError:
    return SftscopeError(f"the model's chat template fails: {safe_text(reason, max_length=200)}; {_ADVICE}")


def _exchange(process: Popen[bytes], question: dict[str, Any]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    _send(process.stdin, question)
    answer = _receive(process.stdout)
    if "error" in answer:
        raise _failed(str(answer["error"]))
    return str(answer["text"])


def _send(pipe: IO[bytes], content: dict[str, Any]) -> None:
    pipe.write(json.dumps(content, default=str).encode() + b"\n")
    pipe.flush()


def _receive(pipe: IO[bytes]) -> dict[str, Any]:
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("expected a JSON object")
    return content


# In the child.


def serve() -> None:
    """Answer questions until the parent closes the pipe."""
    _rendered(**_HARMLESS)  # imports what rendering needs, while the memory is not limited yet
    if base := confine():
        limit_memory(base + MEMORY)
    while True:
        try:
            question = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = {"text": _rendered(**question)}
        except Exception as error:  # whatever a stranger's template raises is its fault, and one line
            answer = {"error": str(error) or type(error).__name__}
        _send(sys.stdout.buffer, answer)


def _rendered(template: str, messages: list[dict[str, str]], generate: bool, names: dict[str, str]) -> str:
    from sftscope.compat.templates import rendered_template

    return rendered_template(template, messages, generate=generate, names=names)
