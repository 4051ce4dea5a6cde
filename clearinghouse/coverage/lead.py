"""The one process that evaluates a sender, and its connection to the database.

Whoever holds a sender's lock evaluates it. The lock lives as long as the connection, and everything that follows from
an evaluation is written over that connection: who has lost the lock can no longer write. A process that hangs says
nothing for a while, and PostgreSQL ends its connection: another one takes over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import IsolationLevel

from chain.coverage import Level
from clearinghouse.coverage import snapshots
from clearinghouse.coverage.book import Book, read_book
from clearinghouse.coverage.escrows import Escrow
from clearinghouse.coverage.payees import Payee, read_payees
from clearinghouse.coverage.snapshots import Snapshot
from clearinghouse.database.connect import in_role

#: Of pg_advisory_lock, together with what a sender is hashed to.
LOCK: Final = int.from_bytes(b"covr")
_STATEMENT_TIMEOUT: Final = "5s"
_TAKE: Final[LiteralString] = """
    SELECT sender FROM unnest(%s::bytea[]) AS wanted (sender)
     WHERE pg_try_advisory_lock(%s::integer, hashtext(encode(sender, 'hex')))
"""
_GIVE_BACK: Final[LiteralString] = "SELECT pg_advisory_unlock(%s::integer, hashtext(encode(%s, 'hex')))"
_GATE: Final[LiteralString] = "SELECT level FROM coverage_gate WHERE sender = %s"
_SET_GATE: Final[LiteralString] = "SELECT set_coverage_gate(%s, %s, %s, %s, %s::uuid[], %s::numeric[])"


class Lead:
    """`connected` makes one, `close` ends it and with it all locks. Methods raise psycopg.OperationalError."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self._held: set[bytes] = set()

    @classmethod
    async def connected(cls, conninfo: str, *, role: str, silent_max_s: float) -> Lead:
        """`silent_max_s`: after so long without a word the locks are somebody else's."""
        chosen = in_role(
            conninfo, role, application_name="clearinghouse-coverage", statement_timeout=_STATEMENT_TIMEOUT,
            idle_session_timeout=f"{int(silent_max_s * 1000)}ms",
        )  # fmt: skip
        connection = await psycopg.AsyncConnection.connect(chosen, autocommit=True)
        await connection.set_isolation_level(
            IsolationLevel.REPEATABLE_READ
        )  # of transactions; statements alone do not mind
        return cls(connection)

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended, and the locks with it."""
        return self._connection.closed

    async def close(self) -> None:
        """The locks are given back before it returns, not when the server notices that somebody has left."""
        try:
            if not self._connection.closed:
                await self._connection.execute("SELECT pg_advisory_unlock_all()")
        finally:
            await self._connection.close()

    async def take(self, senders: Iterable[bytes]) -> list[bytes]:
        """Which of them are evaluated here: those that nobody else has."""
        wanted = list(senders)
        if missing := [sender for sender in wanted if sender not in self._held]:
            rows = await self._connection.execute(_TAKE, [missing, LOCK])
            self._held |= {bytes(sender) for (sender,) in await rows.fetchall()}
        else:
            await self._connection.execute("SELECT 1")  # a word, so that the connection is kept
        return [sender for sender in wanted if sender in self._held]

    async def give_back(self, sender: bytes) -> None:
        """Somebody else may evaluate it; it can be taken again."""
        self._held.discard(sender)
        await self._connection.execute(_GIVE_BACK, [LOCK, sender])

    async def level(self, sender: bytes) -> Level | None:
        """As it was last written, by whomever; None where it never was."""
        row = await (await self._connection.execute(_GATE, [sender])).fetchone()
        return Level(row[0]) if row is not None else None

    async def book(self, escrow: Escrow, *, unseen_face_value_wei: int, with_payers: bool) -> Book:
        """All of it of one moment."""
        async with self._connection.transaction():
            return await read_book(
                self._connection, escrow, unseen_face_value_wei=unseen_face_value_wei, with_payers=with_payers
            )

    async def payees(self, escrow: Escrow) -> list[Payee]:
        return await read_payees(self._connection, escrow)

    async def set_gate(
        self, sender: bytes, level: Level, *, face_value_max_wei: int | None, valid_s: int, shares: Mapping[UUID, int]
    ) -> None:
        """`shares`: up to where a gateway's ev_total_wei may go while the level is critical."""
        parameters = [sender, level.value, face_value_max_wei, valid_s, list(shares), list(shares.values())]
        await self._connection.execute(_SET_GATE, parameters)

    async def newest_snapshot(self, sender: bytes) -> Snapshot | None:
        return await snapshots.newest(self._connection, sender)

    async def record(self, snapshot: Snapshot) -> None:
        await snapshots.record(self._connection, snapshot)
