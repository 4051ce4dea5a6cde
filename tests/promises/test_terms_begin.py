"""Billing terms that begin hold on the way in as well: a limit lets in, and its end keeps out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from clearinghouse.housekeeping import TERMS_INTERVAL_S
from clearinghouse.identity.authenticate import REFUSAL_REMEMBERED_S
from tests.parts.service import Service, running
from tests.parts.stack import TestGateway

PATIENCE_S = 30
INSERT = "INSERT INTO billing_terms (gateway_id, begins_at, way, credit_limit) VALUES (%s, %s, %s, %s)"


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with running(database) as service:
        yield service
        await service.house.require_sound_books()


def begins(database: str, gateway: TestGateway, way: str, limit: int, *, in_s: float) -> datetime:
    at = datetime.now(UTC) + timedelta(seconds=in_s)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(INSERT, [gateway.id, at, way, limit])
    return at


async def until(instant: datetime) -> None:
    while datetime.now(UTC) <= instant:
        await asyncio.sleep(0.02)


async def test_a_limit_lets_in_soon_after_it_begins_and_keeps_out_from_its_end_on(
    service: Service, database: str
) -> None:
    gateway, stream = await service.house.new_gateway(tickets=0), service.new_stream()
    at = begins(database, gateway, "postpaid", 5, in_s=2.5)
    refused = await service.sign(gateway, stream.body())
    assert (refused.status, refused.code) == (402, "out_of_credit")
    await until(at + timedelta(seconds=TERMS_INTERVAL_S + REFUSAL_REMEMBERED_S))
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await service.sign(gateway, stream.body())).status != 200:
            await asyncio.sleep(0.1)
    stream.learn(answer.body)
    await service.pay(gateway, stream)
    at = begins(database, gateway, "prepaid", 0, in_s=2.5)
    await service.pay(gateway, stream)
    await until(at)
    before = service.house.sums(gateway)
    answer = await service.sign(gateway, stream.body())
    assert (answer.status, answer.code) == (402, "out_of_credit"), "though the caller is remembered with its limit"
    after = service.house.sums(gateway)
    assert (after.issuances, after.balance, after.credit_limit) == (before.issuances, before.balance, 0)
    assert after.balance < 0
