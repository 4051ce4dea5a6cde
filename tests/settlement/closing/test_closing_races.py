"""Closing beside signing, beside another worker, and by workers that end at any point."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, async_engine, in_role
from clearinghouse.identity import gateways, keys
from clearinghouse.ledger import transfers
from settlement.closing.close import Point, SilentClosingObserver, close_due
from settlement.runs import tick_engine
from settlement.schedule import Tick
from tests.parts.books import commit_together, usage
from tests.settlement.closing.books import NOVEMBER, NOW, OCTOBER, Books
from tests.settlement.conftest import Owner

SEPTEMBER = datetime(2025, 9, 1, tzinfo=OCTOBER.tzinfo)
SIGNERS_COUNT = 3
ROUNDS_COUNT = 25


async def signing_gateways(database: str) -> list[tuple[UUID, UUID]]:
    """Gateways with credit, and a key of each."""
    admin = async_engine(in_role(database, ADMIN_ROLE))
    try:
        made = []
        for name in "abcd":
            async with admin.begin() as connection:
                gateway = await gateways.create(connection, name)
                key = await keys.create(connection, gateway.id, pepper=b"p" * 32)
                await transfers.grant(connection, gateway.id, Decimal(1000), reason="a test", actor="test")
            made.append((gateway.id, key.key.id))
        return made
    finally:
        await admin.dispose()


@contextmanager
def signing(database: str, payers: list[tuple[UUID, UUID]]) -> Iterator[list[int]]:
    """Several processes' batches, one after the other without a pause; the count of calls that were recorded."""
    stop, recorded = threading.Event(), [0] * SIGNERS_COUNT

    def sign(number: int) -> None:
        with psycopg.connect(in_role(database, SERVE_ROLE, lock_timeout="500ms"), autocommit=True) as connection:
            while not stop.is_set():
                outcomes = commit_together(connection, [usage(*payer, ev_wei=10**12) for payer in payers])
                recorded[number] += sum(code is None for code, _ in outcomes)

    threads = [threading.Thread(target=sign, args=[number]) for number in range(SIGNERS_COUNT)]
    for thread in threads:
        thread.start()
    try:
        yield recorded
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def closed_now(owner: Owner, gateway_ids: list[UUID], begins: dict[UUID, datetime]) -> None:
    """Ends a period of each at this very moment, whatever the calendar says, and closes it."""
    count = len(gateway_ids)
    (end,) = owner.execute("SELECT clock_timestamp()").fetchone() or ()
    ends = [end] * count
    owner.execute("SET lock_timeout = '5s'")
    sealed = owner.execute("SELECT seal_books(%s, %s, true)", [gateway_ids, ends]).fetchall()
    assert len(sealed) == count
    days = [end.date()] * count
    outcomes = owner.execute(
        "SELECT o_gateway, o_outcome, o_difference FROM close_periods(%s, %s, %s, %s, %s, %s, %s)",
        [
            gateway_ids, [begins[each] for each in gateway_ids], ends, days,
            [day + timedelta(days=1) for day in days], ["prepaid"] * count, ["UTC"] * count,
        ],
    ).fetchall()  # fmt: skip
    assert [(outcome, difference) for _, outcome, difference in outcomes] == [("closed", 0)] * count
    begins.update(dict.fromkeys(gateway_ids, end))


async def test_what_is_signed_while_periods_are_closed_is_in_exactly_one_of_them(database: str, owner: Owner) -> None:
    payers = await signing_gateways(database)
    ids = sorted(gateway_id for gateway_id, _ in payers)
    begins = dict(owner.execute("SELECT id, created_at FROM gateway").fetchall())
    with signing(database, payers) as recorded:
        for _ in range(ROUNDS_COUNT):
            await asyncio.to_thread(closed_now, owner, ids, begins)
    closed_now(owner, ids, begins)
    assert sum(recorded) > 100
    query = """
        SELECT sum(calls_count), count(*) FILTER (WHERE calls_count > 0),
               (SELECT count(*) FROM issuance), sum(usage) = (SELECT sum(usage_total) FROM account),
               (SELECT sum(calls_count) FROM billing_line)
          FROM billing_period
    """
    calls, busy, issuances, is_all, in_lines = owner.execute(query).fetchone() or ()
    assert calls == issuances == in_lines == sum(recorded)
    assert busy > len(ids), "signing went on"
    assert is_all
    closings = owner.execute(
        "SELECT balance = (SELECT closing FROM billing_period WHERE gateway_id = account.id "
        "ORDER BY begins_at DESC LIMIT 1) FROM account WHERE gateway_id IS NOT NULL"
    ).fetchall()
    assert closings == [(True,)] * len(ids)


def test_a_seal_waits_for_the_call_that_is_being_recorded(database: str, owner: Owner, books: Books) -> None:
    """Without a_waits it does not, and the account is left for another time."""
    acme = books.gateway()
    with psycopg.connect(database) as signer, signer.transaction():
        signer.execute("SELECT FROM account WHERE id = %s FOR NO KEY UPDATE", [acme])
        assert owner.execute("SELECT seal_books(%s, %s, false)", [[acme], [NOVEMBER]]).fetchall() == []
        owner.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            owner.execute("SELECT seal_books(%s, %s, true)", [[acme], [NOVEMBER]])
    assert owner.execute("SELECT seal_books(%s, %s, true)", [[acme], [NOVEMBER]]).fetchall() == [(acme,)]


async def test_a_busy_gateway_comes_later_and_keeps_nobody_from_closing(
    database: str, worker: AsyncEngine, books: Books
) -> None:
    acme, _ = books.gateway(), books.gateway()
    with psycopg.connect(database) as signer, signer.transaction():
        signer.execute("SELECT FROM account WHERE id = %s FOR NO KEY UPDATE", [acme])
        said = await close_due(Tick(worker, NOW), SilentClosingObserver())
    assert said == "1 periods of 1 gateways closed; 1 gateways are busy: they come next time"
    assert await close_due(Tick(worker, NOW), SilentClosingObserver()) == "1 periods of 1 gateways closed"


async def test_two_workers_close_everything_once(database: str, worker: AsyncEngine, books: Books) -> None:
    for number in range(20):
        acme = books.gateway(SEPTEMBER)
        books.used(acme, number + 1, OCTOBER)
    other = tick_engine(database)
    try:
        silent = SilentClosingObserver()
        await asyncio.gather(*(close_due(Tick(each, NOW), silent) for each in (worker, other, worker, other)))
    finally:
        await other.dispose()
    assert books.owner.execute("SELECT count(*), sum(usage) FROM billing_period").fetchone() == (40, 210)


class Died(BaseException):
    """A worker ends, as `kill -9` ends it: nothing catches this."""


class Doomed(SilentClosingObserver):
    """Dies when it has reached so many points; or what it is connected with does."""

    def __init__(self, left: int, owner: Owner | None = None) -> None:
        self.left, self.owner = left, owner

    def reached(self, point: Point) -> None:
        self.left -= 1
        if self.left >= 0:
            return
        if self.owner is None:
            raise Died
        self.owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clearinghouse-work'"
        )
        self.owner = None
        self.left = 1000


#: sealed, and of each of three cohorts: written, closed.
POINTS_COUNT = 7
BOOKS = """
    SELECT name, begins_at, ends_at, opening, usage, closing, usage_to_date, calls_count,
           (SELECT array_agg((kind, amount)::text ORDER BY kind) FROM billing_movement AS moved
             WHERE (moved.gateway_id, moved.begins_at) = (period.gateway_id, period.begins_at)),
           (SELECT array_agg((app, charge)::text ORDER BY app) FROM billing_line AS line
             WHERE (line.gateway_id, line.begins_at) = (period.gateway_id, period.begins_at))
      FROM billing_period AS period JOIN account ON account.id = period.gateway_id ORDER BY name, begins_at
"""


def three_cohorts(books: Books) -> None:
    for number in range(3):
        acme = books.gateway(SEPTEMBER + timedelta(days=-40 * number))
        books.owner.execute("UPDATE account SET name = %s WHERE id = %s", [f"gateway {number}", acme])
        books.moved(acme, 50, SEPTEMBER)
        books.used(acme, 3, OCTOBER)
        books.used(acme, 4, NOVEMBER)


@pytest.mark.parametrize("is_connection", [False, True])
async def test_a_worker_that_ends_at_any_point_leaves_what_the_next_one_completes(
    worker: AsyncEngine, books: Books, is_connection: bool
) -> None:
    """Compared with what one that never ended wrote."""
    three_cohorts(books)
    owner = books.owner
    await close_due(Tick(worker, NOW), SilentClosingObserver())
    expected = owner.execute(BOOKS).fetchall()
    assert len(expected) == 2 + 4 + 5
    for lives in range(POINTS_COUNT):
        owner.execute("SET session_replication_role = replica")
        for table in ("billing_line", "billing_movement", "billing_period", "billing_seal"):
            owner.execute(f"DELETE FROM {table}".encode())
        owner.execute("SET session_replication_role = origin")
        doomed = Doomed(lives, owner if is_connection else None)
        with suppress(Died, DBAPIError):
            await close_due(Tick(worker, NOW), doomed)
        assert doomed.left != 0, "it came so far"
        for part in ("billing_movement", "billing_line"):
            whole = f"SELECT FROM {part} AS part WHERE NOT EXISTS (SELECT FROM billing_period AS p WHERE " \
                    "(p.gateway_id, p.begins_at) = (part.gateway_id, part.begins_at))"  # fmt: skip
            assert owner.execute(whole.encode()).fetchall() == []
        await close_due(Tick(worker, NOW), SilentClosingObserver())
        assert owner.execute(BOOKS).fetchall() == expected
