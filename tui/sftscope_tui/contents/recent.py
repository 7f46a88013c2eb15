"""What was derived lately, up to a number of things."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Recent:
    """A mapping that forgets what was not used for longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """The value of `key`, None where there is none."""
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def items(self) -> list[tuple[Any, Any]]:
        """All that is kept."""
        return list(self._items.items())

    def put(self, key: Hashable, value: Any) -> None:
        """Keep `value`."""
        self._items[key] = value
        self._items.move_to_end(key)
        while len(self._items) > self._size:
            self._items.popitem(last=False)

    def made(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of `key`, made now where it is not kept."""
        if (value := self.get(key)) is None:
            value = make()
            self.put(key, value)
        return value
