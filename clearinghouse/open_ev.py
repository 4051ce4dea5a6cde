"""A10, over all gateways together: how much expected value may be open at once, in tickets that can still be redeemed.

What each gateway has open is counted in the commit, to the last wei. One counter for all of them would be a row that
every commit has to lock, and no gateway would be free of the others any more. So each process adds the gateways' up
every second, and to that what it has released itself since: the ceiling holds but for what the other processes release
between two of its readings, and for the calls that are under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.background import Repeated
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.errors import CeilingReached, Unavailable
from clearinghouse.policy import Rule

log = structlog.get_logger(__name__)

READ_INTERVAL_S: Final = 1
#: A sum that is older than this says nothing any more: nothing is signed until there is a newer one.
STALE_AFTER_S: Final = 5
RETRY_AFTER_S: Final = 60

_SUM: Final = "SELECT coalesce(sum(ev_open_wei), 0) FROM gateway_usage"


class OpenEvCeiling:
    """The ceiling as this process knows it. `start` before the first call, `stop` at the end."""

    def __init__(self, engine: AsyncEngine, *, max_wei: int, now_s: Callable[[], float] = monotonic) -> None:
        self._engine = engine
        self._max_wei = max_wei
        self._now_s = now_s
        self._read_wei = 0
        #: When the reading began that `_read_wei` is of; None before the first.
        self._read_at_s: float | None = None
        #: Released by this process since then: part of it may be in the sum already, and counts twice until the next.
        self._released_wei = 0
        self._reading = Repeated("open-ev", self._try_to_read, every_s=READ_INTERVAL_S)

    async def start(self) -> None:
        """A database that is away is no obstacle: until it is back, nothing is signed."""
        await self._try_to_read()
        self._reading.start(at_once=False)

    async def stop(self) -> None:
        await self._reading.stop()

    def require(self, ev_wei: int) -> None:
        """Raises CeilingReached where a call's tickets do not fit any more; Unavailable where that is not known."""
        if self._read_at_s is None or self._now_s() - self._read_at_s > STALE_AFTER_S:
            raise Unavailable(
                "How much expected value is open is not known at present.",
                retry_after_s=READ_INTERVAL_S,
                rule=Rule.EV_OPEN_TOTAL,
            )
        if ev_wei and self._read_wei + self._released_wei + ev_wei > self._max_wei:
            raise CeilingReached(
                "The clearinghouse has as much expected value in open tickets as it allows itself.",
                retry_after_s=RETRY_AFTER_S,
                rule=Rule.EV_OPEN_TOTAL,
            )

    def released(self, ev_wei: int) -> None:
        """Tickets were released here."""
        self._released_wei += ev_wei

    async def read(self) -> None:
        """Adds up anew. Raises one of DATABASE_FAILED."""
        began_at_s, released_before_wei = self._now_s(), self._released_wei
        async with self._engine.connect() as connection:
            read_wei = int((await connection.execute(text(_SUM))).scalar_one())
        self._read_wei, self._read_at_s = read_wei, began_at_s
        self._released_wei -= released_before_wei

    async def _try_to_read(self) -> None:
        try:
            async with asyncio.timeout(STALE_AFTER_S):
                await self.read()
        except (*DATABASE_FAILED, TimeoutError) as error:
            log.warning("open_ev_not_read", reason=type(error).__name__, retry_in_s=READ_INTERVAL_S)
