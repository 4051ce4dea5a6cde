"""Arrays, as texts and in binary, are what PostgreSQL reads as what went in."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from clearinghouse.database.arrays import array_literal, array_parameter, value_parameter
from tests.parts.books import Connection, Packed

NOW = datetime(2026, 4, 7, 20, 0, 0, 5, tzinfo=UTC)
LITERALS: list[tuple[str, tuple[Any, ...], str]] = [
    ("uuid", (UUID(int=1), None, UUID(int=2**128 - 1)), "{" + "0" * 31 + "1,NULL," + "f" * 32 + "}"),
    ("bigint", (-1, None, 2**63 - 1), "{-1,NULL,9223372036854775807}"),
    ("integer", (0, 0), "{0,0}"),
    ("numeric", (Decimal("1.0"), Decimal("1.00"), None, 2**256), f"{{1.0,1.00,NULL,{2**256}}}"),
    ("boolean", (True, False, None), "{t,f,NULL}"),
    ("bytea", (b"", None, b"\x00\xff"), '{"\\\\x",NULL,"\\\\x00ff"}'),
    ("timestamptz", (NOW, None), '{"2026-04-07T20:00:00.000005+00:00",NULL}'),
    ("text", ("a", "", None, 'q"\\', "NULL", "{,}", "é\n"), '{"a","",NULL,"q\\"\\\\","NULL","{,}","é\n"}'),
    ("text", ('a"', 'a"'), '{"a\\"","a\\""}'),
    ("text", (None, None), "{NULL,NULL}"),
]


@pytest.mark.parametrize(("kind", "column", "literal"), LITERALS)
def test_a_column_is_one_text(kind: str, column: tuple[Any, ...], literal: str) -> None:
    assert array_literal(kind, column) == array_literal(kind, list(column)) == literal
    assert array_literal(kind, iter(column)) == literal
    assert array_literal(kind, ()) == "{}"


@pytest.mark.parametrize(("kind", "column", "literal"), LITERALS)
def test_a_column_is_one_parameter_that_the_server_reads_as_the_same(
    owner: Connection, kind: str, column: tuple[Any, ...], literal: str
) -> None:
    """As a text, or in binary: then it is not the text."""
    given = array_parameter(kind, column)
    if set(column) == {None}:
        assert given is None
        return
    assert (given == literal) is (kind not in ("uuid", "bytea"))
    parameter = Packed(given) if isinstance(given, bytes) else given
    query = f"SELECT %s::{kind}[], %s::{kind}[]"
    read = owner.execute(query.encode(), [parameter, literal]).fetchone()
    assert read is not None
    assert read[0] == read[1] == list(column)


@pytest.mark.parametrize(("kind", "column", "literal"), LITERALS)
def test_a_value_by_itself_is_read_as_in_its_array(
    owner: Connection, kind: str, column: tuple[Any, ...], literal: str
) -> None:
    given = [value_parameter(kind, value) for value in column]
    parameters = [Packed(value) if isinstance(value, bytes) else value for value in given]
    values = ", ".join([f"%s::{kind}"] * len(column))
    assert owner.execute(f"SELECT ARRAY[{values}]".encode(), parameters).fetchone() == (list(column),)


def test_a_column_of_nothing_is_no_array() -> None:
    assert array_parameter("text", (None, None)) is None
    assert array_parameter("bytea", (None,)) is None
    assert array_parameter("text", (None, "")) == '{NULL,""}'


def test_a_kind_that_is_not_known_is_no_column() -> None:
    with pytest.raises(KeyError):
        array_literal("json", [])
    with pytest.raises(KeyError):
        value_parameter("json", None)
