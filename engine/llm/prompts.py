"""Prompts and answers as tokens, the same way for training and for scoring.

The prompt is the user's message in the model's chat template (or plain, for models without one);
the answer is tokenised on its own and appended. Positions of the message's characters among the
tokens come from the tokenizer's offsets, never from a search for text.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from jinja2.exceptions import TemplateError

from engine.errors import SftscopeError
from engine.text import safe_text

Template = Literal["chat", "plain"]
# Private-use characters: no template and no prompt of a person contains them.
_SENTINEL = "\ue000\ue001\ue002"
_PLAIN = "{message}\n"


@dataclass(frozen=True)
class TokenizedPrompt:
    """The templated prompt as L tokens.

    ids: (L,). spans: (start, end) of each token in characters of the *message*; a token of the
    template lies outside 0…len(message).
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


def resolve_template(tokenizer: Any, wanted: str) -> Template:
    """`chat` or `plain`; `auto` takes the chat template where the tokenizer has one."""
    if wanted == "chat" and not tokenizer.chat_template:
        raise SftscopeError("[model] template: this tokenizer has no chat template; use auto or plain")
    return "chat" if wanted != "plain" and tokenizer.chat_template else "plain"


def template_hash(tokenizer: Any, template: Template) -> str:
    """sha256 of the text that defines the template."""
    text = tokenizer.chat_template if template == "chat" else _PLAIN
    return hashlib.sha256(str(text).encode()).hexdigest()


def tokenize_prompt(tokenizer: Any, message: str, template: Template) -> TokenizedPrompt:
    """The prompt up to where the answer begins, with the place of each token in `message`."""
    if template == "plain":
        text, start, cut = _PLAIN.format(message=message), 0, 0
    else:
        text, start, cut = _templated(tokenizer, message)
    encoded = tokenizer(text, add_special_tokens=template == "plain", return_offsets_mapping=True)
    shift = cut - start
    spans = tuple(
        # special tokens that the tokenizer adds have the empty span (0, 0) at no place of the text
        (left + shift, right + shift) if right > left else (-1, -1)
        for left, right in encoded["offset_mapping"]
    )
    return TokenizedPrompt(tuple(encoded["input_ids"]), spans)


def tokenize_response(tokenizer: Any, response: str) -> tuple[int, ...]:
    """The answer's tokens, without the end of turn."""
    return tuple(tokenizer(response, add_special_tokens=False)["input_ids"])


def end_of_turn(tokenizer: Any, template: Template) -> int:
    """The token that ends an answer: the first special token the template puts after it, or eos."""
    if template == "chat":
        turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": _SENTINEL}]
        after = _render(tokenizer, turns, generate=False).rpartition(_SENTINEL)[2]
        special = set(tokenizer.all_special_ids)
        for token in tokenizer(after, add_special_tokens=False)["input_ids"]:
            if token in special:
                return int(token)
    if tokenizer.eos_token_id is None:
        raise SftscopeError("this tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json")
    return int(tokenizer.eos_token_id)


def first_content_token(tokenizer: Any, response_ids: tuple[int, ...]) -> int:
    """Index in `response_ids` of the first token that carries content.

    White space, special tokens and an opening think tag are skipped. SftscopeError where none is left.
    """
    special = set(tokenizer.all_special_ids)
    for index, token in enumerate(response_ids):
        text = tokenizer.decode([token]).strip()
        if text and token not in special and text != "<think>":
            return index
    raise SftscopeError("the response has no token that carries content; write an answer to score")


def single_token(tokenizer: Any, text: str, *, setting: str) -> int:
    """Id of the one token that `text` is; SftscopeError, naming `setting`, where it is none or several."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    if len(ids) == 1 and (ids[0] != unknown or text.strip() == tokenizer.unk_token):
        return int(ids[0])
    shown = safe_text(repr(text), max_length=60)
    got = "unknown to this tokenizer" if unknown in ids else f"{len(ids)} tokens"
    raise SftscopeError(f"{setting}: expected exactly one token after 'token:', but {shown} is {got}; choose another")


def _templated(tokenizer: Any, message: str) -> tuple[str, int, int]:
    """(prompt text, where the message starts in it, characters of the message cut at its start)."""
    frame = _render(tokenizer, [{"role": "user", "content": _SENTINEL}])
    before, found, after = frame.partition(_SENTINEL)
    if not found or _SENTINEL in after:
        raise SftscopeError("the chat template does not show the user's message exactly once; use template = 'plain'")
    text = _render(tokenizer, [{"role": "user", "content": message}])
    for kept, cut in ((message, 0), (message.strip(), len(message) - len(message.lstrip()))):
        if text == before + kept + after:
            return text, len(before), cut
    raise SftscopeError(
        f"the chat template changes the message {safe_text(message, max_length=60)!r}; use template = 'plain'"
    )


def _render(tokenizer: Any, messages: list[dict[str, str]], *, generate: bool = True) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))
    except (TemplateError, TypeError, ValueError) as error:
        reason = safe_text(str(error), max_length=200)
        raise SftscopeError(f"the model's chat template fails: {reason}; use template = 'plain'") from error
