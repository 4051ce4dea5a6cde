"""What reading the chain costs while nothing special happens: at most two requests a poll to each endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from chain.tickets import ticket_hash
from clearinghouse.chain_watch import ChainWatch, Poll, budgets_of, chain_watched
from clearinghouse.config_chain import ChainSettings
from clearinghouse.indexer import IndexWatch, indexer_of
from tests.parts.devnet import Devnet, FaultProxy, fault_proxy
from tests.parts.indexed import ORCHESTRATOR, RAND, SENDER, Heard, ticket

POLL_S = 0.5
POLLS_COUNT = 8
OTHERS = [bytes([7, number]) * 10 for number in range(30)]
CLAIMANTS = [ORCHESTRATOR, *(bytes([8, number]) * 10 for number in range(40))]


@dataclass
class Polled(Heard):
    """And how often the chain was read."""

    polls: list[Poll] = field(default_factory=list)

    def chain_polled(self, outcome: Poll) -> None:
        self.polls.append(outcome)

    def chain_read(self, *, round_: int, active_count: int) -> None: ...

    async def further(self, count: int) -> None:
        wanted = len(self.polls) + count
        async with asyncio.timeout(60):
            while len(self.polls) < wanted:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def reading(database: str, devnet: Devnet, heard: Polled) -> AsyncIterator[tuple[ChainWatch, list[FaultProxy]]]:
    """The watch and the indexer as a service has them, over two endpoints."""
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(fault_proxy(devnet.url)) for _ in range(2)]
        settings = ChainSettings.model_validate(
            {"network": "dev", "rpc_urls": [proxy.url for proxy in proxies], "poll_s": POLL_S, "index_from_block": 1}
        )
        budgets = budgets_of(settings)
        watch = await stack.enter_async_context(
            chain_watched(settings, SENDER.address, observer=heard, budgets=budgets)
        )
        indexer = await stack.enter_async_context(
            indexer_of(settings, database, [SENDER.address], observer=heard, budgets=budgets)
        )
        index = IndexWatch(indexer, poll_s=POLL_S)
        index.start()
        stack.push_async_callback(index.stop)
        yield watch, proxies


async def test_a_poll_of_many_senders_and_claims_with_the_indexer_is_two_requests_to_each_endpoint(
    database: str, devnet: Devnet
) -> None:
    devnet.join(ORCHESTRATOR)
    devnet.next_round()
    devnet.fund(SENDER.address, reserve_wei=100)
    claim = ticket(1, face_value_wei=60)
    devnet.redeem(claim, SENDER.eth_sign(ticket_hash(claim)), RAND)
    heard = Polled()
    async with reading(database, devnet, heard) as (watch, proxies):
        watch.follow(OTHERS)
        watch.want_claims({SENDER.address: CLAIMANTS, OTHERS[0]: CLAIMANTS})
        await heard.further(4)
        before, began_s = [len(proxy.requests) for proxy in proxies], time.monotonic()
        polled_before = len(heard.polls)
        await heard.further(POLLS_COUNT)
        spent = [len(proxy.requests) - count for proxy, count in zip(proxies, before, strict=True)]
        polls_count = len(heard.polls) - polled_before
        # The indexer looks for itself, after pauses as long as a poll's.
        turns_most = (time.monotonic() - began_s) / POLL_S + 1
        escrows = watch.newest().escrows
    assert set(heard.polls) == {Poll.READ}
    assert set(escrows) == {SENDER.address, *OTHERS}
    assert escrows[SENDER.address].claimed_by_wei == {ORCHESTRATOR: 60} | dict.fromkeys(CLAIMANTS[1:], 0)
    assert all(polls_count <= count <= polls_count + turns_most + 1 for count in spent), (
        polls_count,
        turns_most,
        spent,
    )
    assert heard.behind[-1] <= 3, "and the indexer keeps up"
