"""Prompts and answers as tokens, the same way for training and for scoring.

The prompt is the user's message in the model's chat template (or plain, for models without one);
the answer is tokenised on its own and appended. A think tag that a template opens for the answer is left to
the answer, which has one or not. A system prompt that a template has no place for begins the first message of
the user. Positions of the message's characters among the
tokens come from the tokenizer's offsets, never from a search for text.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sftscope.foundation.errors import NotReadError, SftscopeError
from sftscope.foundation.safe_text import safe_text
from sftscope.llm.prompting.template_sandbox import render

Template = Literal["chat", "plain"]
# Private-use characters: no template and no prompt of a person contains them.
_SENTINEL = "\ue000\ue001\ue002"
_PLAIN = "{message}\n"
_THINK = "<think>"
Turn = tuple[str, str]  # (role, content)


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


def set_template(tokenizer: Any, template: str, system: str) -> None:
    """Give the tokenizer another chat template, a system prompt for conversations that bring none, or both.

    template: Jinja; either may be empty. The system prompt becomes part of the template, so that it is in its hash.
    """
    if template:
        tokenizer.chat_template = template
    if not system:
        return
    if not tokenizer.chat_template:
        raise SftscopeError("[model] system: this tokenizer has no chat template; give one by [model] template_file")
    text, first = json.dumps(system, ensure_ascii=False), "messages[0]['role'] != 'system'"
    if takes_system(tokenizer):
        change = f"[{{'role': 'system', 'content': {text}}}] + messages"
    else:
        user = f"{{'role': messages[0]['role'], 'content': {text} + '\\n\\n' + messages[0]['content']}}"
        change = f"[{user}] + messages[1:]"
    tokenizer.chat_template = f"{{% if {first} %}}{{% set messages = {change} %}}{{% endif %}}{tokenizer.chat_template}"


def takes_system(tokenizer: Any) -> bool:
    """Whether the chat template has a place for a system prompt; NotReadError where that is not known now."""
    turns = [{"role": "system", "content": _SENTINEL}, {"role": "user", "content": "u"}]
    try:
        return _SENTINEL in render(tokenizer, turns, generate=True)
    except NotReadError:
        raise
    except SftscopeError:
        return False


def tokenize_prompt(
    tokenizer: Any, message: str, template: Template, *, system: str = "", history: Sequence[Turn] = ()
) -> TokenizedPrompt:
    """The prompt up to where the answer begins, with the place of each token in `message`, its last turn.

    history: the turns before it, the user's and the assistant's.
    """
    if template == "plain":
        before = "".join(_PLAIN.format(message=part) for part in (system, *(turn[1] for turn in history)) if part)
        text, start, cut = before + _PLAIN.format(message=message), len(before), 0
    else:
        text, start, cut = _templated(tokenizer, message, system, history)
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


@dataclass(frozen=True)
class Closing:
    """What comes after an answer. ids: tokens. after_end: how many of them come after the one that ends the answer."""

    ids: tuple[int, ...]
    after_end: int


def end_of_turn(tokenizer: Any, template: Template) -> int:
    """The token that ends an answer: the first special token the template puts after it, or eos."""
    return closing_tokens(tokenizer, template, whole=False).ids[0]


def closing_tokens(tokenizer: Any, template: Template, *, whole: bool) -> Closing:
    """The token that ends an answer (see `end_of_turn`), or, if `whole`, all that the template puts after one.

    Where that has no token that ends an answer, as without a template, eos comes after it.
    """
    after: tuple[int, ...] = ()
    if template == "chat":
        turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": _SENTINEL}]
        text = render(tokenizer, turns, generate=False).rpartition(_SENTINEL)[2]
        after = tuple(map(int, tokenizer(text, add_special_tokens=False)["input_ids"]))
        special = special_ids(tokenizer)
        for place, token in enumerate(after):
            if token in special:
                return Closing(after, len(after) - 1 - place) if whole else Closing((token,), 0)
    if tokenizer.eos_token_id is None:
        raise SftscopeError("this tokenizer has no end-of-sequence token; set eos_token in its tokenizer_config.json")
    eos = int(tokenizer.eos_token_id)
    return Closing((*after, eos) if whole else (eos,), 0)


def special_ids(tokenizer: Any) -> set[int]:
    """Tokens that carry no text: those the tokenizer has a name for, and added ones marked as special."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {*tokenizer.all_special_ids, *(token for token, entry in added.items() if entry.special)}


def first_content_token(tokenizer: Any, response_ids: tuple[int, ...], special: set[int] | None = None) -> int:
    """Index in `response_ids` of the first token that carries content.

    White space, special tokens and an opening think tag are skipped. special: `special_ids`, where the caller has
    them: they take a while to gather. SftscopeError where no token is left.
    """
    special = special_ids(tokenizer) if special is None else special
    start = _after_think_tag(tokenizer, response_ids)
    for index, token in enumerate(response_ids[start:], start=start):
        if tokenizer.decode([token]).strip() and token not in special:
            return index
    raise SftscopeError("the response has no token that carries content; write an answer to score")


def _after_think_tag(tokenizer: Any, ids: tuple[int, ...]) -> int:
    """How many tokens an opening think tag takes: one, or several where the tokenizer does not know it."""
    if not tokenizer.decode(list(ids[:16])).lstrip().startswith(_THINK):
        return 0
    return next(n for n in range(1, len(ids) + 1) if tokenizer.decode(list(ids[:n])).lstrip().startswith(_THINK))


def single_token(tokenizer: Any, text: str, *, setting: str) -> int:
    """Id of the one token that `text` is; SftscopeError, naming `setting`, where it is none or several."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    unknown = tokenizer.unk_token_id
    if len(ids) == 1 and (ids[0] != unknown or text.strip() == tokenizer.unk_token):
        return int(ids[0])
    shown = safe_text(repr(text), max_length=60)
    got = "unknown to this tokenizer" if unknown in ids else f"{len(ids)} tokens"
    raise SftscopeError(f"{setting}: expected exactly one token after 'token:', but {shown} is {got}; choose another")


def _templated(tokenizer: Any, message: str, system: str, history: Sequence[Turn]) -> tuple[str, int, int]:
    """(prompt text, where the message starts in it, characters of the message cut at its start)."""
    frame = render(tokenizer, _turns(tokenizer, _SENTINEL, system, history), generate=True)
    before, found, after = frame.partition(_SENTINEL)
    if not found or _SENTINEL in after:
        raise SftscopeError("the chat template does not show the user's message exactly once; use template = 'plain'")
    text = render(tokenizer, _turns(tokenizer, message, system, history), generate=True)
    stripped = len(message) - len(message.lstrip())
    for kept, cut in ((message, 0), (message.strip(), stripped), (message.rstrip(), 0)):
        if text == before + kept + after:
            opened = after.rstrip().endswith(_THINK)
            end = after.rstrip().removesuffix(_THINK) if opened else after
            return before + kept + end, len(before), cut
    raise SftscopeError(
        f"the chat template changes the message {safe_text(message, max_length=60)!r}; use template = 'plain'"
    )


def _turns(tokenizer: Any, message: str, system: str, history: Sequence[Turn]) -> list[dict[str, str]]:
    turns = [*history, ("user", message)]
    if system and takes_system(tokenizer):
        turns = [("system", system), *turns]
    elif system:
        first = next(i for i, (role, _) in enumerate(turns) if role == "user")  # an assistant may begin
        turns[first] = ("user", f"{system}\n\n{turns[first][1]}")
    return [{"role": role, "content": content} for role, content in turns]
