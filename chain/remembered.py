"""What was computed before for the same bytes or text, where they are small: large ones could fill the memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

_Data = TypeVar("_Data", bytes, str)
_Result = TypeVar("_Result")


def remembered(
    *, length_max: int, count_max: int
) -> Callable[[Callable[[_Data], _Result]], Callable[[_Data], _Result]]:
    """Of a pure function of one argument, the last `count_max` results for bytes or texts no longer than `length_max`.

    What it returns is shared, and must not be changed. Errors are not remembered.
    """

    def remembering(function: Callable[[_Data], _Result]) -> Callable[[_Data], _Result]:
        known = lru_cache(count_max)(function)

        @wraps(function)
        def looked_up(data: _Data) -> _Result:
            return known(data) if len(data) <= length_max else function(data)

        return looked_up

    return remembering
