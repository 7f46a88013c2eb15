"""What the fields of a training record mean: alpaca, prompt/completion, Dolly, sharegpt, messages, GoEmotions.

A record becomes rows of system prompt, earlier turns, prompt and answer: one row for each answer of a
conversation. A record that cannot be used is an error with place and field; nothing is skipped silently.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

Turn = tuple[str, str]  # (role, content)
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


@dataclass(frozen=True)
class Row:
    """One training example as text; `history` are the turns before its prompt, `where` is its place in the data.

    trained: whether its data want it trained. unread: what its data have besides, and no prompt or answer shows.
    """

    instruction: str
    input: str
    response: str
    system: str = ""
    history: tuple[Turn, ...] = ()
    where: str = field(default="", compare=False)
    trained: bool = True
    unread: tuple[str, ...] = field(default=(), compare=False)

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


# what others call a prompt and an answer, for a hint
_PROMPTS = ("instruction", "question", "prompt", "query", "input", "user", "source", "problem")
_ANSWERS = ("output", "answer", "response", "completion", "assistant", "target", "solution", "reply")
_CALLS = ("tool_calls", "function_call", "tool_call_id")  # of a turn
_ALSO_IN_PROMPT = ("tools", "functions", "images", "image", "videos", "audios", "chat_template_kwargs")  # of a record
_REASONING = ("thinking", "reasoning_content", "reasoning")  # of a turn
_TEXT_PARTS = ("text", "input_text", "output_text")


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


def named_fields(columns: Mapping[str, str]) -> Fields:
    """The fields as `[data] columns` names them; SftscopeError where that is not enough, or too much."""
    place = "[data] columns"
    if "messages" in columns:
        known = _known(columns, dict.fromkeys(("messages", "system", "role", "content")), place)
        return Fields(
            messages=known["messages"],
            system=known.get("system", ""),
            role=known.get("role", "role"),
            content=known.get("content", "content"),
            roles=_SHAREGPT_ROLES,
        )
    known = _known(columns, dict.fromkeys(("prompt", "query", "response", "system", "history")), place)
    if "response" not in known or not {"prompt", "query"} & set(known):
        raise SftscopeError(f'{place}: expected prompt = "…" and response = "…", or messages = "…"')
    prompt, query, response, system, history = (
        known.get(name, "") for name in ("prompt", "query", "response", "system", "history")
    )
    return Fields(prompt, query, response, system, history)


def _known(columns: Mapping[str, str], known: Iterable[str], where: str) -> dict[str, str]:
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
    known = safe_text(", ".join(map(str, record)), max_length=120) or "none"
    raise SftscopeError(f"{where}: expected the fields {forms}, got {known}{_remedy(record)}")


def _remedy(record: Mapping[str, Any]) -> str:
    """The end of a message on a record of no known shape: how its fields are named, where that can help."""
    texts = [str(name) for name, value in record.items() if isinstance(value, str)]
    if len(texts) == 1:
        return f"; {safe_text(repr(texts[0]), max_length=40)} alone does not say where the answer begins: split it"
    prompt = next((name for name in _PROMPTS if name in texts), "…")
    response = next((name for name in _ANSWERS if name in texts), "…")
    return f'; name them by [data] columns = {{ prompt = "{prompt}", response = "{response}" }}, or rename them'


def rows_of(record: Mapping[str, Any], fields: Fields, where: str, *, instruction: str = "") -> list[Row]:
    """The rows of a record, one for each answer in it; instruction: for a record that brings none."""
    if fields.messages:
        _refuse_more_than_text(record, where)
        given = record.get(fields.messages)
        return _conversation(
            _turns(given, fields, fields.messages, where), _optional(record, fields.system, where), where
        )
    if isinstance(record.get(fields.prompt), list) and fields.roles:
        _refuse_more_than_text(record, where)
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
    """`value` where it is text that a tokenizer takes, or a whole number; `place` names file, line and field."""
    if type(value) is int:  # one way to write it; a fraction's digits are lost when the file is read
        return str(value)
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
        known = safe_text(", ".join(map(str, record)), max_length=120) or "none"
        raise SftscopeError(f"{where}: expected the field {name!r}, got {known}")
    return plain_text(record[name], f"{where}: field {name!r}")


def _optional(record: Mapping[str, Any], name: str, where: str) -> str:
    """A field's text; empty where there is no such field, or null in it."""
    return _text(record, name, where) if name and record.get(name) is not None else ""


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


def _refuse_more_than_text(record: Mapping[str, Any], where: str) -> None:
    """Without what else a template shows, the model would be trained on other prompts than its data mean."""
    for name in _ALSO_IN_PROMPT:
        if record.get(name):
            raise SftscopeError(f"{where}: field {name!r}: not supported; expected conversations of text alone")


@dataclass(frozen=True)
class _Said:
    """A turn of a conversation; trained, unread: as of `Row`."""

    role: str
    content: str
    trained: bool
    unread: tuple[str, ...]


def _turns(given: Any, fields: Fields, name: str, where: str) -> list[_Said]:
    """The turns in a field of messages."""
    place = f"{where}: field {name!r}"
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise SftscopeError(f"{place}: expected a list of turns, got {safe_text(repr(given), max_length=60)}")
    return [_turn(turn, fields, f"{place}, turn {number}") for number, turn in enumerate(given, start=1)]


def _turn(turn: Any, fields: Fields, here: str) -> _Said:
    named = _turn_fields(turn, fields)
    if named is None:
        shown = safe_text(repr(turn), max_length=60)
        raise SftscopeError(f"{here}: expected {fields.role!r} and {fields.content!r}, got {shown}")
    role = named.roles.get(turn[named.role]) if isinstance(turn[named.role], str) else None
    if role is None:
        shown = safe_text(repr(turn[named.role]), max_length=60)
        raise SftscopeError(f"{here}: role {shown}: expected {', '.join(named.roles)}")
    for call in _CALLS:
        if turn.get(call):
            raise SftscopeError(f"{here}: field {call!r}: conversations with tools are not supported")
    unread = tuple(f"{part!r} of a turn" for part in _REASONING if turn.get(part))
    return _Said(role, _content(turn[named.content], here), role != ASSISTANT or _is_trained(turn, here), unread)


def _turn_fields(turn: Any, fields: Fields) -> Fields | None:
    """`fields`, or, of a turn that has others, those of the other common shape: data sets mix the names."""
    others = (replace(SHAPES[shape], roles={**_SHAREGPT_ROLES, **fields.roles}) for shape in ("messages", "sharegpt"))
    found = (
        named for named in (fields, *others) if isinstance(turn, Mapping) and {named.role, named.content} <= turn.keys()
    )
    return next(found, None)


def _content(value: Any, here: str) -> str:
    """The text of a turn: text, or a list of its parts."""
    if not isinstance(value, list):
        return plain_text(value, here)
    texts = []
    for number, part in enumerate(value, start=1):
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind not in _TEXT_PARTS:
            shown = safe_text(repr(kind), max_length=40)
            raise SftscopeError(f"{here}: part {number} is {shown}; expected text alone")
        texts.append(plain_text(part.get("text") if isinstance(part, Mapping) else part, f"{here}, part {number}"))
    return "".join(texts)


def _is_trained(turn: Mapping[str, Any], here: str) -> bool:
    """Whether an answer is to be trained: OpenAI's `weight`, and what other trainers call it."""
    weight = turn.get("weight")
    if weight is not None and weight not in (0, 1):
        shown = safe_text(repr(weight), max_length=40)
        raise SftscopeError(f"{here}: field 'weight': expected 0 or 1, got {shown}; parts of an answer have no weight")
    return weight != 0 and turn.get("train") is not False and turn.get("loss") is not False


def _conversation(turns: list[_Said], system: str, where: str) -> list[Row]:
    """A row for each answer: each follows a user's turn, a system prompt comes first or not at all."""
    first = 1
    if turns[0].role == SYSTEM:
        system, turns, first = turns[0].content, turns[1:], 2
    for number, turn in enumerate(turns, start=first):
        if turn.role == SYSTEM:
            raise SftscopeError(f"{where}: turn {number}: expected the system prompt first, got another turn before it")
        if not turn.content.strip():
            raise SftscopeError(f"{where}: turn {number}: expected text, got nothing")
        if turn.role == ASSISTANT and number > first and turns[number - first - 1].role == ASSISTANT:
            raise SftscopeError(f"{where}: turn {number}: expected one of the user, got assistant after assistant")
    spoken = [(turn.role, turn.content) for turn in turns]
    answers = [i for i in range(1, len(turns)) if turns[i].role == ASSISTANT]
    if not answers:
        raise SftscopeError(f"{where}: expected an answer of the assistant to a turn of the user, got none")
    return [
        Row(
            spoken[i - 1][1],
            "",
            spoken[i][1],
            system,
            tuple(spoken[: i - 1]),
            where,
            turns[i].trained,
            (*turns[i].unread, *(("turns after the last answer",) if i == answers[-1] and i + 1 < len(turns) else ())),
        )
        for i in answers
    ]
