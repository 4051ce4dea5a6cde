"""Parameters for the hot path: a whole column as one array, or each value by itself where there is one row.

psycopg's own list dumper inspects every element and costs several microseconds a column; here the kinds are known, and
each has its own loop: a function called for each element would cost as much as what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from struct import Struct
from typing import Any, Final
from uuid import UUID

from psycopg import adapters

_NULL: Final = "NULL"


def array_literal(kind: str, column: Iterable[Any]) -> str:
    """`{…}` for a column of PostgreSQL type `kind`; None becomes NULL. Raises KeyError for a kind it does not know."""
    return "{" + ",".join(_ELEMENTS[kind](column)) + "}"


def array_parameter(kind: str, column: tuple[Any, ...]) -> str | bytes | None:
    """The same column for database.statements, in PostgreSQL's binary format where that is less work for both sides: as
    a text, bytes are twice as long and are read letter by letter. A column of nothing is no array at all: NULL is read
    without being walked through. KeyError as above.
    """
    if column[0] is None and column.count(None) == len(column):
        return None
    if (packed := _PACKED.get(kind)) is None:
        return array_literal(kind, column)
    oid, pack = packed
    return b"".join([_HEAD.pack(1, 1, oid, len(column), 1), *pack(column)])


def value_parameter(kind: str, value: Any) -> str | bytes | None:
    """A single value for database.statements: it needs no array around it and no quotes. KeyError as above."""
    as_parameter = _VALUES[kind]
    return None if value is None else as_parameter(value)


def _uuids(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else "%032x" % value.int for value in column]  # noqa: UP031 - the quickest


def _numbers(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else f"{value!s}" for value in column]


def _booleans(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else _boolean(value) for value in column]


def _boolean(value: bool) -> str:
    return "t" if value else "f"


def _bytes(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else f'"\\\\x{value.hex()}"' for value in column]


def _times(column: Iterable[Any]) -> list[str]:
    return [_NULL if value is None else f'"{_time(value)}"' for value in column]


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
    return value.isoformat()


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

#: Of an array in binary: dimensions; whether it may have NULLs; its elements' type, how many they are, and the first
#: one's index. Each element comes after its length in bytes.
_HEAD: Final = Struct("!iiIii")
_NO_VALUE: Final = (-1).to_bytes(4, signed=True)
_UUID_LENGTH: Final = (16).to_bytes(4)


def _packed_uuids(column: Iterable[Any]) -> list[bytes]:
    return [_NO_VALUE if value is None else _UUID_LENGTH + value.int.to_bytes(16) for value in column]


def _packed_uuid(value: UUID) -> bytes:
    return value.int.to_bytes(16)


def _packed_bytes(column: Iterable[Any]) -> list[bytes]:
    return [_NO_VALUE if value is None else len(value).to_bytes(4) + value for value in column]


_PACKED: Final[dict[str, tuple[int, Callable[[Iterable[Any]], list[bytes]]]]] = {
    "uuid": (adapters.types["uuid"].oid, _packed_uuids),
    "bytea": (adapters.types["bytea"].oid, _packed_bytes),
}

_VALUES: Final[dict[str, Callable[[Any], str | bytes]]] = {
    "uuid": _packed_uuid,
    "bigint": str,
    "integer": str,
    "numeric": str,
    "boolean": _boolean,
    "bytea": bytes,
    "timestamptz": _time,
    "text": str,
}
