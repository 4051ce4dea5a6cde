"""Housekeeping: however many answers have to be forgotten, one round forgets them all."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.housekeeping import FORGOTTEN_AT_ONCE_COUNT, forget_keyed_answers

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
        [2 * FORGOTTEN_AT_ONCE_COUNT + 1, 2 * FORGOTTEN_AT_ONCE_COUNT + 4],
    )
    assert await forget_keyed_answers(serve, older_than=timedelta(hours=24)) == 2 * FORGOTTEN_AT_ONCE_COUNT + 1
    assert owner.execute("SELECT count(*) FROM keyed_answer").fetchone() == (3,)
    assert await forget_keyed_answers(serve, older_than=timedelta(hours=24)) == 0
    await serve.dispose()
