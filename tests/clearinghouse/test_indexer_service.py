"""The indexer within the service: tickets that were paid for, signed and redeemed on the chain."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from chain.messages import decode_payment
from chain.signatures import keccak
from chain.tickets import is_winning
from clearinghouse.api.answers import read_answer
from clearinghouse.checkup import chain_index
from clearinghouse.checkup.findings import Status
from tests.parts import client
from tests.parts.chained import Chained, chained
from tests.parts.devnet import Devnet
from tests.parts.stack import TICKET_EV_WEI, TestGateway
from tests.parts.winners import ticket_of

RAND = 4711
PATIENCE_S = 60


async def pay_and_redeem(over: Chained, gateway: TestGateway) -> int:
    """Returns how many of twenty tickets won and were redeemed: the same each time, for nothing in them is random."""
    stream = over.new_stream()
    stream.offer.ticket_params.recipient_rand_hash = keccak(RAND.to_bytes(32, "big"))
    stream.offer.price_info.pricePerUnit = 20 * TICKET_EV_WEI
    answer = read_answer((await over.service.pay(gateway, stream)).body)
    payment = decode_payment(answer.payment)
    assert len(payment.nonces) == 20
    signed = zip(payment.nonces, payment.signatures, strict=True)
    winners = [(nonce, sig) for nonce, sig in signed if is_winning(sig, RAND, payment.win_prob)]
    assert winners
    for nonce, signature in winners:
        over.devnet.redeem(ticket_of(payment, nonce), signature, RAND)
    return len(winners)


async def statuses(conninfo: str, count: int) -> list[str]:
    """Waits until so many redeemed tickets were compared with what was issued."""
    async with asyncio.timeout(PATIENCE_S):
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            while True:
                found = await (await connection.execute("SELECT status FROM winning_ticket")).fetchall()
                if len(found) >= count and "unmatched" not in {status for (status,) in found}:
                    return [status for (status,) in found]
                await asyncio.sleep(0.1)


async def doctor_says(conninfo: str) -> list[tuple[Status, str]]:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        found: Any = await chain_index.events(connection, is_enabled=True)
    return [(finding.status, finding.detail) for finding in found]


async def test_a_ticket_that_the_service_issued_is_matched_when_it_is_redeemed(database: str, devnet: Devnet) -> None:
    assert [status for status, _ in await doctor_says(database)] == [Status.WARNING]
    async with chained(database, devnet, chain={"confirmations_count": 50}) as over:
        gateway = await over.service.house.new_gateway(tickets=20)
        count = await pay_and_redeem(over, gateway)
        assert await statuses(database, count) == ["matched"] * count
        exposed = (await client.call(over.service.running.http_port, "GET", "/metrics")).body.decode()
        assert "\nclearinghouse_chain_index_leads 1.0\n" in exposed
        assert f'\nclearinghouse_chain_redemptions_total{{status="matched"}} {count}.0\n' in exposed
        ((status, detail),) = await doctor_says(database)
        assert (status, "every redeemed ticket is ours" in detail) == (Status.OK, True)


async def test_the_doctor_calls_a_foreign_redemption_an_error(database: str, devnet: Devnet) -> None:
    async with chained(database, devnet) as over:
        gateway = await over.service.house.new_gateway(tickets=20)
        count = await pay_and_redeem(over, gateway)
        await statuses(database, count)
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE winning_ticket SET status = 'foreign'")
        ((status, detail),) = await doctor_says(database)
        assert (status, "the key signs elsewhere" in detail) == (Status.ERROR, True)
