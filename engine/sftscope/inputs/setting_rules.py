"""What a settings class says of its fields: what is allowed, in words, for error messages, lists and comments.

The classes are msgspec Structs; this module knows the forms of their types, not which settings there are.
"""

import difflib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import msgspec
from msgspec import inspect

from sftscope.foundation.errors import SftscopeError
from sftscope.foundation.safe_text import safe_text

LARGEST = sys.float_info.max  # as a bound: finite
_SHOWN = 80  # characters of a value in a message
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


@dataclass(frozen=True)
class Setting:
    """One field of a table. default: None where a value must be given. path: "file", "or-name", "data" or ""."""

    table: str
    name: str
    type: Any
    default: Any
    help: str
    path: str
    allowed: str

    def check(self, value: Any, place: str) -> None:
        """SftscopeError with `place`, what is allowed and what was given, where `value` does not fit."""
        if value == "" and self.default is None:
            raise SftscopeError(f"{place}: expected {self.help}, got nothing")
        try:
            msgspec.convert(value, self.type)
        except msgspec.ValidationError as error:
            if item := re.search(r"`\$\[(\d+)]`$", str(error)):
                value = value[int(item[1])]
            raise SftscopeError(f"{place}: expected {self.allowed}, got {shown(repr(value))}") from None
        if isinstance(value, str) and not _is_unicode(value):
            raise SftscopeError(f"{place}: expected text in UTF-8, got {shown(repr(value))}")


@cache
def settings_of(cls: type[msgspec.Struct]) -> dict[str, dict[str, Setting]]:
    """The settings of a Struct of tables: by table, then by name, in the order of the classes."""
    return {
        table.name: {spec.name: _setting(table.name, spec) for spec in msgspec.structs.fields(table.type)}
        for table in msgspec.structs.fields(cls)
    }


def _setting(table: str, spec: msgspec.structs.FieldInfo) -> Setting:
    described = inspect.type_info(spec.type)
    if not isinstance(described, inspect.Metadata):
        raise TypeError(f"{table}.{spec.name} has no help")
    form, extra, help_ = described.type, described.extra or {}, (described.extra_json_schema or {})["description"]
    choices = get_args(get_args(spec.type)[0]) if isinstance(form, inspect.LiteralType) else ()  # `form` sorts them
    allowed = extra.get("form") or (f"one of {', '.join(choices)}" if choices else _allowed(form))
    return Setting(table, spec.name, spec.type, default_of(spec), help_, extra.get("path", ""), allowed)


def default_of(spec: msgspec.structs.FieldInfo) -> Any:
    """The default of a field; None where a value must be given."""
    if spec.default is not msgspec.NODEFAULT:
        return spec.default
    return None if spec.default_factory is msgspec.NODEFAULT else spec.default_factory()


def _allowed(form: inspect.Type) -> str:
    match form:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"a whole number{_bounds(form)}"
        case inspect.FloatType():
            return f"a finite number{_bounds(form)}"
        case inspect.VarTupleType():
            return f"a list, such as [0, 1, 2]; each entry {_allowed(form.item_type)}"
        case inspect.StrType():
            return "text in quotes"
        case inspect.DictType():
            return f'a table, such as {{ prompt = "question" }}; each entry {_allowed(form.value_type)}'
        case _:
            raise TypeError(f"settings have no words for {form}")


def _bounds(form: inspect.IntType | inspect.FloatType) -> str:
    bounds = [(words, getattr(form, name)) for name, words in _BOUNDS.items()]
    return "".join(f", {words} {bound:.15g}" for words, bound in bounds if bound is not None and bound < LARGEST)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a command line that are not UTF-8
        return False
    return True


def hint(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the known one that was meant, or all."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def shown(text: str, max_length: int = _SHOWN) -> str:
    """Text of a config or the command line, fit for an error message."""
    return safe_text(text, max_length=max_length)


def line_of(text: str, table: str, key: str | None) -> str:
    """`, line N` of a table or key in TOML text, or nothing where a plain search does not find it."""
    current = None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            current = header[1].strip("\"'")
            if key is None and current == table:
                return f", line {number}"
        elif key is not None and current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return f", line {number}"
    return ""
