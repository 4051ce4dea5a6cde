"""The sums that the database adds up are the ones that the mathematics does, and snapshots come back and go."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.exposure import OpenTickets, exposure
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.coverage import snapshots
from clearinghouse.coverage.book import read_book
from clearinghouse.coverage.evaluate import evaluate, snapshot_of
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from tests.parts.covered import ETHER, OTHER_SENDER, RULES, SENDER, Books, escrow_of

Owner = psycopg.Connection[tuple[Any, ...]]
MAX_WEI = 2**96


@pytest.mark.parametrize("seed", range(3))
async def test_the_database_adds_up_what_the_mathematics_does(database: str, owner: Owner, seed: int) -> None:
    dice, books, tickets = random.Random(seed), Books(owner), []
    gateways = [books.new_gateway() for _ in range(3)]
    for _ in range(40):
        face, prob = dice.choice([1, ETHER, dice.randrange(MAX_WEI)]), dice.choice([1, dice.randrange(2**256)])
        prob, count = min(prob, WIN_PROB_CERTAIN), dice.randrange(1, 10**6)
        books.issue(dice.choice(gateways), face_value_wei=face, win_prob=prob, num_tickets=count)
        books.issue(dice.choice(gateways), sender=OTHER_SENDER, num_tickets=count)
        tickets.append(OpenTickets(face, prob, count))
    owner.execute("SELECT roll_up_exposure(20)")
    async with await psycopg.AsyncConnection.connect(in_role(database, SERVE_ROLE)) as connection:
        book = await read_book(connection, escrow_of(), unseen_face_value_wei=1, with_payers=True)
    assert book.worst == exposure(tickets)
    open_wei = sum(payer.open_ev_wei for payer in book.payers)
    assert 0 <= open_wei - book.worst.expected_wei < len(gateways), "rounded up for each"


async def test_a_webhook_signers_largest_face_value_is_taken_where_operators_told_it(
    database: str, owner: Owner
) -> None:
    books = Books(owner)
    ev = ETHER * WIN_PROB_CERTAIN
    books.issue(books.new_gateway(), face_value_wei=None, win_prob=None, round_=None, num_tickets=100, ev_numerator=ev)
    largest, to_come = [], []
    async with await psycopg.AsyncConnection.connect(in_role(database, SERVE_ROLE), autocommit=True) as connection:
        for name, wei in (("first", 5 * ETHER), ("second", 7 * ETHER), ("third", None)):
            owner.execute(
                "INSERT INTO webhook_signer (id, name, sender, face_value_max_wei) "
                "VALUES (gen_random_uuid(), %s, %s, %s)", [name, SENDER, wei],
            )  # fmt: skip
            book = await read_book(connection, escrow_of(), unseen_face_value_wei=3 * ETHER, with_payers=False)
            assert book.worst.ev_numerator == ev
            largest.append(book.worst.face_value_max_wei)
            to_come.append(book.unseen_to_come_max_wei)
        owner.execute("UPDATE webhook_signer SET revoked_at = now() WHERE name = 'second'")
        book = await read_book(connection, escrow_of(), unseen_face_value_wei=6 * ETHER, with_payers=False)
        to_come.append(book.unseen_to_come_max_wei)
        owner.execute("UPDATE webhook_signer SET revoked_at = now()")
        book = await read_book(connection, escrow_of(), unseen_face_value_wei=6 * ETHER, with_payers=False)
        to_come.append(book.unseen_to_come_max_wei)
    assert largest == [5 * ETHER, 7 * ETHER, 3 * ETHER]
    assert to_come == [5 * ETHER, 7 * ETHER, 7 * ETHER, 6 * ETHER, 0], "who is revoked asks no more"


async def test_sessions_run_over_the_sender_that_has_their_open_tickets_and_over_any_where_none_is_open(
    database: str, owner: Owner
) -> None:
    books = Books(owner)
    here, elsewhere, both, expired, new, idle = (books.new_gateway(sessions_open=n) for n in (1, 1, 1, 1, 1, 0))
    for gateway in (here, both, idle):
        books.issue(gateway)
    for gateway in (elsewhere, both):
        books.issue(gateway, sender=OTHER_SENDER)
    books.issue(expired, round_=3490, age=timedelta(days=3))
    books.issue(expired, sender=OTHER_SENDER, round_=3490, age=timedelta(days=3))
    owner.execute("SELECT set_coverage_gate(%s, 'ok', NULL, 60, '{}', '{}')", [OTHER_SENDER])
    async with await psycopg.AsyncConnection.connect(in_role(database, SERVE_ROLE)) as connection:
        book = await read_book(connection, escrow_of(), unseen_face_value_wei=1, with_payers=True)
    running = {payer.gateway_id for payer in book.payers if payer.is_running}
    assert running == {here, both, expired, new}


async def test_history_shows_the_worst_of_each_stretch_and_what_is_old_is_forgotten(
    database: str, admin: AsyncEngine
) -> None:
    now = datetime.now(UTC)
    async with await psycopg.AsyncConnection.connect(in_role(database, SERVE_ROLE), autocommit=True) as connection:
        for hour in range(100):
            escrow = escrow_of(deposit_wei=(1000 - hour if hour % 10 else 1) * ETHER)
            book = await read_book(connection, escrow, unseen_face_value_wei=1, with_payers=False)
            at = now - timedelta(hours=hour)
            await snapshots.record(
                connection, snapshot_of(evaluate(None, escrow, book, RULES), observed_at=at, is_enforced=True)
            )
    serve = async_engine(in_role(database, SERVE_ROLE))
    await snapshots.forget(serve, older_than=timedelta(hours=80, minutes=30))
    await serve.dispose()
    async with admin.connect() as reading:
        since = now - timedelta(days=30)
        points = await snapshots.history(reading, SENDER, since=since, sigmas=3, points_max_count=1000)
        assert len(points) == 81
        assert points == sorted(points)
        few = await snapshots.history(reading, SENDER, since=since, sigmas=3, points_max_count=4)
        assert len(few) == 4
        assert {point.deposit_wei for point in few} == {ETHER}
        (newest,) = await snapshots.newest_of_all(reading)
    assert newest.observed_at == points[-1].observed_at
