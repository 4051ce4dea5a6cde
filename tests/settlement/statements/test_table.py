"""A statement as CSV: every digit, and it adds up."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from fractions import Fraction

from hypothesis import given

from clearinghouse.cells import text_of
from settlement.statements.statement import Statement
from settlement.statements.table import COLUMNS, statement_csv
from tests.settlement.statements.examples import example, statements


def read(statement: Statement) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(statement_csv(statement).decode("utf-8"), newline=""), strict=True))


def test_the_rows_by_example() -> None:
    lines = statement_csv(example()).decode("utf-8").split("\r\n")
    assert lines[0] == ",".join(COLUMNS)
    assert [line.removeprefix("ST-acme-2026-10,") for line in lines[1:4]] == [
        "opening,2026-09-30T22:00:00.000000Z,,,,,,,,,,,,20.125,EUR",
        "movement,2026-10-02T08:30:00.000000Z,top_up,pi_3Q,card ending in 4242,,,,,,,,,100,EUR",
        "movement,2026-10-20T00:00:00.000000Z,expiry,tr_018f,granted credit expired unused,,,,,,,,,-4.5,EUR",
    ]
    assert "61.20394857102938471234" in lines[5]
    assert lines[-2:] == [
        "ST-acme-2026-10,closing,2026-10-31T23:00:00.000000Z,,,,,,,,,,,,42.37115142897061528766,EUR",
        "",
    ]


@given(statements())
def test_all_rows_add_up_to_the_last_exactly(statement: Statement) -> None:
    *parts, closing = (Fraction(Decimal(row["amount"])) for row in read(statement))
    assert sum(parts) == closing == Fraction(statement.closing)


@given(statements())
def test_every_text_can_be_read_back(statement: Statement) -> None:
    rows = [row for row in read(statement) if row["row"] == "usage"]
    found = [[text_of(row[name]) for name in ("app", "pipeline", "model", "rate", "unit")] for row in rows]
    assert found == [[line.app, line.pipeline, line.model, line.rate, line.unit] for line in statement.sorted_lines()]
