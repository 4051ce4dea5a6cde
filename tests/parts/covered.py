"""A sender's coverage without a service around it: escrows as a test says, books as a test writes them.

books = Books(owner)
books.issue(SENDER, gateway, face_value_wei=ETHER // 100, win_prob=ONE_IN_A_MILLION, num_tickets=5)
async with watching(database, escrows) as watch:
    await watch.turn()
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from chain.chain_reading import Lock
from chain.coverage import Thresholds
from chain.escrow import EscrowUnknown
from chain.tickets import WIN_PROB_CERTAIN
from clearinghouse.config_chain import CoverageSettings
from clearinghouse.coverage.escrows import Escrow
from clearinghouse.coverage.evaluate import Evaluation, Rules
from clearinghouse.coverage.snapshots import Snapshot
from clearinghouse.coverage.watch import CoverageWatch

ETHER = 10**18
SENDER = b"\x51" * 20
OTHER_SENDER = b"\x52" * 20
ROUND = 3500
ONE_IN_A_MILLION = WIN_PROB_CERTAIN // 10**6
RULES = Rules(Thresholds(), divisor_count=50, face_value_max_wei=None)


def escrow_of(sender: bytes = SENDER, **changes: Any) -> Escrow:
    """10 ETH and a reserve of 5, locked, read just now."""
    return replace(
        Escrow(
            sender=sender, block_number=100, block_time=datetime.now(UTC), l1_block_number=50, round=ROUND,
            validity_rounds=2, pool_size=100, deposit_wei=10 * ETHER, reserve_wei=5 * ETHER, claimed_in_round_wei=0,
            lock=Lock.LOCKED, simulated=False,
        ),
        **changes,
    )  # fmt: skip


@dataclass
class Escrows:
    """What a test says that there is. An exception is raised instead."""

    by_sender: dict[bytes, Escrow | Exception] = field(default_factory=lambda: {SENDER: escrow_of()})
    #: Of whom it was wanted what they claimed.
    wanted: dict[bytes, list[bytes]] = field(default_factory=dict)

    def senders(self) -> list[bytes]:
        return list(self.by_sender)

    def read(self, sender: bytes) -> Escrow:
        found = self.by_sender[sender]
        if isinstance(found, Exception):
            raise found
        return found

    def want_claims(self, sender: bytes, claimants: Sequence[bytes]) -> None:
        self.wanted[sender] = list(claimants)

    def change(self, sender: bytes = SENDER, **changes: Any) -> None:
        self.by_sender[sender] = escrow_of(sender, **changes)

    def lose(self, sender: bytes = SENDER) -> None:
        self.by_sender[sender] = EscrowUnknown("the newest reading is 99 s old")


class Books:
    """Writes into the book as commits and redemptions do, apart from all of their other effects."""

    def __init__(self, owner: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._owner = owner

    def new_gateway(self, *, sessions_open: int = 1, ev_total_wei: int = 0) -> UUID:
        id_ = uuid.uuid4()
        self._owner.execute("INSERT INTO gateway (id, name) VALUES (%s, %s)", [id_, f"gateway-{id_}"])
        self._owner.execute(
            "INSERT INTO account (id, gateway_id, name, currency, sessions_open, ev_total_wei) "
            "VALUES (%s, %s, %s, 'USD', %s, %s)", [id_, id_, f"gateway:{id_}", sessions_open, ev_total_wei],
        )  # fmt: skip
        return id_

    def issue(
        self,
        gateway: UUID,
        *,
        sender: bytes = SENDER,
        face_value_wei: int | None = ETHER // 100,
        win_prob: int | None = ONE_IN_A_MILLION,
        num_tickets: int = 1,
        round_: int | None = ROUND,
        ev_numerator: int | None = None,
        recipient: bytes = b"\x0a" * 20,
        age: timedelta = timedelta(0),
    ) -> None:
        """`num_tickets` may be negative: they were redeemed."""
        self._owner.execute(
            "INSERT INTO exposure_delta "
            "VALUES (%s, %s, %s, %s, %s, %s, date_trunc('hour', %s::timestamptz, 'UTC'), %s, %s)",
            [sender, gateway, round_, recipient if face_value_wei else None, face_value_wei, win_prob,
             datetime.now(UTC) - age, num_tickets, ev_numerator],
        )  # fmt: skip

    def gates(self) -> list[tuple[bytes, str, bool]]:
        """Sender, level, and whether it still holds."""
        rows = self._owner.execute("SELECT sender, level, valid_until > now() FROM coverage_gate ORDER BY sender")
        return [(bytes(sender), level, holds) for sender, level, holds in rows]

    def shares(self, sender: bytes = SENDER) -> dict[UUID, int]:
        rows = self._owner.execute("SELECT gateway_id, ev_total_max_wei FROM cover_share WHERE sender = %s", [sender])
        return {gateway: int(wei) for gateway, wei in rows}

    def expire_gates(self) -> None:
        self._owner.execute("UPDATE coverage_gate SET valid_until = now() - interval '1 s'")


@dataclass
class Heard:
    """What the metrics would be told."""

    outcomes: list[str] = field(default_factory=list)
    led: list[list[bytes]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def coverage_evaluated(self, outcome: str) -> None:
        self.outcomes.append(outcome)

    def coverage_leads(self, senders: list[bytes]) -> None:
        self.led.append(list(senders))

    def coverage_is(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)

    def outlook_ended(self, look: str) -> None:
        self.looks.append(look)

    def snapshot_taken(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)


@dataclass
class Watching:
    """A watch whose turns a test takes itself."""

    watch: CoverageWatch
    escrows: Escrows
    heard: Heard

    async def turn(self) -> None:
        await self.watch.turn()


@asynccontextmanager
async def watching(
    conninfo: str, escrows: Escrows | None = None, *, program: Sequence[str] = (), **settings: Any
) -> AsyncIterator[Watching]:
    """`settings` are those of [coverage] that differ from the defaults."""
    escrows, heard = escrows or Escrows(), Heard()

    async def told() -> None:
        return None

    watch = CoverageWatch(
        conninfo, escrows, RULES, CoverageSettings(**settings), is_enforced=True, observer=heard, told=told,
        **({"program": program} if program else {}),
    )  # fmt: skip
    try:
        yield Watching(watch, escrows, heard)
    finally:
        await watch.stop()
