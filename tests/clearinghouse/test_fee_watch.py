"""The watch over fees: who is noted, how often, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.fee_watch import FeeWatch, LowFees, note_low_fees
from clearinghouse.identity import gateways
from clearinghouse.ledger.accounts import standing

Connection = psycopg.Connection[tuple[object, ...]]
WATCH = FeeWatch(ratio_min_bps=100, ev_min_wei=10**13)


@pytest.fixture
async def serve(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, SERVE_ROLE))
    yield engine
    await engine.dispose()


async def gateway_with(admin: AsyncEngine, owner: Connection, *, fee_wei: int, ev_wei: int, days_ago: int = 0) -> UUID:
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, f"gateway-{fee_wei}-{ev_wei}-{days_ago}")
    owner.execute(
        """UPDATE account SET usage_day = (now() AT TIME ZONE 'UTC')::date - %s, fee_day_wei = %s, ev_day0_wei = %s
            WHERE id = %s""",
        [days_ago, fee_wei, ev_wei, gateway.id],
    )
    return gateway.id


@pytest.mark.parametrize(
    ("fee_wei", "ev_wei", "days_ago", "is_noted"),
    [
        (10**11 - 1, 10**13, 0, True),
        (10**11, 10**13, 0, False),  # a hundredth is not below a hundredth
        (0, 10**13 - 1, 0, False),  # too little to speak of
        (0, 0, 0, False),
        (0, 10**40, 0, True),
        (0, 10**13, 1, False),  # of another day
    ],
)
async def test_a_gateway_far_below_the_ratio_is_noted_once_it_used_enough(
    admin: AsyncEngine,
    serve: AsyncEngine,
    owner: Connection,
    *,
    fee_wei: int,
    ev_wei: int,
    days_ago: int,
    is_noted: bool,
) -> None:
    gateway_id = await gateway_with(admin, owner, fee_wei=fee_wei, ev_wei=ev_wei, days_ago=days_ago)
    noted = [LowFees(gateway_id, fee_wei, ev_wei)] if is_noted else []
    assert await note_low_fees(serve, WATCH) == noted
    assert await note_low_fees(serve, FeeWatch(0, 0)) == [], "a ratio of 0 watches nobody"


async def test_it_is_noted_once_an_hour_by_one_process_and_again_after_it(
    admin: AsyncEngine, serve: AsyncEngine, owner: Connection
) -> None:
    gateway_id = await gateway_with(admin, owner, fee_wei=0, ev_wei=10**13)
    noted = await asyncio.gather(*(note_low_fees(serve, WATCH) for _ in range(5)))
    assert sorted(map(len, noted)) == [0, 0, 0, 0, 1]
    owner.execute("UPDATE account SET low_fees_noted_at = now() - interval '59 minutes'")
    assert await note_low_fees(serve, WATCH) == []
    assert [low.gateway_id for low in await note_low_fees(serve, WATCH, every=timedelta(minutes=58))] == [gateway_id]


async def test_an_account_that_somebody_holds_is_left_for_the_next_time(
    admin: AsyncEngine, serve: AsyncEngine, owner: Connection
) -> None:
    await gateway_with(admin, owner, fee_wei=0, ev_wei=10**13)
    with owner.transaction():
        owner.execute("SELECT 1 FROM account FOR NO KEY UPDATE")
        async with asyncio.timeout(5):
            assert await note_low_fees(serve, WATCH) == []
    assert len(await note_low_fees(serve, WATCH)) == 1


@pytest.mark.parametrize(
    ("fee_wei", "ev_wei", "days_ago", "shown"),
    [(99, 10_000, 0, (99, 10_000, 99)), (1, 3, 0, (1, 3, 3333)), (0, 0, 0, (0, 0, None)), (5, 5, 1, (0, 0, None))],
)
async def test_a_standing_shows_the_day_s_fees_beside_its_expected_value(
    admin: AsyncEngine,
    owner: Connection,
    *,
    fee_wei: int,
    ev_wei: int,
    days_ago: int,
    shown: tuple[int, int, int | None],
) -> None:
    gateway_id = await gateway_with(admin, owner, fee_wei=fee_wei, ev_wei=ev_wei, days_ago=days_ago)
    async with admin.connect() as connection:
        now = await standing(connection, gateway_id)
    assert (now.fee_day_wei, now.ev_day_wei, now.fee_ev_bps) == shown
