"""A long history is read in a bounded time, and read the same however it is split."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from chain.log_reader import LogReader
from chain.networks import DEV
from chain.quorum import Quorum
from chain.rpc import RpcEndpoint
from clearinghouse.indexer import Indexer, Turn
from tests.parts.devnet import DEV_CHAIN_ID
from tests.parts.recorded_chain import recorded_chain, redeemed_log

SENDER = b"\x51" * 20
BLOCKS = 100_000
EVERY = 20
TIME_MAX_S = 60


@pytest.mark.slow
async def test_a_hundred_thousand_blocks_of_history_are_read_within_a_minute(database: str) -> None:
    logs: list[tuple[int, dict[str, Any]]] = [
        (number, redeemed_log(number, nonce, 5, SENDER)) for nonce, number in enumerate(range(10, BLOCKS, EVERY), 1)
    ]
    async with AsyncExitStack() as stack:
        chains = [await stack.enter_async_context(recorded_chain(BLOCKS, logs)) for _ in range(2)]
        endpoints = [RpcEndpoint(chain.url, name=f"rpc-{at}") for at, chain in enumerate(chains, 1)]
        quorum = Quorum(endpoints, chain_id=DEV_CHAIN_ID, count=2, timeout_s=10, head_age_max_s=60)
        stack.push_async_callback(quorum.close)
        reader = LogReader(quorum, DEV, width_max_count=10_000)
        indexer = Indexer(
            database, reader, chain_id=DEV_CHAIN_ID, senders=[SENDER], confirmations_count=240, from_block=1
        )
        stack.push_async_callback(indexer.close)
        begun_s = time.monotonic()
        while await indexer.turn() is Turn.BEHIND or indexer.behind_count:
            pass
        elapsed_s = time.monotonic() - begun_s
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*), count(*) FILTER (WHERE status = 'foreign') FROM winning_ticket")
        assert row.fetchone() == (len(logs), len(logs))
    print(f"{BLOCKS} blocks with {len(logs)} redemptions in {elapsed_s:.1f} s")
    assert elapsed_s < TIME_MAX_S
