"""One gateway's trouble is not another's: an account that somebody holds locked does not hold up the others."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import psycopg
import pytest

from clearinghouse import open_ev
from tests.parts.client import CLIENT_TIMEOUT_S, Answer, call
from tests.parts.service import Service, running
from tests.parts.stack import TestGateway

PATIENCE_S = 30


async def until_signed(service: Service, gateway: TestGateway, body: bytes) -> Answer:
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await service.sign(gateway, body)).status != 200:
            assert (answer.status, answer.code) == (503, "account_busy")
            await asyncio.sleep(0.1)
    return answer


async def test_a_locked_account_is_answered_busy_and_its_neighbours_are_paid_in_time(service: Service) -> None:
    held, *free = [await service.house.new_gateway() for _ in range(5)]
    bodies = [service.new_stream().body() for _ in range(6)]

    async def pay_on_and_on(gateway: TestGateway) -> None:
        stream = service.new_stream()
        for _ in range(5):
            async with asyncio.timeout(CLIENT_TIMEOUT_S):
                await service.pay(gateway, stream)

    with psycopg.connect(service.house.conninfo) as other:
        other.execute("SELECT 1 FROM account WHERE id = %s FOR UPDATE", [held.id])
        busy = asyncio.gather(*(service.sign(held, body) for body in bodies))
        await asyncio.gather(*map(pay_on_and_on, free))
        answers = await busy
    assert {(answer.status, answer.code) for answer in answers} == {(503, "account_busy")}
    assert {answer.header("retry-after") for answer in answers} == {"1"}
    assert service.house.sums(held).issuances == 0
    for body in bodies:
        await until_signed(service, held, body)
    assert service.house.sums(held).issuances == len(bodies)


async def test_a_gateway_that_reads_on_and_on_keeps_nobody_from_being_signed_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the sum of what is open nothing is signed: no gateway's reads may take the connection it is read with."""
    monkeypatch.setattr(open_ev, "STALE_AFTER_S", 2)
    async with running(database, policy={"ev_open_max_wei": str(10**18)}) as service:
        reader, payer = await service.house.new_gateway(), await service.house.new_gateway()
        asked = ("Authorization", reader.authorization)
        with psycopg.connect(service.house.conninfo) as other:
            other.execute("LOCK TABLE credit_lot")  # so that every reading of a balance waits
            # They outlast all patience, so that no connection is free again because somebody has gone.
            reads = [call(service.port, "GET", "/v1/balance", headers=[asked], timeout_s=120) for _ in range(32)]
            reading = asyncio.gather(*reads)
            await asyncio.sleep(open_ev.STALE_AFTER_S + 2 * open_ev.READ_INTERVAL_S)
            async with asyncio.timeout(PATIENCE_S):  # a machine that stood still makes a sum stale for a moment
                while (await service.sign(payer, service.new_stream().body())).status != 200:
                    await asyncio.sleep(0.1)
                while (await call(service.port, "GET", "/readyz")).status != 200:
                    await asyncio.sleep(0.1)
            assert not reading.done()
        assert {answer.status for answer in await reading} <= {200, 503}


async def test_one_locked_account_keeps_no_other_gateway_out_of_four_processes(database: str) -> None:
    """A batch that waits for it holds the accounts it has locked already, and others' batches wait for those."""
    async with AsyncExitStack() as stack:
        services = [await stack.enter_async_context(running(database)) for _ in range(4)]
        house = services[0].house
        held, *free = [await house.new_gateway(tickets=1000) for _ in range(5)]
        with psycopg.connect(house.conninfo) as other:
            other.execute("SELECT 1 FROM account WHERE id = %s FOR UPDATE", [held.id])
            trying = [asyncio.create_task(_try_on_and_on(service, held)) for service in services]
            await asyncio.gather(*(_pay_three_times(service, gateway) for service in services for gateway in free))
            for task in trying:
                task.cancel()
            ends = await asyncio.gather(*trying, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
            # Still locked: a call whose client has gone may be paid for as soon as the account is free.
            paid_for = other.execute("SELECT count(*) FROM issuance WHERE gateway_id = %s", [held.id]).fetchone()
            assert paid_for == (0,)
        assert [house.sums(gateway).issuances for gateway in free] == [3 * len(services)] * len(free)


async def _try_on_and_on(service: Service, gateway: TestGateway) -> None:
    while True:
        answer = await service.sign(gateway, service.new_stream().body())
        assert (answer.status, answer.code) == (503, "account_busy")
        await asyncio.sleep(0.02)


async def _pay_three_times(service: Service, gateway: TestGateway) -> None:
    stream = service.new_stream()
    for _ in range(3):
        await service.pay(gateway, stream)


async def test_a_transaction_that_its_client_forgot_is_ended_and_lets_go_of_the_account(service: Service) -> None:
    gateway = await service.house.new_gateway()
    async with service.house.engine.connect() as connection:
        found = await connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
        assert found.scalar_one() == "10s"
        await connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '300ms'")
        await connection.exec_driver_sql("SELECT 1 FROM account WHERE id = %(id)s FOR UPDATE", {"id": gateway.id})
        await until_signed(service, gateway, service.new_stream().body())
        await connection.invalidate()
