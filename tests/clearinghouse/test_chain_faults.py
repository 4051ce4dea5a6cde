"""What endpoints do wrong, each of it under the escrow's readings and under the indexer: nothing false is ever known, a
third endpoint makes up for one, and afterwards nothing is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from chain.escrow_reader import EscrowReader
from chain.networks import DEV
from chain.quorum import NoDecision, Quorum
from chain.rpc import RpcEndpoint
from tests.parts.devnet import DEV_CHAIN_ID, Devnet
from tests.parts.devnet.fault_proxy import (
    Fault,
    half_a_batch,
    hanging,
    honest,
    lying_l1_block,
    stale_head,
    status,
    wrong_chain_id,
)
from tests.parts.indexed import ETHER, SENDER, Indexed, indexed, prepared, ticket

HEAD_AGE_MAX_S = 3600
TIMEOUT_S = 1
RECOVERY_MAX_S = 40


def old_head(devnet: Devnet) -> Fault:
    """A node that stopped two hours ago."""
    block = devnet.rpc("eth_getBlockByNumber", "0x1", False)
    return stale_head({**block, "timestamp": hex(int(block["timestamp"], 16) - 2 * HEAD_AGE_MAX_S)})


#: Of the endpoint, and how it is called when nothing can be known for it.
FAULTS: dict[str, tuple[Callable[[Devnet], Fault], str]] = {
    "429": (lambda _: status(429, ("Retry-After", "1")), "rpc-2 rate_limited"),
    "latency": (lambda _: hanging(60), "rpc-2 timed_out"),
    "stale head": (old_head, "rpc-2 stale_head"),
    "lying l1BlockNumber": (lambda _: lying_l1_block(7), "disagree about"),
    "half a batch": (lambda _: half_a_batch(), "rpc-2 malformed"),
    "wrong chain id": (lambda _: wrong_chain_id(), "rpc-2 wrong_chain"),
}


@dataclass
class Both:
    """The two that read the chain, over the same ways."""

    chain: Indexed
    reader: EscrowReader

    async def look(self) -> None:
        """One poll of one, one turn of the other; both raise for themselves."""
        await self.reader.poll()
        await self.chain.indexer.turn()

    async def complaint(self, work: Callable[[], Awaitable[Any]]) -> str:
        """What is said where nothing is known, in one of the next attempts: the first may need no answer of rpc-2's."""
        for _ in range(3):
            try:
                await work()
            except NoDecision as reason:
                return str(reason)
        raise AssertionError("it was never refused")


@asynccontextmanager
async def both(database: str, devnet: Devnet, *, endpoints: int) -> AsyncIterator[Both]:
    async with indexed(database, devnet, endpoints=endpoints) as chain:
        chain.reader._quorum._timeout_s = TIMEOUT_S
        quorum = Quorum(
            [RpcEndpoint(proxy.url, name=f"rpc-{at}") for at, proxy in enumerate(chain.proxies, 1)],
            chain_id=DEV_CHAIN_ID, count=2, timeout_s=TIMEOUT_S, head_age_max_s=HEAD_AGE_MAX_S,
        )  # fmt: skip
        try:
            yield Both(chain, EscrowReader(quorum, DEV, SENDER.address, stale_max_s=HEAD_AGE_MAX_S))
        finally:
            await quorum.close()


async def until_well(work: Callable[[], Awaitable[Any]], is_well: Callable[[], bool]) -> None:
    """Endpoints are left alone for a while after a failure."""
    async with asyncio.timeout(RECOVERY_MAX_S):
        while not is_well():
            try:
                await work()
            except NoDecision:
                await asyncio.sleep(0.2)


@pytest.mark.parametrize("name", FAULTS)
async def test_without_a_third_nothing_is_known_and_afterwards_nothing_is_missing(
    database: str, devnet: Devnet, name: str
) -> None:
    prepared(devnet)
    fault, said = FAULTS[name]
    async with both(database, devnet, endpoints=2) as readers:
        chain, reader = readers.chain, readers.reader
        await reader.poll()
        await chain.catch_up()
        before, recorded = reader.read(), chain.recorded()
        chain.proxies[1].fault = fault(devnet)
        devnet.fund(SENDER.address, deposit_wei=77)
        chain.redeem(ticket(1))
        assert said in await readers.complaint(reader.poll)
        assert said in await readers.complaint(chain.indexer.turn)
        assert (reader.read(), chain.recorded()) == (before, recorded)
        chain.proxies[1].fault = honest
        left_wei = before.deposit_wei + 77 - ETHER // 1000
        await until_well(reader.poll, lambda: reader.read().deposit_wei == left_wei)
        await until_well(chain.indexer.turn, lambda: chain.redeemed() == [(1, "foreign")])
        (funded,) = chain.query("SELECT count(*) FROM escrow_event WHERE kind = 'deposit_funded' AND amount_wei = 77")
        assert funded == (1,)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_third_endpoint_makes_up_for_one(database: str, devnet: Devnet, name: str) -> None:
    prepared(devnet)
    fault, _ = FAULTS[name]
    async with both(database, devnet, endpoints=3) as readers:
        chain, reader = readers.chain, readers.reader
        await reader.poll()
        await chain.catch_up()
        chain.proxies[1].fault = fault(devnet)
        devnet.fund(SENDER.address, deposit_wei=77)
        chain.redeem(ticket(1))
        left_wei = 2 * ETHER + 77 - ETHER // 1000
        await until_well(reader.poll, lambda: reader.read().deposit_wei == left_wei)
        await until_well(chain.indexer.turn, lambda: chain.redeemed() == [(1, "foreign")])
        assert chain.heard.reorganisations == 0


async def test_an_endpoint_that_is_slow_but_in_time_is_waited_for(database: str, devnet: Devnet) -> None:
    prepared(devnet)
    async with both(database, devnet, endpoints=2) as readers:
        readers.chain.proxies[1].fault = hanging(TIMEOUT_S / 3)
        await readers.look()
        await readers.look()
        await readers.chain.catch_up()
        assert readers.reader.read().deposit_wei == 2 * ETHER
