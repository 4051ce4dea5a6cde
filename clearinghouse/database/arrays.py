"""Array literals for the hot path: a whole column as one text parameter.

psycopg's own list dumper inspects every element and costs several microseconds a column; here the kinds are known, and
each has its own loop: a function called for each element would cost as much as what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

_NULL: Final = "NULL"


def array_literal(kind: str, column: Iterable[Any]) -> str:
    """`{…}` for a column of PostgreSQL type `kind`; None becomes NULL. Raises KeyError for a kind it does not know."""
    return "{" + ",".join(_ELEMENTS[kind](column)) + "}"


def optional_array_literal(kind: str, column: tuple[Any, ...]) -> str | None:
    """The same, but no array at all for a column of nothing: NULL is read without being walked through."""
    if column[0] is None and column.count(None) == len(column):
        return None
    return array_literal(kind, column)


def _uuids(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else "%032x" % value.int for value in column]  # noqa: UP031 - the quickest


def _numbers(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else f"{value!s}" for value in column]


def _booleans(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else "t" if value else "f" for value in column]


def _bytes(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else f'"\\\\x{value.hex()}"' for value in column]


def _times(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else _time(value) for value in column]


def _texts(column: Iterable[Any]) -> list[str]:
    """Often all rows say the same."""
    values = tuple(column)
    if values and values.count(values[0]) == len(values):
        return [_text(values[0])] * len(values)
    return [_text(value) for value in values]


def _text(value: str | None) -> str:
    if value is None:
        return _NULL
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache(64)
def _time(value: datetime) -> str:
    """Of a price, mostly: many rows have the same."""
    return f'"{value.isoformat()}"'


_ELEMENTS: Final[dict[str, Callable[[Iterable[Any]], list[str]]]] = {
    "uuid": _uuids,
    "bigint": _numbers,
    "integer": _numbers,
    "numeric": _numbers,
    "boolean": _booleans,
    "bytea": _bytes,
    "timestamptz": _times,
    "text": _texts,
}
