"""An indexer over a chain of our own, which it reads through endpoints that a test may break.

async with indexed(database, devnet) as chain:
    chain.redeem(chain.ticket(1))
    await chain.catch_up()
    assert chain.redeemed() == [(1, "foreign")]
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.log_reader import LogReader
from chain.networks import DEV
from chain.quorum import Quorum
from chain.rpc import RpcEndpoint
from chain.signatures import SigningKey, keccak
from chain.tickets import WIN_PROB_CERTAIN, Ticket, ticket_hash
from clearinghouse.identity import gateways, keys
from clearinghouse.indexer import Indexer, SilentIndexObserver, Turn
from tests.parts.books import Connection, Usage, commit, usage
from tests.parts.devnet import DEV_CHAIN_ID, FIRST_ROUND, Devnet, FaultProxy, fault_proxy, round_hash

SENDER = SigningKey(keccak(b"a sender whose tickets are redeemed"))
ORCHESTRATOR = b"\x0a" * 20
RAND = 77
ETHER = 10**18
FACE_VALUE_WEI = ETHER // 1000
TABLES = ("winning_ticket", "escrow_event", "protocol_round")


@dataclass
class Heard(SilentIndexObserver):
    """What the metrics would be told."""

    reorganisations: int = 0
    disagreements: int = 0
    behind: list[int] = field(default_factory=list)
    matched: dict[str, int] = field(default_factory=dict)
    foreign: int = 0

    def rpc_disagreed(self) -> None:
        self.disagreements += 1

    def index_read(self, *, behind_count: int) -> None:
        self.behind.append(behind_count)

    def index_reorganised(self) -> None:
        self.reorganisations += 1

    def redemptions_matched(self, status: str, count: int) -> None:
        self.matched[status] = self.matched.get(status, 0) + count

    def foreign_redemptions(self, count: int) -> None:
        self.foreign = count


def ticket(nonce: int, **changes: Any) -> Ticket:
    """A winner of ours, worth a thousandth of an ether."""
    fields: dict[str, Any] = {
        "recipient": ORCHESTRATOR, "sender": SENDER.address, "face_value_wei": FACE_VALUE_WEI,
        "win_prob": WIN_PROB_CERTAIN, "sender_nonce": nonce,
        "recipient_rand_hash": keccak(RAND.to_bytes(32, "big")), "creation_round": FIRST_ROUND,
        "creation_round_block_hash": round_hash(FIRST_ROUND),
    }  # fmt: skip
    return Ticket(**fields | changes)


@dataclass
class Indexed:
    """An indexer, what it hears, and the ways to the chain."""

    conninfo: str
    devnet: Devnet
    proxies: list[FaultProxy]
    reader: LogReader
    indexer: Indexer
    heard: Heard

    def redeem(self, of: Ticket, *, rand: int = RAND) -> None:
        """As its recipient would."""
        self.devnet.redeem(of, SENDER.eth_sign(ticket_hash(of)), rand)

    async def catch_up(self) -> None:
        """Reads everything that has happened so far."""
        wanted = int(self.devnet.rpc("eth_blockNumber"), 16)
        while await self.indexer.turn() is Turn.BEHIND or self.at() < wanted:
            pass

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await self.indexer.turn()

    def at(self) -> int:
        return int(self.query("SELECT coalesce(max(number), 0) FROM chain_block")[0][0])

    def redeemed(self) -> list[tuple[int, str]]:
        """(nonce, what it turned out to be), in the order of the chain."""
        rows = self.query("SELECT sender_nonce, status FROM winning_ticket ORDER BY block_number, log_index")
        return [(int(nonce), status) for nonce, status in rows]

    def recorded(self) -> list[list[tuple[Any, ...]]]:
        """All rows of all tables, but for when they were read."""
        query = "SELECT {} FROM {} ORDER BY block_number, log_index"
        return [self.query(query.format(self._columns(table), table)) for table in TABLES]

    def _columns(self, table: str) -> str:
        named = (
            f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' ORDER BY ordinal_position"
        )
        return ", ".join(name for (name,) in self.query(named) if name != "recorded_at")

    def query(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()


@asynccontextmanager
async def indexed(
    conninfo: str,
    devnet: Devnet,
    *,
    from_block: int | None = 1,
    confirmations: int = 100,
    width: int = 10_000,
    endpoints: int = 2,
) -> AsyncIterator[Indexed]:
    """Two endpoints must agree."""
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(fault_proxy(devnet.url)) for _ in range(endpoints)]
        heard = Heard()
        quorum = Quorum(
            [RpcEndpoint(proxy.url, name=f"rpc-{number}") for number, proxy in enumerate(proxies, 1)],
            chain_id=DEV_CHAIN_ID, count=2, timeout_s=2, head_age_max_s=3600, observer=heard,
        )  # fmt: skip
        stack.push_async_callback(quorum.close)
        reader = LogReader(quorum, DEV, width_max_count=width)
        indexer = Indexer(
            conninfo, reader, chain_id=DEV_CHAIN_ID, senders=[SENDER.address], confirmations_count=confirmations,
            from_block=from_block, observer=heard,
        )  # fmt: skip
        stack.push_async_callback(indexer.close)
        yield Indexed(conninfo, devnet, proxies, reader, indexer, heard)


def prepared(devnet: Devnet) -> None:
    """An active orchestrator, and a sender with funds."""
    devnet.join(ORCHESTRATOR)
    devnet.next_round()
    devnet.fund(SENDER.address, deposit_wei=2 * ETHER, reserve_wei=4 * ETHER)


async def issued(admin: AsyncEngine, owner: Connection, *, count: int, **further: Any) -> Usage:
    """A payment of `count` tickets, nonces 1 to `count`, in the books."""
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, "acme", currency="USD", credit_limit=Decimal(1000))
        key = await keys.create(connection, gateway.id, pepper=b"p" * 32)
    call = usage(
        gateway.id, key.key.id, ev_wei=count * FACE_VALUE_WEI, num_tickets=count, sender=SENDER.address,
        recipient=ORCHESTRATOR, rand=ticket(1).recipient_rand_hash, **further,
    )  # fmt: skip
    assert commit(owner, call)[0] is None
    return call
