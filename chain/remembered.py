"""What was computed before for the same bytes or text, where they are small: large ones could fill the memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

_Data = TypeVar("_Data", bytes, str)
_Result = TypeVar("_Result")


def remembered(*, size_max: int, count_max: int) -> Callable[[Callable[[_Data], _Result]], Callable[[_Data], _Result]]:
    """Of a pure function of one argument, the last `count_max` results for bytes or texts no longer than `size_max`.

    What it returns is shared, and must not be changed. Errors are not remembered.
    """

    def remembering(function: Callable[[_Data], _Result]) -> Callable[[_Data], _Result]:
        known = lru_cache(count_max)(function)

        @wraps(function)
        def looked_up(data: _Data) -> _Result:
            return known(data) if len(data) <= size_max else function(data)

        return looked_up

    return remembering


def base64_chars(bytes_count: int) -> int:
    """How many letters the base64 of so many bytes has, in one line and with padding."""
    return (bytes_count + 2) // 3 * 4
