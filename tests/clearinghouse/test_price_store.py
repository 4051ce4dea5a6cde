"""Prices in the database: added once, never changed, forgotten when old; and overrides with who set them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse import price_store
from clearinghouse.database.connect import ADMIN_ROLE, SERVE_ROLE, async_engine, in_role
from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.price_store import Observation, clear_override, overrides_in_force, set_override
from clearinghouse.prices import Override

NOON = datetime(2026, 4, 7, 12, tzinfo=UTC)


@pytest.fixture
async def serve(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, SERVE_ROLE))
    yield engine
    await engine.dispose()


@pytest.fixture
async def operator(database: str) -> AsyncIterator[AsyncEngine]:
    engine = async_engine(in_role(database, ADMIN_ROLE))
    yield engine
    await engine.dispose()


async def observations(engine: AsyncEngine) -> list[tuple[str, str, Decimal]]:
    async with engine.connect() as connection:
        query = "SELECT source, currency, price FROM price_observation ORDER BY observed_at, source"
        return [tuple(row) for row in await connection.execute(text(query))]


async def in_force(engine: AsyncEngine) -> list[Override]:
    async with engine.connect() as connection:
        return await overrides_in_force(connection)


async def test_an_observation_is_kept_once_whoever_sees_it_and_to_the_last_digit(serve: AsyncEngine) -> None:
    seen = Observation("chainlink", "USD", NOON, Decimal("3123.456789012345"), b"\x01" * 32)
    later = Observation("chainlink", "USD", NOON + timedelta(seconds=1), Decimal(3124))
    other = Observation("second_opinion", "USD", NOON, Decimal("3120.1234567890123456789"))
    await price_store.record(serve, [seen, other])
    await price_store.record(serve, [seen, later, other])
    assert await observations(serve) == [
        ("chainlink", "USD", Decimal("3123.456789012345")),
        ("second_opinion", "USD", Decimal("3120.1234567890123456789")),
        ("chainlink", "USD", Decimal(3124)),
    ]


@pytest.mark.parametrize("change", ["UPDATE price_observation SET price = 1", "DELETE FROM price_observation",
                                    "UPDATE price_override SET price = 1", "DELETE FROM price_override"])  # fmt: skip
async def test_nobody_of_ours_changes_what_was_recorded(serve: AsyncEngine, operator: AsyncEngine, change: str) -> None:
    for engine in (serve, operator):
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with engine.begin() as connection:
                await connection.execute(text(change))


async def test_a_service_cannot_set_a_price(serve: AsyncEngine) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        async with serve.begin() as connection:
            await set_override(
                connection, "USD", "1", until=datetime.now(UTC) + timedelta(hours=1), reason="", actor="me"
            )


async def test_old_observations_are_forgotten_and_new_ones_kept(serve: AsyncEngine) -> None:
    """By when they were recorded: the feed's own time may be a day back."""
    await price_store.record(serve, [Observation("chainlink", "USD", NOON, Decimal(3000))])
    assert await price_store.forget_observations(serve, older_than=timedelta(hours=1)) == 0
    assert await price_store.forget_observations(serve, older_than=timedelta(0)) == 1
    assert await observations(serve) == []


async def test_the_newest_override_holds_until_it_ends_or_is_cleared(operator: AsyncEngine) -> None:
    soon, later = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (3600, 7200))
    for price, until in (("3000", later), ("3100.5", soon)):
        async with operator.begin() as connection:
            await set_override(connection, "USD", price, until=until, reason="why", actor="cli:alice")
    (found,) = await in_force(operator)
    assert (found.currency, found.value, found.until) == ("USD", Decimal("3100.5"), soon)
    assert (found.actor, found.reason) == ("cli:alice", "why")
    async with operator.begin() as connection:
        await clear_override(connection, "USD", reason="", actor="cli:bob")
    assert await in_force(operator) == []
    async with operator.begin() as connection:
        with pytest.raises(NotFound, match="no override of the price in USD"):
            await clear_override(connection, "USD", reason="", actor="cli:bob")
        rows = await connection.execute(text("SELECT actor FROM price_override ORDER BY created_at, id"))
        assert rows.scalars().all() == ["cli:alice", "cli:alice", "cli:bob"]


@pytest.mark.parametrize(
    ("currency", "price", "hours", "reason"),
    [
        ("USD", "3000", 0, "within 7 days"),
        ("USD", "3000", -1, "within 7 days"),
        ("USD", "3000", 24 * 7 + 1, "within 7 days"),
        ("USD", "0", 1, "greater than 0"),
        ("USD", "-1", 1, "plain decimal number"),
        ("USD", "1e3", 1, "plain decimal number"),
        ("USD", "99999999999999", 1, "digits on either side"),
        ("usd", "3000", 1, "capital letters"),
        ("ETH", "1", 1, "cannot be set"),
    ],
)
async def test_what_cannot_be_a_price_or_an_end_is_refused(
    operator: AsyncEngine, currency: str, price: str, hours: int, reason: str
) -> None:
    until = datetime.now(UTC) + timedelta(hours=hours)
    async with operator.begin() as connection:
        with pytest.raises(InvalidRequest, match=reason):
            await set_override(connection, currency, price, until=until, reason="", actor="me")
    assert await in_force(operator) == []
