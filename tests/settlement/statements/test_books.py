"""Statements from real books: whatever was booked, and wherever a statement begins and ends, it balances."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from threading import Event, Thread
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.errors import NotFound
from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import exact_sum
from clearinghouse.rates.units import BASE_PER_UNIT, Per
from settlement.currencies import account_currency
from settlement.periods import Timeline
from settlement.rounding import DoesNotAddUp
from settlement.statements.books import Account, statement_of
from settlement.statements.choice import Chosen, chosen_period
from settlement.statements.statement import Party, Span, Statement
from settlement.statements.table import statement_csv
from tests.settlement.conftest import Owner
from tests.settlement.statements.booked import Books, Mark, close, moves

ISSUER = Party("Example Clearinghouse Ltd")
NUMBERS = itertools.count()


@pytest.fixture
async def admin(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, ADMIN_ROLE), pool_size=4)
    yield engine
    await engine.dispose()


@pytest.fixture
def books(owner: Owner) -> Books:
    return Books(owner, "acme")


def over(begin: datetime, end: datetime, zone: str = "UTC") -> Callable[[Timeline, datetime], Chosen]:
    return lambda _timeline, _now: Chosen("span", Span(begin, end, zone))


async def statement(engine: AsyncEngine, gateway_id: UUID, begin: datetime, end: datetime) -> Account:
    return await statement_of(engine, gateway_id, over(begin, end), issuer=ISSUER)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=moves)
async def test_between_any_two_instants_it_leads_from_one_balance_of_the_account_to_the_other(
    admin: AsyncEngine, owner: Owner, entries: list[tuple[str, Decimal, int]]
) -> None:
    books = Books(owner, f"gateway-{next(NUMBERS)}")
    marks = [books.mark()]
    for entry in entries:
        books.enter(*entry)
        marks.append(books.mark())
    for first, last in [(0, -1), (0, len(marks) // 2), (len(marks) // 2, -1), (len(marks) // 3, 2 * len(marks) // 3)]:
        begin, end = marks[first], marks[last]
        if begin.at < end.at:
            made = (await statement(admin, books.gateway_id, begin.at, end.at)).statement
            assert (made.opening, made.closing) == (begin.balance, end.balance)
            booked = entries[first:] if last == -1 else entries[first:last]
            assert sorted(movement.kind for movement in made.movements) == sorted(
                kind for kind, _, _ in booked if kind != "usage"
            )
            assert sum(line.calls for line in made.lines) == sum(kind == "usage" for kind, _, _ in booked)
            assert lines_by_hand(owner, books.gateway_id, begin, end) == {
                (line.app, line.pipeline, line.model): (line.quantity, line.ev_wei, Fraction(line.amount))
                for line in made.lines
            }


def lines_by_hand(
    owner: Owner, gateway_id: UUID, begin: Mark, end: Mark
) -> dict[tuple[str, str, str], tuple[Decimal, int, Fraction]]:
    """Row by row, in fractions."""
    rows = owner.execute(
        """SELECT app, pipeline, model, num_tickets, ev_wei, charge
             FROM issuance JOIN session ON session.id = session_id WHERE issuance.gateway_id = %s
              AND issuance.created_at >= %s AND issuance.created_at < %s""",
        [gateway_id, begin.at, end.at],
    )
    found: dict[tuple[str, str, str], tuple[Decimal, int, Fraction]] = {}
    for app, pipeline, model, tickets, ev_wei, charge in rows:
        quantity, ev, amount = found.get((app, pipeline, model), (Decimal(0), 0, Fraction(0)))
        found[app, pipeline, model] = (quantity + tickets, ev + int(ev_wei), amount + Fraction(charge))
    return found


async def test_an_entry_at_the_begin_is_of_the_statement_and_one_at_the_end_is_of_the_next(
    admin: AsyncEngine, books: Books, owner: Owner
) -> None:
    books.use()
    books.enter("payment", Decimal(5))
    (used_at,) = owner.execute("SELECT created_at FROM issuance").fetchone() or ()
    (paid_at,) = owner.execute("SELECT created_at FROM transfer").fetchone() or ()
    microsecond = timedelta(microseconds=1)
    with_both = (await statement(admin, books.gateway_id, used_at, paid_at + microsecond)).statement
    assert (len(with_both.lines), len(with_both.movements), with_both.opening) == (1, 1, 0)
    before_both = (await statement(admin, books.gateway_id, used_at - microsecond, used_at)).statement
    assert (before_both.lines, before_both.opening, before_both.closing) == ((), 0, 0)
    with_none = (await statement(admin, books.gateway_id, used_at + microsecond, paid_at)).statement
    assert (with_none.lines, with_none.movements) == ((), ())
    assert with_none.opening == with_none.closing == -with_both.usage


async def test_it_is_the_same_whenever_it_is_asked_for(admin: AsyncEngine, books: Books) -> None:
    books.enter("payment", Decimal(25))
    begin = books.mark()
    for which in (0, 1, 2, 0, 1):
        books.use(which)
    books.enter("fee", Decimal(1))
    end = books.mark()
    first = await statement(admin, books.gateway_id, begin.at, end.at)
    books.enter("refund", Decimal(3))
    books.use()
    again = await statement(admin, books.gateway_id, begin.at, end.at)
    assert first.is_final
    assert again == first
    assert statement_csv(again.statement) == statement_csv(first.statement)


async def test_it_waits_for_what_is_being_booked_with_a_time_before_its_end(
    admin: AsyncEngine, books: Books, database: str
) -> None:
    """An entry has taken its time and is not committed: whoever reads now would leave it out, for good."""
    begin = books.mark()
    booked, may_commit = Event(), Event()

    def pay() -> None:
        with psycopg.connect(database) as connection:
            Books.enter(_With(connection, books), "payment", Decimal(5))
            booked.set()
            may_commit.wait(20)

    with _thread(pay):
        assert booked.wait(20)
        end = books.mark()
        assert end.balance == begin.balance, "it is not committed yet"
        asked = asyncio.create_task(statement(admin, books.gateway_id, begin.at, end.at))
        await asyncio.sleep(0.3)
        assert not asked.done()
        may_commit.set()
        made = (await asked).statement
    assert [movement.kind for movement in made.movements] == ["payment"]
    assert made.closing == 5


class _With(Books):
    """The same gateway, over another connection."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], books: Books) -> None:
        self.owner, self.gateway_id, self.key_id = connection, books.gateway_id, books.key_id


@contextmanager
def _thread(work: Callable[[], None]):  # type: ignore[no-untyped-def]
    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)


async def test_a_period_that_has_not_ended_says_so_and_ends_where_the_books_do(
    admin: AsyncEngine, books: Books
) -> None:
    books.enter("payment", Decimal(25))
    books.use()

    def current(timeline: Timeline, now: datetime) -> Chosen:
        return chosen_period("current", timeline, now=now)

    so_far = await statement_of(admin, books.gateway_id, current, issuer=ISSUER)
    assert not so_far.is_final
    assert so_far.statement.closing == books.mark().balance
    assert so_far.statement.period.end <= datetime.now(UTC)


async def test_the_customer_stands_on_it_as_it_is_known(admin: AsyncEngine, books: Books, owner: Owner) -> None:
    begin = books.mark()
    plain = (await statement(admin, books.gateway_id, begin.at, begin.at + timedelta(microseconds=1))).statement
    assert (plain.customer, plain.locale, plain.number) == (Party("acme"), "en", "acme-span")
    owner.execute(
        """INSERT INTO customer (gateway_id, name, email, line1, city, postal_code, country, tax_id_type, tax_id,
                                 locale)
           VALUES (%s, 'Acme GmbH', 'billing@acme.example', 'Große Straße 1', 'Berlin', '10115', 'DE', 'eu_vat',
                   'DE123456789', 'de-DE')""",
        [books.gateway_id],
    )
    known = (await statement(admin, books.gateway_id, begin.at, begin.at + timedelta(microseconds=1))).statement
    assert known.customer == Party(
        "Acme GmbH", ("Große Straße 1", "10115 Berlin", "DE", "billing@acme.example", "DE123456789")
    )
    assert known.locale == "de-DE"


async def test_an_account_in_ether_has_statements_too(admin: AsyncEngine, owner: Owner) -> None:
    books = Books(owner, "in-ether", currency="ETH")
    begin = books.mark()
    books.enter("payment", Decimal("0.000000000000000001"))
    made = (await statement(admin, books.gateway_id, begin.at, books.mark().at)).statement
    assert made.currency == account_currency("ETH")
    assert made.closing == Decimal("1e-18")


async def test_a_gateway_that_is_not_there_has_no_statement(admin: AsyncEngine, books: Books) -> None:
    begin = books.mark()
    with pytest.raises(NotFound, match=show("gw", UUID(int=1))):
        await statement(admin, UUID(int=1), begin.at, begin.at + timedelta(seconds=1))


async def test_ids_of_clocks_that_differ_by_an_hour_lose_nothing(
    admin: AsyncEngine, books: Books, owner: Owner
) -> None:
    begin = books.mark()
    for hours in (-1, 1):
        books.use()
        (row_id,) = owner.execute("SELECT id FROM issuance ORDER BY created_at DESC LIMIT 1").fetchone() or ()
        shifted = UUID(int=row_id.int + (hours * 3_600_000 << 80))
        with owner.transaction():
            owner.execute("SET LOCAL session_replication_role = replica")  # what is append-only is changed for the test
            owner.execute("UPDATE issuance SET id = %s WHERE id = %s", [shifted, row_id])
    made = (await statement(admin, books.gateway_id, begin.at, books.mark().at)).statement
    assert sum(line.calls for line in made.lines) == 2, rfc3339(begin.at)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=moves)
async def test_a_closed_period_has_the_statement_that_it_was_closed_with(
    admin: AsyncEngine, owner: Owner, entries: list[tuple[str, Decimal, int]]
) -> None:
    books = Books(owner, f"gateway-{next(NUMBERS)}")
    for entry in entries:
        books.enter(*entry)
    end = books.mark()
    books.use()
    assert close(owner, books, "2026-10-01", end.at) == "closed"

    def otherwise(_timeline: Timeline, now: datetime) -> Chosen:
        return Chosen("2026-10-01", Span(now - timedelta(days=1), now, "UTC"))

    made = (await statement_of(admin, books.gateway_id, otherwise, issuer=ISSUER)).statement
    assert (made.period.end, made.period.zone) == (end.at, "Europe/Berlin"), "as it was closed"
    stored = owner.execute(
        "SELECT opening, usage, closing, calls_count FROM billing_period WHERE gateway_id = %s", [books.gateway_id]
    ).fetchone()
    assert stored == (made.opening, made.usage, made.closing, sum(line.calls for line in made.lines))
    moved = dict(
        owner.execute("SELECT kind, amount FROM billing_movement WHERE gateway_id = %s", [books.gateway_id]).fetchall()
    )
    assert moved == {kind: sum_of(made, kind) for kind in {movement.kind for movement in made.movements}}


def sum_of(made: Statement, kind: str) -> Decimal:
    return exact_sum(movement.amount for movement in made.movements if movement.kind == kind)


async def test_a_statement_that_says_otherwise_than_its_closed_period_is_not_made(
    admin: AsyncEngine, books: Books, owner: Owner
) -> None:
    books.enter("payment", Decimal(5))
    end = books.mark()
    assert close(owner, books, "2026-10-01", end.at) == "closed"
    owner.execute("UPDATE account SET balance = 6 WHERE gateway_id IS NOT NULL")
    with pytest.raises(DoesNotAddUp, match="closing 1, 0, 6, but was closed with 0, 0, 5"):
        await statement_of(
            admin, books.gateway_id, lambda _, now: Chosen("2026-10-01", Span(end.at, now, "UTC")), issuer=ISSUER
        )


async def test_what_is_charged_by_a_rate_card_says_by_which_and_how_much_it_was(
    admin: AsyncEngine, books: Books, owner: Owner
) -> None:
    begin = books.mark()
    with owner.transaction():
        owner.execute(
            """INSERT INTO rate_card (card, version, currency, effective_from, document, sha256, applied_by)
               VALUES ('standard', 3, 'USD', now(), '{}', sha256(''), 'test')"""
        )
        rules = [
            owner.execute(
                """INSERT INTO rate_rule (card, version, ordinal, per, base_per_unit, floor, minimum_charge, counts,
                                          meter)
                   VALUES ('standard', 3, %s, %s, %s, 'none', 0, false, '{}') RETURNING id""",
                [ordinal, per, BASE_PER_UNIT[per]],
            ).fetchone()
            for ordinal, per in enumerate((Per.MINUTE, Per.COST))
        ]
    for rule, quantity in ((rules[0], 20 * 10**9), (rules[0], 25 * 10**9), (rules[1], None), (None, None)):
        books.use()
        with owner.transaction():
            owner.execute("SET LOCAL session_replication_role = replica")  # what is append-only is changed for the test
            owner.execute(
                """UPDATE issuance SET rate_rule = %s, quantity = %s
                    WHERE id = (SELECT id FROM issuance ORDER BY created_at DESC LIMIT 1)""",
                [rule[0] if rule else None, quantity],
            )
    made = (await statement(admin, books.gateway_id, begin.at, books.mark().at)).statement
    assert {(line.rate, line.quantity, line.unit, line.calls) for line in made.lines} == {
        ("standard 3", Decimal("0.75"), "minutes", 2),
        ("standard 3", Decimal(1), "tickets", 1),
        ("", Decimal(1), "tickets", 1),
    }


async def test_a_call_whose_session_is_lost_is_on_the_statement_without_names(
    admin: AsyncEngine, books: Books, owner: Owner
) -> None:
    begin = books.mark()
    books.use(0)
    owner.execute("DELETE FROM session WHERE id = %s", [books.use(1).session_id])
    ((charged,),) = owner.execute("SELECT sum(charge) FROM issuance").fetchall()
    made = (await statement(admin, books.gateway_id, begin.at, books.mark().at)).statement
    assert sum(line.calls for line in made.lines) == 2
    assert made.usage == charged
    assert [line.calls for line in made.lines if (line.app, line.pipeline, line.model) == ("", "", "")] == [1]
