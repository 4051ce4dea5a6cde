"""Usage as files: every issuance, whole, in any form, in little memory, and the same bytes every time."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from clearinghouse.cells import text_of
from clearinghouse.instants import parse_rfc3339, rfc3339
from clearinghouse.issuances import Issuance, issuance_json
from settlement.exports.columns import COLUMNS, NULLABLE, Kind
from settlement.exports.forms import Form
from settlement.exports.parquet import ROWS_PER_GROUP, NoArrow
from settlement.exports.usage import open_writer
from tests.settlement.exports.examples import issuance, issuances, many


def export(form: Form, *batches: Iterable[Issuance]) -> bytes:
    file = io.BytesIO()
    with open_writer(form, file) as writer:
        for batch in batches:
            writer.write(batch)
    return file.getvalue()


def read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))


def test_the_columns_are_those_of_an_issuance_over_http() -> None:
    assert list(COLUMNS) == list(issuance_json(issuance()))
    approved = issuance_json(issuance(by_webhook=True))
    assert {name for name, value in approved.items() if value is None} == NULLABLE


def test_an_export_of_nothing_has_its_columns() -> None:
    assert export(Form.CSV) == (",".join(COLUMNS) + "\r\n").encode()
    assert export(Form.JSON_LINES) == b""
    assert parquet.read_table(io.BytesIO(export(Form.PARQUET))).column_names == list(COLUMNS)


@given(st.lists(issuances, max_size=4))
def test_json_lines_are_the_items_of_the_api(rows: list[Issuance]) -> None:
    lines = export(Form.JSON_LINES, rows).decode("ascii").splitlines()
    assert [json.loads(line) for line in lines] == [issuance_json(row) for row in rows]


@given(st.lists(issuances, max_size=4))
def test_csv_has_the_same_texts(rows: list[Issuance]) -> None:
    for found, row in zip(read_csv(export(Form.CSV, rows)), rows, strict=True):
        for name, value in issuance_json(row).items():
            cell = text_of(found[name]) if COLUMNS[name] is Kind.TEXT else found[name]
            assert cell == ("" if value is None else str(value))


@settings(max_examples=40)
@given(st.lists(issuances, max_size=4))
def test_parquet_has_the_same_values(rows: list[Issuance]) -> None:
    found = parquet.read_table(io.BytesIO(export(Form.PARQUET, rows))).to_pylist()
    assert [{name: as_json(name, value) for name, value in row.items()} for row in found] == list(
        map(issuance_json, rows)
    )


def as_json(name: str, value: Any) -> Any:
    match COLUMNS[name]:
        case Kind.INSTANT:
            return rfc3339(value)
        case Kind.WEI:
            return str(int(value))
    return value


def test_the_numbers_of_parquet_are_numbers() -> None:
    schema = parquet.read_schema(io.BytesIO(export(Form.PARQUET, many(3))))
    assert schema.field("ev_wei").type == pyarrow.decimal128(38, 0)
    assert schema.field("num_tickets").type == pyarrow.int64()
    assert schema.field("created_at").type == pyarrow.timestamp("us", tz="UTC")
    assert {field.name for field in schema if field.nullable} == NULLABLE


def test_wei_that_no_reader_could_hold_is_refused_and_the_file_is_not_whole() -> None:
    file = io.BytesIO()
    beyond = Issuance(**{name: getattr(issuance(), name) for name in Issuance.__slots__} | {"ev_wei": 10**38})
    with pytest.raises(OverflowError, match="ev_wei 1"), open_writer(Form.PARQUET, file) as writer:
        writer.write([issuance(), beyond])
    assert_unreadable(file)


@pytest.mark.parametrize("count", [1, ROWS_PER_GROUP + 1])
def test_half_a_parquet_file_is_not_taken_for_a_whole_one(count: int) -> None:
    def rows() -> Iterator[Issuance]:
        yield from many(count)
        raise ConnectionError("the database went away")

    file = io.BytesIO()
    with pytest.raises(ConnectionError), open_writer(Form.PARQUET, file) as writer:
        writer.write(rows())
    del writer
    assert_unreadable(file)


def assert_unreadable(file: io.BytesIO) -> None:
    with pytest.raises(pyarrow.ArrowInvalid):
        parquet.read_table(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("form", Form)
def test_how_rows_were_batched_does_not_show(form: Form) -> None:
    rows = list(many(ROWS_PER_GROUP + 100 if form is Form.PARQUET else 2500))
    at_once = export(form, rows)
    assert export(form, rows[:1], [], rows[1:1200], iter(rows[1200:])) == at_once
    assert export(form, rows) == at_once


@pytest.mark.parametrize("form", Form)
def test_rows_are_counted_and_the_file_stays_open(form: Form) -> None:
    file = io.BytesIO()
    with open_writer(form, file) as writer:
        writer.write(many(3))
        writer.write(many(2))
    assert writer.rows == 5
    assert not file.closed


def test_no_end_user_can_run_a_formula_at_the_reader_of_a_csv() -> None:
    (row,) = read_csv(export(Form.CSV, [issuance()]))
    assert row["end_user"] == "'=cmd|' /C calc'!A0"
    assert row["balance_after"] == "-1.5", "a number is no formula"


def test_a_line_of_json_is_a_line_to_every_reader() -> None:
    content = export(Form.JSON_LINES, [issuance(app="a\u2028b\nc\x85d")])
    assert len(content.decode("ascii").splitlines()) == 1


class Counted(io.RawIOBase):
    """Counts what is written and keeps none of it."""

    def __init__(self) -> None:
        self.bytes_count = 0

    def write(self, data: Any) -> int:
        self.bytes_count += len(data)
        return len(data)


@pytest.mark.parametrize("form", [Form.CSV, Form.JSON_LINES])
def test_memory_does_not_grow_with_the_rows(form: Form) -> None:
    assert peak_bytes(form, 6_000) < peak_bytes(form, 2_000) * 1.2


def test_parquet_holds_one_group_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("settlement.exports.parquet.ROWS_PER_GROUP", 1000)
    assert peak_bytes(Form.PARQUET, 6010) < peak_bytes(Form.PARQUET, 2000) * 1.2


def peak_bytes(form: Form, rows: int) -> int:
    """Of Python's memory. Arrow's own is that of one group."""
    file: Any = Counted()
    tracemalloc.start()
    with open_writer(form, file) as writer:
        writer.write(many(rows))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.bytes_count > 0
    return peak


def test_without_arrow_the_refusal_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(NoArrow, match=r"livepeer-clearinghouse\[parquet\]"):
        open_writer(Form.PARQUET, io.BytesIO())


def test_exact_amounts_sum_to_what_the_books_have() -> None:
    table = parquet.read_table(io.BytesIO(export(Form.PARQUET, many(1000))), columns=["charge", "created_at"])
    assert sum(Decimal(charge) for charge in table["charge"].to_pylist()) == 1000 * Decimal("0.0034") + Decimal(
        "4.995E-29"
    )
    assert parse_rfc3339(issuance_json(issuance())["created_at"]) == table["created_at"].to_pylist()[0]
