"""The database's part of closing: seals, and sums that must make the balance or nothing is written."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from tests.settlement.closing.books import NOVEMBER, OCTOBER, US, Books
from tests.settlement.conftest import Owner


def seal(owner: Owner, gateway_id: UUID, until: datetime) -> list[UUID]:
    return [each for (each,) in owner.execute("SELECT seal_books(%s, %s, false)", [[gateway_id], [until]])]


def close(owner: Owner, gateway_id: UUID, *spans: tuple[datetime, datetime]) -> str:
    count = len(spans)
    found = owner.execute(
        "SELECT o_outcome FROM close_periods(%s, %s, %s, %s, %s, %s, %s)",
        [
            [gateway_id] * count, [begin for begin, _ in spans], [end for _, end in spans],
            [begin.date() for begin, _ in spans], [end.date() for _, end in spans], ["prepaid"] * count,
            ["UTC"] * count,
        ],
    ).fetchall()  # fmt: skip
    ((outcome,),) = found
    return str(outcome)


def test_an_entry_belongs_to_the_period_that_its_microsecond_is_in(owner: Owner, books: Books) -> None:
    acme = books.gateway()
    books.moved(acme, 10, OCTOBER)
    books.used(acme, 1, NOVEMBER - US)
    books.used(acme, 2, NOVEMBER)
    books.moved(acme, 5, NOVEMBER)
    assert seal(owner, acme, NOVEMBER) == [acme]
    assert close(owner, acme, (OCTOBER, NOVEMBER)) == "closed"
    row = owner.execute("SELECT opening, usage, closing, calls_count, first_day FROM billing_period").fetchone()
    assert row == (0, 1, 9, 1, date(2025, 10, 1))
    assert owner.execute("SELECT kind, amount FROM billing_movement").fetchall() == [("grant", 10)]
    assert owner.execute("SELECT calls_count, tickets_count, charge FROM billing_line").fetchall() == [(1, 2, 1)]
    assert close(owner, acme, (OCTOBER, NOVEMBER)) == "not_next"


def test_several_periods_are_closed_at_once_and_chain(owner: Owner, books: Books) -> None:
    acme, middle = books.gateway(), OCTOBER + timedelta(days=7)
    books.moved(acme, 10, OCTOBER)
    books.used(acme, 1, middle)
    seal(owner, acme, NOVEMBER)
    assert close(owner, acme, (OCTOBER, middle), (middle, NOVEMBER)) == "closed"
    query = "SELECT opening, usage, closing, usage_to_date FROM billing_period ORDER BY begins_at"
    assert owner.execute(query).fetchall() == [(0, 0, 10, 0), (10, 1, 9, 1)]


@pytest.mark.parametrize(
    "corruption",
    [
        "UPDATE account SET balance = balance + 1 WHERE gateway_id IS NOT NULL",
        "UPDATE account SET balance = balance + 1, usage_total = usage_total - 1 WHERE gateway_id IS NOT NULL",
        "DELETE FROM issuance",
        "UPDATE issuance SET created_at = '2025-09-30'",
        "INSERT INTO issuance SELECT * FROM issuance",
    ],
)
def test_books_that_do_not_add_up_are_not_closed(owner: Owner, books: Books, corruption: str) -> None:
    acme = books.gateway()
    books.moved(acme, 10, OCTOBER)
    books.used(acme, 1, OCTOBER)
    owner.execute("SET session_replication_role = replica")
    if corruption.startswith("INSERT"):
        owner.execute("ALTER TABLE issuance DROP CONSTRAINT issuance_pkey")
    owner.execute(corruption.encode())
    seal(owner, acme, NOVEMBER)
    assert close(owner, acme, (OCTOBER, NOVEMBER)) == "differs"
    assert owner.execute("SELECT FROM billing_period").fetchall() == []


def test_a_period_is_not_closed_unless_it_is_sealed_and_the_next(owner: Owner, books: Books) -> None:
    acme = books.gateway()
    assert close(owner, acme, (OCTOBER, NOVEMBER)) == "not_sealed"
    seal(owner, acme, NOVEMBER - US)
    assert close(owner, acme, (OCTOBER, NOVEMBER)) == "not_sealed"
    seal(owner, acme, NOVEMBER)
    assert close(owner, acme, (OCTOBER + US, NOVEMBER)) == "not_next"
    assert close(owner, acme, (OCTOBER, NOVEMBER - 2 * US), (NOVEMBER - US, NOVEMBER)) == "not_next"


def test_what_is_not_over_is_not_sealed(owner: Owner, books: Books) -> None:
    acme = books.gateway()
    with pytest.raises(psycopg.errors.CheckViolation, match="when it is over"):
        seal(owner, acme, datetime.now(UTC) + timedelta(seconds=5))
