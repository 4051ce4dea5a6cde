"""The ceiling over all gateways: what a process knows of it between two readings, and when it knows nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.errors import CeilingReached, Unavailable
from clearinghouse.identity import gateways
from clearinghouse.open_ev import STALE_AFTER_S, OpenEvCeiling

Connection = psycopg.Connection[tuple[object, ...]]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def serve(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, SERVE_ROLE))
    yield engine
    await engine.dispose()


async def with_open_ev(admin: AsyncEngine, owner: Connection, *amounts_wei: int) -> None:
    """A gateway for each amount, on three days in turn."""
    for number, amount_wei in enumerate(amounts_wei):
        async with admin.begin() as connection:
            gateway = await gateways.create(connection, f"gateway-{number}")
        column = f"ev_day{number % 3}_wei"
        owner.execute(
            f"UPDATE account SET usage_day = (now() AT TIME ZONE 'UTC')::date, {column} = %s WHERE id = %s".encode(),
            [amount_wei, gateway.id],
        )


def fits(ceiling: OpenEvCeiling, ev_wei: int) -> bool:
    try:
        ceiling.require(ev_wei)
    except CeilingReached:
        return False
    return True


async def test_the_gateways_are_added_up_and_what_was_released_here_since(
    admin: AsyncEngine, serve: AsyncEngine, owner: Connection
) -> None:
    await with_open_ev(admin, owner, 10**20, 20, 30, 40)
    ceiling = OpenEvCeiling(serve, max_wei=10**20 + 100, now_s=Clock())
    await ceiling.read()
    assert (fits(ceiling, 10), fits(ceiling, 11)) == (True, False)
    ceiling.released(10)
    assert (fits(ceiling, 0), fits(ceiling, 1)) == (True, False)
    await ceiling.read()  # it was not recorded, so it is not open
    assert (fits(ceiling, 10), fits(ceiling, 11)) == (True, False)


async def test_a_reading_holds_for_a_few_seconds_and_then_nothing_fits(serve: AsyncEngine) -> None:
    clock = Clock()
    ceiling = OpenEvCeiling(serve, max_wei=100, now_s=clock)
    with pytest.raises(Unavailable, match="not known"):
        ceiling.require(0)
    await ceiling.read()
    clock.now_s += STALE_AFTER_S
    assert fits(ceiling, 100)
    clock.now_s += 0.1
    with pytest.raises(Unavailable, match="not known"):
        ceiling.require(0)


async def test_a_reading_that_fails_forgets_nothing_that_was_released(
    admin: AsyncEngine, serve: AsyncEngine, owner: Connection
) -> None:
    ceiling = OpenEvCeiling(serve, max_wei=100, now_s=Clock())
    await ceiling.read()
    ceiling.released(60)
    owner.execute("ALTER VIEW gateway_usage RENAME TO gone")
    with pytest.raises(DBAPIError):
        await ceiling.read()
    assert (fits(ceiling, 40), fits(ceiling, 41)) == (True, False)


async def test_a_database_that_is_away_does_not_keep_the_service_from_starting(tmp_path: Path) -> None:
    ceiling = OpenEvCeiling(async_engine(f"host={tmp_path} dbname=away"), max_wei=100)
    await ceiling.start()
    with pytest.raises(Unavailable, match="not known"):
        ceiling.require(1)
    await ceiling.stop()
