"""`python -m tests.bench.history`: how long the indexer takes for 100,000 blocks with redemptions that nobody issued.

They are a recorded log that two endpoints serve over real sockets; the rows go into a real PostgreSQL, durably.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
import structlog

from chain.log_reader import LogReader
from chain.networks import DEV
from chain.quorum import Quorum
from chain.rpc import RpcEndpoint
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from clearinghouse.indexer import Indexer, Turn
from tests.bench.failure import BenchFailed
from tests.parts.devnet import DEV_CHAIN_ID
from tests.parts.recorded_chain import recorded_chain, redeemed_log

SENDER: Final = b"\x51" * 20
BLOCKS: Final = 100_000
#: Every so many blocks have one.
EVERY: Final = 20
TIME_MAX_S: Final = 60


class History(NamedTuple):
    """How much was read."""

    redemptions: int
    elapsed_s: float
    requests: int


async def read_history(conninfo: str) -> History:
    """Into an empty database. Raises BenchFailed where something is missing then."""
    logs: list[tuple[int, dict[str, Any]]] = [
        (number, redeemed_log(number, nonce, 5, SENDER)) for nonce, number in enumerate(range(10, BLOCKS, EVERY), 1)
    ]
    async with AsyncExitStack() as stack:
        chains = [await stack.enter_async_context(recorded_chain(BLOCKS, logs)) for _ in range(2)]
        begun_unix_s = int(time.time())
        for chain in chains:
            chain.unix_s = lambda: begun_unix_s  # or they disagree where a second ends between their answers
        endpoints = [RpcEndpoint(chain.url, name=f"rpc-{at}") for at, chain in enumerate(chains, 1)]
        quorum = Quorum(endpoints, chain_id=DEV_CHAIN_ID, count=2, timeout_s=10, head_age_max_s=2 * TIME_MAX_S)
        stack.push_async_callback(quorum.close)
        reader = LogReader(quorum, DEV, width_max_count=10_000)
        indexer = Indexer(
            conninfo, reader, chain_id=DEV_CHAIN_ID, senders=[SENDER], confirmations_count=240, from_block=1
        )
        stack.push_async_callback(indexer.close)
        begun_s = time.monotonic()
        while await indexer.turn() is Turn.BEHIND or indexer.behind_count:
            pass
        elapsed_s = time.monotonic() - begun_s
        requests = max(chain.requests_count for chain in chains)
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT count(*), count(*) FILTER (WHERE status = 'foreign') FROM winning_ticket")
        if (found := row.fetchone()) != (len(logs), len(logs)):
            raise BenchFailed(f"of {len(logs)} redemptions there are {found}")
    return History(len(logs), elapsed_s, requests)


def main() -> int:
    # Each is a redemption that we did not issue, and a critical line in the log.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, EmbeddedPostgres(Path(folder) / "data") as database:
        migrate(database.conninfo)
        found = asyncio.run(read_history(database.conninfo))
    verdict = "reached" if found.elapsed_s <= TIME_MAX_S else "MISSED"
    print(f"{BLOCKS:,} blocks of history with {found.redemptions:,} redemptions, each looked for in what was issued:")
    print(f"  {found.elapsed_s:.1f} s of {TIME_MAX_S} s, {found.requests} requests to each endpoint: {verdict}")
    print(f"Load average: {os.getloadavg()[0]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
