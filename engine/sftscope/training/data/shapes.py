"""What the fields of a training record mean: alpaca, prompt/completion, Dolly, sharegpt, messages, GoEmotions.

A record becomes rows of system prompt, earlier turns, prompt and answer: one row for each answer of a
conversation. A record that cannot be used is an error with place and field; nothing is skipped silently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

Turn = tuple[str, str]  # (role, content)
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


@dataclass(frozen=True)
class Row:
    """One training example as text; `history` are the turns before its prompt, `where` is its place in the data."""

    instruction: str
    input: str
    response: str
    system: str = ""
    history: tuple[Turn, ...] = ()
    where: str = field(default="", compare=False)

    @property
    def prompt(self) -> str:
        """The user's message: the instruction, a line break, the input."""
        return "\n".join(part for part in (self.instruction, self.input) if part)


@dataclass(frozen=True)
class Fields:
    """The names that a shape's fields have in the records; an empty one is not there."""

    prompt: str = ""
    query: str = ""
    response: str = ""
    system: str = SYSTEM
    history: str = ""
    messages: str = ""
    role: str = "role"
    content: str = "content"
    roles: Mapping[str, str] = field(default_factory=dict)  # a role's name in the records → ours

    @property
    def needed(self) -> tuple[str, ...]:
        """What a record must have to be of this shape."""
        return tuple(name for name in (self.prompt, self.response, self.messages) if name)


_OPENAI_ROLES = {USER: USER, ASSISTANT: ASSISTANT, SYSTEM: SYSTEM, "developer": SYSTEM}
_SHAREGPT_ROLES = {**_OPENAI_ROLES, "human": USER, "gpt": ASSISTANT, "chatgpt": ASSISTANT, "bot": ASSISTANT}
SHAPES = {
    "alpaca": Fields("instruction", "input", "output", history="history"),
    "prompt-completion": Fields("prompt", "", "completion", roles=_OPENAI_ROLES),
    "dolly": Fields("instruction", "context", "response"),
    "sharegpt": Fields(messages="conversations", role="from", content="value", roles=_SHAREGPT_ROLES),
    "messages": Fields(messages="messages", roles=_OPENAI_ROLES),
    "goemotions": Fields("text", "", "labels"),
}


def mapped_fields(formatting: str, columns: Mapping[str, str], tags: Mapping[str, str], where: str) -> Fields:
    """The fields as an entry of LLaMA-Factory's dataset_info.json names them; SftscopeError where it cannot be."""
    if tools := columns.get("tools"):
        raise SftscopeError(f"{where}: column 'tools' ({safe_text(tools)}): conversations with tools are not supported")
    match formatting:
        case "alpaca":
            names = {"prompt": "instruction", "query": "input", "response": "output", "system": "", "history": ""}
            if known := _known(columns, names, where):  # a column that is not named among others is not there
                names = {name: known.get(name, "") for name in names}
            return Fields(names["prompt"], names["query"], names["response"], names["system"], names["history"])
        case "sharegpt" | "openai":
            base = SHAPES["sharegpt" if formatting == "sharegpt" else "messages"]
            known = _known(columns, {"messages": "", "system": ""}, where)
            roles = {tags[f"{role}_tag"]: role for role in (USER, ASSISTANT, SYSTEM) if f"{role}_tag" in tags}
            return Fields(
                messages=known.get("messages", base.messages),
                system=known.get("system", ""),
                role=tags.get("role_tag", base.role),
                content=tags.get("content_tag", base.content),
                roles={**base.roles, **roles},
            )
        case other:
            shown = safe_text(repr(other), max_length=60)
            raise SftscopeError(f"{where}: field 'formatting': expected alpaca, sharegpt or openai, got {shown}")


def _known(columns: Mapping[str, str], known: Mapping[str, str], where: str) -> dict[str, str]:
    for name in columns:
        if name not in known:
            expected = ", ".join(known)
            raise SftscopeError(f"{where}: column {safe_text(repr(name))}: not supported; expected {expected}")
    return dict(columns)


def shape_of(record: Mapping[str, Any], wanted: str, where: str) -> str:
    """The shape that `record` has; `wanted` is one, or auto."""
    candidates = SHAPES if wanted == "auto" else {wanted: SHAPES[wanted]}
    for name, fields in candidates.items():
        if all(needed in record for needed in fields.needed):
            return name
    forms = " or ".join(" and ".join(map(repr, fields.needed)) for fields in candidates.values())
    known = safe_text(", ".join(map(str, record)), max_length=120)
    raise SftscopeError(f"{where}: expected the fields {forms}, got {known}")


def rows_of(record: Mapping[str, Any], fields: Fields, where: str, *, instruction: str = "") -> list[Row]:
    """The rows of a record, one for each answer in it; instruction: for a record that brings none."""
    if fields.messages:
        given = record.get(fields.messages)
        return _conversation(
            _turns(given, fields, fields.messages, where), _optional(record, fields.system, where), where
        )
    if isinstance(record.get(fields.prompt), list) and fields.roles:
        given = [
            turn for name in (fields.prompt, fields.response) for turn in _turns(record[name], fields, name, where)
        ]
        return _conversation(given, "", where)
    prompt = (_text(record, fields.prompt, where) if fields.prompt else "") or instruction
    query = _optional(record, fields.query, where)
    answer = _answer(_text(record, fields.response, where), f"{where}: field {fields.response!r}")
    if not (prompt or query).strip():
        raise SftscopeError(f"{where}: field {fields.prompt!r}: expected a prompt, got nothing")
    system, history = _optional(record, fields.system, where), _pairs(record, fields.history, where)
    earlier = [Row(history[i][1], "", history[i + 1][1], system, history[:i], where) for i in range(0, len(history), 2)]
    return [*earlier, Row(prompt, query, answer, system, history, where)]


def plain_text(value: Any, place: str) -> str:
    """`value` where it is text that a tokenizer takes; `place` names file, line and field."""
    if not isinstance(value, str):
        raise SftscopeError(f"{place}: expected text, got {safe_text(repr(value), max_length=60)}")
    if "\0" in value:
        raise SftscopeError(f"{place}: expected text, got a NUL character at {value.index(chr(0)) + 1}")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair; no tokenizer takes it
        raise SftscopeError(f"{place}: expected text, got half a surrogate pair") from None
    return value


def _text(record: Mapping[str, Any], name: str, where: str) -> str:
    if name not in record:
        known = safe_text(", ".join(map(str, record)), max_length=120)
        raise SftscopeError(f"{where}: expected the field {name!r}, got {known}")
    return plain_text(record[name], f"{where}: field {name!r}")


def _optional(record: Mapping[str, Any], name: str, where: str) -> str:
    """A field's text; empty where there is no such field, or null in it."""
    return _text(record, name, where) if name and record.get(name) else ""


def _answer(text: str, place: str) -> str:
    if not text.strip():
        raise SftscopeError(f"{place}: expected an answer, got nothing")
    return text


def _pairs(record: Mapping[str, Any], name: str, where: str) -> tuple[Turn, ...]:
    """Alpaca's history, [prompt, answer] pairs, as turns."""
    given = (record.get(name) if name else None) or []
    place = f"{where}: field {name!r}"
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise SftscopeError(f"{place}: expected [prompt, answer] pairs, got {safe_text(repr(given), max_length=60)}")
    turns: list[Turn] = []
    for pair in given:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise SftscopeError(f"{place}: expected [prompt, answer] pairs, got {safe_text(repr(pair), max_length=60)}")
        turns += [(USER, plain_text(pair[0], place)), (ASSISTANT, _answer(plain_text(pair[1], place), place))]
    return tuple(turns)


def _turns(given: Any, fields: Fields, name: str, where: str) -> list[Turn]:
    """The turns in a field of messages."""
    place = f"{where}: field {name!r}"
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise SftscopeError(f"{place}: expected a list of turns, got {safe_text(repr(given), max_length=60)}")
    turns = []
    for number, turn in enumerate(given, start=1):
        here = f"{place}, turn {number}"
        if not isinstance(turn, Mapping) or fields.role not in turn or fields.content not in turn:
            shown = safe_text(repr(turn), max_length=60)
            raise SftscopeError(f"{here}: expected {fields.role!r} and {fields.content!r}, got {shown}")
        role = fields.roles.get(turn[fields.role]) if isinstance(turn[fields.role], str) else None
        if role is None:
            shown = safe_text(repr(turn[fields.role]), max_length=60)
            raise SftscopeError(f"{here}: role {shown}: expected {', '.join(fields.roles)}")
        turns.append((role, plain_text(turn[fields.content], here)))
    return turns


def _conversation(turns: list[Turn], system: str, where: str) -> list[Row]:
    """A row for each answer: user and assistant in turn, a system prompt first or not at all."""
    first = 1
    if turns[0][0] == SYSTEM:
        system, turns, first = turns[0][1], turns[1:], 2
    for number, (role, content) in enumerate(turns):
        expected = (USER, ASSISTANT)[number % 2]
        if role != expected:
            raise SftscopeError(f"{where}: turn {number + first}: expected one of the {expected}, got {role}")
        if not content.strip():
            raise SftscopeError(f"{where}: turn {number + first}: expected text, got nothing")
    if not turns or len(turns) % 2:
        raise SftscopeError(f"{where}: expected the conversation to end with an answer of the assistant")
    return [Row(turns[i][1], "", turns[i + 1][1], system, tuple(turns[:i]), where) for i in range(0, len(turns), 2)]
