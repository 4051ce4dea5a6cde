"""Rate cards in the database of a test, and gateways that are put on them."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse import rate_store
from clearinghouse.identity import gateways, plans
from clearinghouse.ids import show
from clearinghouse.rates.card import CardVersion
from clearinghouse.rates.document import read_json
from clearinghouse.rates.rules import StoredVersion
from tests.parts.stack import TestGateway


def card_of(*rates: dict[str, Any], card: str = "standard", version: int = 1, **fields: Any) -> CardVersion:
    """In the words of docs/rates.md. It has held for long."""
    whole = {"card": card, "version": version, "currency": "USD", "effective_from": "2026-01-01T00:00:00Z", **fields}
    return read_json(json.dumps({**whole, "rates": list(rates)}))


async def applied(engine: AsyncEngine, card: CardVersion) -> StoredVersion:
    """From now on, also where it begins in the past."""
    async with engine.begin() as connection:
        return await rate_store.apply(connection, card, is_correction=True, actor="test")


async def put_on(engine: AsyncEngine, gateway: TestGateway, card: str) -> None:
    async with engine.begin() as connection:
        found = await gateways.find(connection, show("gw", gateway.id))
        await rate_store.assign_to_gateway(connection, found, card, actor="test")


async def allow_below_cost(engine: AsyncEngine) -> None:
    """To every gateway on the plan that they begin on."""
    async with engine.begin() as connection:
        plan = await rate_store.assign_to_plan(
            connection, "default", rate_store.NONE, may_be_below_cost=True, actor="test"
        )
    await plans.apply(engine, plan)
