"""Array literals for the hot path: a whole column as one text parameter.

psycopg's own list dumper inspects every element and costs several microseconds a column; here the kinds are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any


def array_literal(kind: str, column: Iterable[Any]) -> str:
    """`{…}` for a column of PostgreSQL type `kind`; None becomes NULL. Raises KeyError for a kind it does not know."""
    element = _ELEMENTS[kind]
    return "{" + ",".join(["NULL" if value is None else element(value) for value in column]) + "}"


def optional_array_literal(kind: str, column: tuple[Any, ...]) -> str | None:
    """The same, but no array at all for a column of nothing: NULL is read without being walked through."""
    if column[0] is None and column.count(None) == len(column):
        return None
    return array_literal(kind, column)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache(64)
def _time(value: datetime) -> str:
    """Of a price, mostly: many rows have the same."""
    return f'"{value.isoformat()}"'


_ELEMENTS: dict[str, Callable[[Any], str]] = {
    "uuid": lambda value: f"{value.int:032x}",
    "bigint": str,
    "integer": str,
    "numeric": str,
    "boolean": lambda value: "t" if value else "f",
    "bytea": lambda value: '"\\\\x' + value.hex() + '"',
    "timestamptz": _time,
    "text": _quoted,
}
