"""Coverage on a chain: the deposit is drained by winners, and business slows down before the network refuses it.

Tickets of an offer win one time in five and then take five times their expected value, so twenty of them are enough to
be sure of some winners, and a hundred are worth a hundred times what one is.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import psycopg
import pytest

from chain.messages import decode_payment
from chain.signatures import keccak
from chain.tickets import Ticket, is_winning
from clearinghouse.api.answers import read_answer
from clearinghouse.checkup import coverage as checkup
from clearinghouse.checkup.findings import Status
from clearinghouse.coverage.lead import LOCK
from tests.abuses.attack import metrics_page
from tests.parts import client
from tests.parts.chained import PATIENCE_S, POLL_S, Chained, chained
from tests.parts.devnet import Devnet
from tests.parts.devnet.fault_proxy import hanging, honest
from tests.parts.service import running
from tests.parts.stack import SIGNER_KEY, TICKET_EV_WEI, Stream, TestGateway

AT_ONCE = 20
#: Of the face value: as large as it is here, a deposit of some fifty tickets' worth is enough to sign.
POLICY = {"face_value_divisor_count": 2}
#: A chain whose node has much to do beside.
PATIENT = {"timeout_s": 3}
ADMIN_TOKEN = "admin-token-of-a-test"
SENDER = SIGNER_KEY.address


@dataclass
class Winning:
    """A stream whose orchestrator is the test itself: it knows which tickets win."""

    over: Chained
    gateway: TestGateway
    rand: int = field(default_factory=lambda: secrets.randbits(255))
    winners: list[tuple[Ticket, bytes]] = field(default_factory=list)
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = self.over.new_stream()
        self.stream.offer.ticket_params.recipient_rand_hash = keccak(self.rand.to_bytes(32, "big"))
        self.stream.offer.price_info.pricePerUnit = AT_ONCE * TICKET_EV_WEI

    async def pay(self) -> None:
        """Twenty tickets more."""
        payment = decode_payment(read_answer((await self.over.service.pay(self.gateway, self.stream)).body).payment)
        assert len(payment.nonces) == AT_ONCE
        for nonce, signature in zip(payment.nonces, payment.signatures, strict=True):
            if is_winning(signature, self.rand, payment.win_prob):
                ticket = Ticket(
                    recipient=payment.recipient, sender=payment.sender, face_value_wei=payment.face_value_wei,
                    win_prob=payment.win_prob, sender_nonce=nonce, recipient_rand_hash=payment.recipient_rand_hash,
                    creation_round=payment.creation_round, creation_round_block_hash=payment.creation_round_block_hash,
                )  # fmt: skip
                self.winners.append((ticket, signature))

    async def refusal(self) -> client.Answer:
        answer = await self.over.service.sign(self.gateway, self.stream.body())
        assert answer.status == 503, answer.body
        assert answer.header("retry-after") is not None
        return answer

    async def redeem_until(self, level: str) -> None:
        """Winner after winner, until the service has found that."""
        while not (await self.over.check("coverage")).detail.startswith(f"level {level},"):
            assert self.winners, f"all winners were redeemed, and it is not {level}"
            ticket, signature = self.winners.pop()
            await asyncio.to_thread(self.over.devnet.redeem, ticket, signature, self.rand)
            await settled(self.over)


async def doctor_says(conninfo: str) -> tuple[Status, str]:
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        (finding,) = await checkup.gates(connection, is_enforced=True)
    return finding.status, finding.detail.rpartition(": ")[2]


async def seen(over: Chained, authorization: str) -> Any:
    """Of GET /v1/coverage."""
    answer = await client.call(over.service.port, "GET", "/v1/coverage", headers=[("Authorization", authorization)])
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


async def settled(over: Chained) -> None:
    """Everything that happened on the chain is in the book, and was evaluated."""
    await over.caught_up()
    wanted = int(over.devnet.rpc("eth_blockNumber"), 16)
    async with asyncio.timeout(PATIENCE_S):
        while over.service.house.fetch("SELECT coalesce(max(number), 0) FROM chain_block")[0][0] < wanted:
            await asyncio.sleep(0.05)
        done = evaluations(await metrics_page(over.service))
        while evaluations(await metrics_page(over.service)) < done + 2:  # the first of them may have begun before
            await asyncio.sleep(0.05)


async def test_winners_drain_the_deposit_new_sessions_are_refused_first_shares_come_next_and_funding_ends_it(
    database: str, devnet: Devnet
) -> None:
    async with chained(
        database, devnet, deposit_wei=400 * TICKET_EV_WEI, policy=POLICY, coverage={"gate_valid_s": 5}, chain=PATIENT,
        admin_token=ADMIN_TOKEN,
    ) as over:  # fmt: skip
        greedy, modest = [await over.service.house.new_gateway(tickets=1000) for _ in range(2)]
        large, small = Winning(over, greedy), Winning(over, modest)
        await small.pay()
        for _ in range(5):
            await large.pay()
        await over.until_level("ok")

        await large.redeem_until("watch")
        await large.pay()  # nothing is refused
        await Winning(over, modest).pay()

        await large.redeem_until("low")
        assert await doctor_says(database) == (Status.ERROR, "low, new sessions are refused")
        refused = await Winning(over, modest).refusal()
        assert refused.code == "coverage_low"
        await large.pay()  # running sessions go on

        await large.redeem_until("critical")
        code = None
        while code is None:  # the greedy one takes what it gets …
            answer = await over.service.sign(greedy, large.stream.body())
            code = answer.code if answer.status != 200 else large.stream.learn(answer.body)
        assert (code, answer.status) == ("coverage_critical", 503)
        (shown,) = (await seen(over, f"Bearer {ADMIN_TOKEN}"))["items"]
        assert (shown["level"], shown["is_known"]) == ("critical", True)
        books = over.service.house
        modest_wei = books.fetch("SELECT ev_total_max_wei FROM cover_share WHERE gateway_id = %s", modest.id)
        assert modest_wei, "… and the other one has a share that it did not touch"
        need = covered(over)
        assert need["deposit"] >= need["needed"], "no ticket went below the floor"

        with devnet.acting_as(SENDER):
            devnet.send("TicketBroker", "unlock()", sender=SENDER)
        await settled(over)
        assert (await small.refusal()).code == "coverage_critical", "what is being unlocked counts as gone"

        with devnet.acting_as(SENDER):
            devnet.send("TicketBroker", "cancelUnlock()", sender=SENDER)
        devnet.fund(SENDER, deposit_wei=2000 * TICKET_EV_WEI)
        await over.until_level("ok")
        await Winning(over, greedy).pay()
        await large.pay()
        assert await doctor_says(database) == (Status.OK, "ok")
        levels = books.fetch("SELECT DISTINCT level FROM coverage_snapshot")
        assert {("watch",), ("low",), ("critical",)} <= set(levels), "each is in a snapshot"
        ((delays,),) = books.fetch("SELECT max(delays_count) FROM coverage_snapshot")
        assert delays > 5, "silence is weighed by what was redeemed"
        await books.require_sound_books()


def covered(over: Chained) -> dict[str, int]:
    """The deposit and what the open tickets need, by arithmetic of the test's own."""
    ((tickets,),) = over.service.house.fetch("SELECT sum(num_tickets) FROM exposure_book")
    ((redeemed,),) = over.service.house.fetch("SELECT count(*) FROM winning_ticket")
    return {
        "deposit": (400 - 5 * redeemed) * TICKET_EV_WEI,
        "needed": (int(tickets) + 3 * isqrt(4 * int(tickets)) + 5) * TICKET_EV_WEI,
    }


@pytest.fixture
def lock_of_a_hung_process(database: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Somebody has the lead and evaluates nothing."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s::integer, hashtext(%s))", [LOCK, SENDER.hex()])
        yield connection


async def test_while_nobody_evaluates_calls_are_refused_and_it_recovers_by_itself(
    database: str, devnet: Devnet, lock_of_a_hung_process: psycopg.Connection[tuple[Any, ...]]
) -> None:
    async with chained(database, devnet, coverage={"gate_valid_s": 2}) as over:
        gateway = await over.service.house.new_gateway()
        assert not (await over.check("coverage")).ok
        for _ in range(2):
            refused = await Winning(over, gateway).refusal()
            assert (refused.code, refused.header("retry-after")) == ("coverage_unknown", "5")
        assert await seen(over, gateway.authorization) == {"level": None, "takes_new_sessions": False, "age_s": None}
        lock_of_a_hung_process.close()
        await over.until_level("ok")
        await Winning(over, gateway).pay()
        shown = await seen(over, gateway.authorization)
        assert shown.pop("age_s") in {0, 1, 2}, "no older than a gate may be"
        assert shown == {"level": "ok", "takes_new_sessions": True}


async def test_when_the_endpoints_are_down_the_gate_is_not_renewed_and_when_they_are_back_it_is(
    database: str, devnet: Devnet
) -> None:
    async with chained(database, devnet, chain={"stale_max_s": 3}, coverage={"gate_valid_s": 2}) as over:
        gateway = await over.service.house.new_gateway()
        session = Winning(over, gateway)
        await session.pay()
        for proxy in over.proxies:
            proxy.fault = hanging()
        async with asyncio.timeout(PATIENCE_S):
            while (await over.check("coverage")).ok:
                await asyncio.sleep(0.1)
            # By the process's own clock it ends a moment earlier, so that nobody relies on it for too long.
            while over.service.house.fetch("SELECT valid_until < clock_timestamp() FROM coverage_gate") != [(True,)]:
                await asyncio.sleep(0.1)
        assert (await session.refusal()).code in {"registry_unknown", "coverage_unknown"}
        page = (await metrics_page(over.service)).decode()
        assert 'clearinghouse_coverage_evaluations_total{outcome="escrow_unknown"} 0.0' not in page
        for proxy in over.proxies:
            proxy.fault = honest
        await over.caught_up()
        await session.pay()


async def test_over_a_declared_escrow_nothing_is_refused_unless_that_is_wanted(database: str) -> None:
    unlocking = {"withdraw_round": 4000}
    for enforced, status in (("auto", 200), ("no", 200), ("yes", 503)):
        async with running(database, escrow=unlocking, coverage={"enforced": enforced, "evaluate_s": 0.1}) as service:
            gateway = await service.house.new_gateway()
            answer = await service.sign(gateway, service.new_stream().body())
            assert answer.status == status, answer.body
            if status == 503:
                assert answer.code == "coverage_low"


async def test_coverage_asks_the_chain_nothing_of_its_own(database: str, devnet: Devnet) -> None:
    async with chained(database, devnet, chain={"index_enabled": False}, coverage={"evaluate_s": 0.05}) as over:
        async with asyncio.timeout(PATIENCE_S):
            await over.until_level("ok")
        done = evaluations(await metrics_page(over.service))
        began_s, before = time.monotonic(), [len(proxy.requests) for proxy in over.proxies]
        async with asyncio.timeout(PATIENCE_S):
            while evaluations(await metrics_page(over.service)) <= done + 15:
                await asyncio.sleep(0.2)
        polls_most = (time.monotonic() - began_s) / POLL_S + 1
        asked = max(len(proxy.requests) - count for proxy, count in zip(over.proxies, before, strict=True))
    assert asked <= 2 * polls_most, "two requests a poll"


def evaluations(page: bytes) -> float:
    start = b'clearinghouse_coverage_evaluations_total{outcome="done"} '
    (line,) = [line for line in page.splitlines() if line.startswith(start)]
    return float(line.removeprefix(start))
