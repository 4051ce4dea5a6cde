"""Prices in the database: what sources said (for whoever looks back), and what operators set in their place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chain.rates import ETH, EthPrice
from clearinghouse.database.batches import to_its_end
from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.ids import uuid7
from clearinghouse.ledger.money import parse_amount, parse_currency
from clearinghouse.prices import Override

#: Who sets a price by hand looks at it again within this time: it does not follow the market.
OVERRIDE_MAX: Final = timedelta(days=7)
REASON_CHARS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Observation:
    """What a source said. `block_hash` where it was on a chain."""

    source: str
    currency: str
    observed_at: datetime
    price: Decimal
    block_hash: bytes | None = None


async def record(engine: AsyncEngine, observations: Iterable[Observation]) -> None:
    """Adds those that nobody has added yet. In role clearinghouse_serve."""
    insert = """
        INSERT INTO price_observation (source, currency, observed_at, price, block_hash)
        VALUES (:source, :currency, :observed_at, :price, :block_hash) ON CONFLICT DO NOTHING
    """
    rows = [
        {name: getattr(each, name) for name in ("source", "currency", "observed_at", "price", "block_hash")}
        for each in observations
    ]
    if rows:
        async with engine.begin() as connection:
            await connection.execute(text(insert), rows)


async def forget_observations(engine: AsyncEngine, *, older_than: timedelta) -> int:
    """Forgets what was recorded longer ago, in transactions of a bounded size. Returns how many."""
    return await to_its_end(engine, "SELECT forget_price_observations(:older_than)", {"older_than": older_than})


async def overrides_in_force(connection: AsyncConnection) -> list[Override]:
    """By currency. Any role."""
    query = """SELECT currency, price AS value, created_at AS set_at, until, actor, reason
                 FROM price_override_in_force ORDER BY currency"""
    return [Override(**row) for row in (await connection.execute(text(query))).mappings()]


async def set_override(
    connection: AsyncConnection, currency: str, price: str, *, until: datetime, reason: str, actor: str
) -> Override:
    """From now on, in place of every source and of an earlier override, until a time. In role clearinghouse_admin.

    InvalidRequest says what is wrong: a price as amounts are written, a time ahead and within OVERRIDE_MAX.
    """
    value = parse_amount(price, currency=_priced(currency))
    insert = """
        INSERT INTO price_override (id, currency, price, until, reason, actor)
        SELECT :id, :currency, :price, :until, :reason, :actor WHERE :until > now() AND :until <= now() + :at_most
        RETURNING currency, price AS value, created_at AS set_at, until, actor, reason
    """
    parameters = {
        "id": uuid7(), "currency": currency, "price": value, "until": until, "at_most": OVERRIDE_MAX,
        "reason": _reason(reason), "actor": actor,
    }  # fmt: skip
    _require_price(currency, value, until)
    row = (await connection.execute(text(insert), parameters)).mappings().one_or_none()
    if row is None:
        raise InvalidRequest(f"an override ends within {OVERRIDE_MAX.days} days from now, and not before now")
    return Override(**row)


async def clear_override(connection: AsyncConnection, currency: str, *, reason: str, actor: str) -> None:
    """The sources hold again. NotFound where no override of this currency is in force. In role clearinghouse_admin."""
    _priced(currency)
    insert = """
        INSERT INTO price_override (id, currency, reason, actor)
        SELECT :id, currency, :reason, :actor FROM price_override_in_force WHERE currency = :currency
    """
    parameters = {"id": uuid7(), "currency": currency, "reason": _reason(reason), "actor": actor}
    if (await connection.execute(text(insert), parameters)).rowcount == 0:
        raise NotFound(f"no override of the price in {currency} is in force")


def _priced(currency: str) -> str:
    if parse_currency(currency) == ETH:
        raise InvalidRequest("the price of ETH in ETH is 1 and cannot be set")
    return currency


def _reason(reason: str) -> str:
    if len(reason) > REASON_CHARS_MAX:
        raise InvalidRequest(f"a reason has at most {REASON_CHARS_MAX} characters")
    return reason


def _require_price(currency: str, value: Decimal, until: datetime) -> None:
    """What cannot be a price must not reach the services."""
    try:
        EthPrice(currency, value, "override", until)
    except ValueError as reason:
        raise InvalidRequest(str(reason)) from None
