"""A session of the database whose locks mean something: they end with it, and it ends when its holder falls silent.

An advisory lock is held as long as its session, and a process that is stopped, or cut off from the network, keeps its
session for hours. So the server is told to end this one after SILENCE_MAX_S without a word, and the holder says one
every PING_EVERY_S. A holder that was stopped wakes up without its locks: whatever it goes on to say through this
session fails.

What the server says each time is what time it is: the machines that work for one database have one clock.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, LiteralString, Self

import psycopg

from clearinghouse.database.connect import WORK_ROLE, in_role

#: After this the server takes the locks back. A new leader is there after this and one of its looks: 6 s, of 10.
SILENCE_MAX_S: Final = 5
PING_EVERY_S: Final = 1
#: An answer that takes longer is none: the network is cut, or the server stands still. Sooner than the server gives up.
_ANSWER_MAX_S: Final = 3
#: Of what waits for a row that another holds: it is tried again, and meanwhile nothing could be said.
_LOCK_TIMEOUT: Final = "2s"


class Lease:
    """Locks by name. Methods raise psycopg.OperationalError where the session has ended, and `lost` is set then."""

    #: The server's word of the time, and when it was heard.
    _said_at: datetime
    _heard_s: float

    def __init__(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._connection = connection
        self.lost = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep(), name="keep-lease")

    @classmethod
    async def connected(cls, conninfo: str) -> Lease:
        """A session in role clearinghouse_work, without locks yet."""
        chosen = in_role(
            conninfo, WORK_ROLE, application_name="clearinghouse-work-lease",
            idle_session_timeout=f"{SILENCE_MAX_S}s", lock_timeout=_LOCK_TIMEOUT, statement_timeout=f"{_ANSWER_MAX_S}s",
        )  # fmt: skip
        lease = cls(await psycopg.AsyncConnection.connect(chosen, autocommit=True))
        try:
            await lease._hear()
        except BaseException:
            await lease._close()
            raise
        return lease

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives all locks back."""
        await self._close()

    async def _close(self) -> None:
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        await self._connection.close()

    def now(self) -> datetime:
        """UTC, by the database's clock: its last word, and the time since. What this machine's says does not matter."""
        return self._said_at + timedelta(seconds=time.monotonic() - self._heard_s)

    async def take(self, lock: str) -> bool:
        """Whether the lock is held now. It may be taken again by who holds it, and is given back as many times."""
        return bool(await self.value("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", lock))

    async def give_back(self, lock: str) -> None:
        await self.value("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", lock)

    async def value(self, query: LiteralString, *parameters: Any) -> Any:
        """The first column of the first row; None without one. What is done, is done by who holds the locks."""
        row = await self.rows(query, *parameters)
        return row[0][0] if row else None

    async def rows(self, query: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = await self._connection.execute(query, parameters)
        return await cursor.fetchall() if cursor.description is not None else []

    async def _hear(self) -> None:
        said_at: datetime = await self.value("SELECT clock_timestamp()")
        self._said_at, self._heard_s = said_at.astimezone(UTC), time.monotonic()

    async def _keep(self) -> None:
        """Says something every second, until no answer comes."""
        while True:
            ping = asyncio.ensure_future(self._hear())
            try:
                await asyncio.wait([ping], timeout=_ANSWER_MAX_S)
                if not ping.done() or ping.exception() is not None:
                    self.lost.set()
                    return
            finally:
                ping.cancel()  # after the word is out: the driver asks the silent server to cancel, and waits for that
                await asyncio.wait([ping])
            await asyncio.sleep(PING_EVERY_S)
