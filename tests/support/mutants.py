"""Files of others with one value replaced: each leaf and each subtree, by values of every other kind."""

import copy
from collections.abc import Iterator
from typing import Any

DEEP: Any = "end"
for _ in range(300):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2.5,
    10**17,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "\x1b]52;c;AAAA\x07\u202e",
    "x" * 20_000,
    "\ud800",
    [],
    [[1]],
    [{"a": 1}],
    {},
    {"step": {"a": [None]}},
    DEEP,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in `value`, itself included."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:2]):  # the others are alike
            yield from places(item, (*path, index))


def mutants(value: Any) -> Iterator[tuple[str, Any]]:
    """`value` with one place replaced or, where it is in a table, left out; each with a name."""
    for path in places(value):
        for new in VALUES:
            yield f"{path}: {repr(new)[:40]}", _replaced(value, path, new)
        if path and isinstance(path[-1], str):
            yield f"{path}: left out", _without(value, path)


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    made = copy.copy(value)
    made[path[0]] = _replaced(value[path[0]], path[1:], new)
    return made


def _without(value: Any, path: tuple[Any, ...]) -> Any:
    made = copy.copy(value)
    if len(path) == 1:
        del made[path[0]]
    else:
        made[path[0]] = _without(value[path[0]], path[1:])
    return made
