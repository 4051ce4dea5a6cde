"""What is remembered of strangers has a bound: they choose how many names there are."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Bounded(OrderedDict[Key, Value]):
    """A dict for the event loop that keeps the `max_count` names which were remembered last."""

    def __init__(self, max_count: int) -> None:
        super().__init__()
        self._max_count = max_count

    def remember(self, key: Key, value: Value) -> None:
        """In place of what was known of `key`. What was remembered longest ago may have to go."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._max_count:
            self.popitem(last=False)
