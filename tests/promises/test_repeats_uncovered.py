"""Promise 3 where the deposit covers nothing any more: what was paid for is answered again, whoever is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from clearinghouse.coverage.early import READ_INTERVAL_S
from clearinghouse.coverage.lead import LOCK
from tests.parts.asking import asking
from tests.parts.service import Service, running
from tests.parts.stack import SIGNER_KEY

SENDER = SIGNER_KEY.address


@asynccontextmanager
async def two_obeying(conninfo: str) -> AsyncIterator[tuple[Service, Service]]:
    """Two processes that obey the gates, and evaluate nothing: the test has the lead."""
    served = {"coverage": {"enforced": "yes"}, "webhook": {"enabled": True}}
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s::integer, hashtext(%s))", [LOCK, SENDER.hex()])
        await gate(conninfo, "ok")
        async with running(conninfo, **served) as first, running(conninfo, **served) as second:
            yield first, second
            await first.house.require_sound_books()


async def gate(conninfo: str, level: str, *, valid_s: int = 60) -> None:
    """Without shares. Returns when every process has read it."""
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await connection.execute("SELECT set_coverage_gate(%s, %s, NULL, %s, '{}', '{}')", [SENDER, level, valid_s])
    await asyncio.sleep(READ_INTERVAL_S + 0.3)


@pytest.mark.parametrize(("level", "valid_s", "code"), [("critical", 60, "critical"), ("ok", 0, "unknown")])
async def test_what_another_process_was_paid_for_is_answered_again_where_nothing_is_covered(
    database: str, level: str, valid_s: int, code: str
) -> None:
    async with two_obeying(database) as (first, second):
        gateway, stream = await first.house.new_gateway(tickets=10), first.new_stream()
        await second.pay(gateway, stream)  # the second one remembers the session as it was …
        body = stream.body()
        paid = await first.pay(gateway, stream)  # … and the first one takes it on
        await gate(database, level, valid_s=valid_s)
        before = first.house.fingerprint()
        for service in (first, second):
            again = await service.sign(gateway, body)
            assert (again.status, again.body) == (200, paid.body)
            refused = await service.sign(gateway, stream.body())
            assert (refused.status, refused.code) == (503, f"coverage_{code}"), "what is not paid for is not covered"
        assert first.house.fingerprint() == before, "nothing was charged or recorded"


async def test_what_another_process_approved_is_approved_again_where_nothing_is_covered(database: str) -> None:
    async with two_obeying(database) as (first, second), asking(first) as one, asking(second) as other:
        gateway, stream = await first.house.new_gateway(tickets=10), first.new_stream()
        await other.pay(gateway, stream)
        assert (await one.sign(gateway, stream.body())).status == 200
        await gate(database, "critical")
        before = first.house.sums(gateway).tickets
        assert (await other.sign(gateway, stream.body())).status == 200
        assert first.house.sums(gateway).tickets == before
