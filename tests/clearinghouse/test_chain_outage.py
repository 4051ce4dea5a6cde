"""Two days without the chain: meanwhile nothing is known, and afterwards everything is, without a gap."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from chain.escrow import EscrowUnknown
from chain.escrow_reader import EscrowReader
from chain.log_reader import LogReader
from chain.networks import DEV
from chain.quorum import NoDecision, Quorum
from chain.rpc import RpcEndpoint
from chain.rpc_budget import RequestBudget
from clearinghouse.indexer import Indexer, Turn
from tests.parts.devnet import DEV_CHAIN_ID
from tests.parts.recorded_chain import RecordedChain, recorded_chain, redeemed_log

SENDER = b"\x51" * 20
BLOCKS_PER_S = 4
BEFORE_BLOCKS = 10_000
OUTAGE_S = 2 * 86_400
STALE_MAX_S = 60
#: One winner every four minutes.
EVERY_BLOCKS = 997
REQUESTS_PER_S = 25
CAUGHT_UP_MAX_S = 120


@dataclass
class Clock:
    """Of the chain and of ours: two days pass at once."""

    ahead_s: int = 0

    def unix_s(self) -> int:
        return int(time.time()) + self.ahead_s


def history(blocks_count: int) -> list[tuple[int, dict[str, Any]]]:
    numbers = range(EVERY_BLOCKS, blocks_count + 1, EVERY_BLOCKS)
    return [(number, redeemed_log(number, nonce, 5, SENDER)) for nonce, number in enumerate(numbers, 1)]


@dataclass
class Readers:
    """What reads the two endpoints. Everything keeps to one budget, as in a process."""

    chains: list[RecordedChain]
    escrow: EscrowReader
    indexer: Indexer

    def be_away(self, is_away: bool) -> None:
        for chain in self.chains:
            chain.is_away = is_away

    async def turn(self) -> Turn | None:
        try:
            return await self.indexer.turn()
        except NoDecision:
            return None

    async def polled(self) -> bool:
        try:
            await self.escrow.poll()
        except NoDecision:
            return False
        return True

    async def catch_up(self) -> None:
        """Polls go on meanwhile, as they do in the service."""
        async with asyncio.timeout(CAUGHT_UP_MAX_S):
            while (turn := await self.turn()) is not Turn.CAUGHT_UP or self.indexer.behind_count:
                if turn is None:
                    await asyncio.sleep(0.2)


@asynccontextmanager
async def readers_of(database: str, chains: list[RecordedChain], clock: Clock) -> AsyncIterator[Readers]:
    budgets = [RequestBudget(REQUESTS_PER_S) for _ in chains]

    def quorum() -> Quorum:
        named = enumerate(zip(chains, budgets, strict=True), 1)
        endpoints = [RpcEndpoint(chain.url, name=f"rpc-{at}", budget=budget) for at, (chain, budget) in named]
        return Quorum(
            endpoints, chain_id=DEV_CHAIN_ID, count=2, timeout_s=10, head_age_max_s=STALE_MAX_S, unix_s=clock.unix_s
        )

    of_escrow, of_logs = quorum(), quorum()
    indexer = Indexer(
        database, LogReader(of_logs, DEV, width_max_count=10_000), chain_id=DEV_CHAIN_ID, senders=[SENDER],
        confirmations_count=240, from_block=1,
    )  # fmt: skip
    escrow = EscrowReader(of_escrow, DEV, SENDER, stale_max_s=STALE_MAX_S, unix_s=clock.unix_s)
    try:
        yield Readers(chains, escrow, indexer)
    finally:
        await indexer.close()
        await of_escrow.close()
        await of_logs.close()


def recorded(database: str) -> list[tuple[int, int]]:
    """Blocks and nonces of redeemed tickets."""
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT block_number, sender_nonce FROM winning_ticket ORDER BY 1, log_index")
        return [(number, int(nonce)) for number, nonce in rows]


@pytest.mark.slow
async def test_after_two_days_without_endpoints_nothing_is_missing_and_meanwhile_nothing_was_known(
    database: str,
) -> None:
    clock, head_number = Clock(), BEFORE_BLOCKS + OUTAGE_S * BLOCKS_PER_S
    logs = history(head_number)
    async with (
        recorded_chain(BEFORE_BLOCKS, logs) as one,
        recorded_chain(BEFORE_BLOCKS, logs) as two,
        readers_of(database, [one, two], clock) as readers,
    ):
        for chain in readers.chains:
            chain.unix_s = clock.unix_s
        await readers.catch_up()
        assert await readers.polled()
        known_before = recorded(database)
        assert len(known_before) == BEFORE_BLOCKS // EVERY_BLOCKS

        readers.be_away(True)
        for hours in range(0, OUTAGE_S // 3600 + 1, 6):
            clock.ahead_s = STALE_MAX_S + 1 + hours * 3600
            assert not await readers.polled()
            with pytest.raises(EscrowUnknown, match="s old"):
                readers.escrow.read()
            assert await readers.turn() is None
        assert recorded(database) == known_before

        for chain in readers.chains:
            chain.head_number = head_number
        readers.be_away(False)
        requests_count, began_s = one.requests_count, time.monotonic()
        catching_up = asyncio.create_task(readers.catch_up())
        async with asyncio.timeout(CAUGHT_UP_MAX_S):
            while not await readers.polled():
                await asyncio.sleep(0.2)
        assert readers.escrow.read().observed_at_unix_s >= clock.unix_s() - 10
        assert not catching_up.done(), "what signing depends on does not wait for the history"
        await catching_up
        elapsed_s, requests_count = time.monotonic() - began_s, one.requests_count - requests_count
    assert recorded(database) == [(number, nonce) for nonce, (number, _) in enumerate(logs, 1)]
    assert requests_count <= REQUESTS_PER_S * (elapsed_s + 1), "no faster than the endpoint's budget allows"
    print(f"{OUTAGE_S * BLOCKS_PER_S} blocks caught up in {elapsed_s:.1f} s with {requests_count} requests")
