"""Housekeeping: however many answers have to be forgotten, one round forgets them all."""

from __future__ import annotations

from datetime import timedelta

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.batches import ROWS_AT_ONCE_COUNT
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.housekeeping import ACCOUNTS_AT_ONCE_COUNT, forget_keyed_answers, in_turn
from clearinghouse.ledger.verify import verify

Connection = psycopg.Connection[tuple[object, ...]]


async def test_more_answers_than_fit_one_transaction_are_forgotten_and_younger_ones_stay(
    database: str, owner: Connection
) -> None:
    serve = async_engine(in_role(database, SERVE_ROLE))
    owner.execute(
        """INSERT INTO keyed_answer (gateway_id, key, request_hash, issuance_id, answer, created_at)
           SELECT gen_random_uuid(), 'key', sha256('x'), gen_random_uuid(), 'x',
                  now() - CASE WHEN n <= %s THEN interval '25 hours' ELSE interval '23 hours' END
             FROM generate_series(1, %s) AS n""",
        [2 * ROWS_AT_ONCE_COUNT + 1, 2 * ROWS_AT_ONCE_COUNT + 4],
    )
    assert await forget_keyed_answers(serve, older_than=timedelta(hours=24)) == 2 * ROWS_AT_ONCE_COUNT + 1
    assert owner.execute("SELECT count(*) FROM keyed_answer").fetchone() == (3,)
    assert await forget_keyed_answers(serve, older_than=timedelta(hours=24)) == 0
    await serve.dispose()


async def test_credit_of_more_accounts_than_one_transaction_holds_expires_and_the_books_are_in_order(
    database: str, owner: Connection, admin: AsyncEngine
) -> None:
    serve = async_engine(in_role(database, SERVE_ROLE))
    granted_count = ACCOUNTS_AT_ONCE_COUNT + 2
    owner.execute("SELECT open_system_accounts('USD')")
    owner.execute(
        """WITH opened AS (
               INSERT INTO gateway (id, name) SELECT gen_random_uuid(), n::text FROM generate_series(1, %s) AS n
               RETURNING id, name)
           INSERT INTO account (id, gateway_id, name, currency) SELECT id, id, name, 'USD' FROM opened""",
        [granted_count],
    )
    grant = "SELECT grant_credit(gen_random_uuid(), id, 3, now() + %s, NULL, 'a test', 'test') FROM gateway"
    for lasting in (timedelta(days=1), timedelta(days=1), timedelta(days=9)):
        owner.execute(grant, [lasting])
    owner.execute("UPDATE credit_lot SET expires_at = expires_at - interval '2 days'")
    owner.execute("UPDATE account SET next_expiry_at = next_expiry_at - interval '2 days'")
    assert owner.execute("SELECT settle_due_lots(1)").fetchone() == (1,)
    assert await in_turn(serve, "SELECT settle_due_lots(:at_most)") == granted_count - 1
    balances = owner.execute("SELECT balance FROM account WHERE gateway_id IS NOT NULL").fetchall()
    assert set(balances) == {(3,)}
    report = await verify(admin)
    assert report.is_clean, report.findings
    await serve.dispose()
