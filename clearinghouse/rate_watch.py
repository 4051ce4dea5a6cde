"""Rate cards as a process knows them: read every second, immutable in between, and confirmed by every commit.

A commit is charged by the version that holds at its own time, or is sent back (`terms_changed`) to be priced again; so
a look that is a second old costs a repeat and never a wrong charge. Documents are read beside the event loop, each
once: what is signed by other cards goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.background import Repeated
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.errors import DatabaseUnavailable, RateUnknown, Unavailable
from clearinghouse.rate_store import find_in_use, newest_rule_id, understood
from clearinghouse.rates.document import CardInvalid
from clearinghouse.rates.rules import Rules

log = structlog.get_logger(__name__)

READ_INTERVAL_S: Final = 1
#: Of what an operator has to mend.
RETRY_AFTER_S: Final = 30
_READ_TIMEOUT_S: Final = 5


class RateWatch:
    """`start` before the first call, `stop` at the end. `rules` is the newest look."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.rules = Rules(())
        self._reading = Repeated("read-rate-cards", self._try_to_read, every_s=READ_INTERVAL_S)
        self._one_look = asyncio.Lock()
        self._looks_begun_count = 0
        self._looks: set[asyncio.Task[None]] = set()
        #: Of `rules`, those included that nothing is charged by any more.
        self._newest_id = 0

    async def start(self) -> None:
        """A database that is away is no obstacle: until it is back, nothing is signed."""
        await self._try_to_read()
        self._reading.start(at_once=False)

    async def stop(self) -> None:
        await self._reading.stop()
        for look in self._looks:
            look.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)

    async def newest(self) -> Rules:
        """By a look that begins now or later; those who ask together share it. Raises DatabaseUnavailable.

        A look goes on when nobody waits for it any more: what takes long to read is read all the same, once.
        """
        look = asyncio.create_task(self._look_after(self._looks_begun_count))
        self._looks.add(look)
        look.add_done_callback(self._forget)
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                await asyncio.shield(look)
        except (*DATABASE_FAILED, TimeoutError) as error:
            raise DatabaseUnavailable("The rate cards cannot be read.", retry_after_s=READ_INTERVAL_S) from error
        except CardInvalid as error:  # another release wrote it
            log.exception("rate_card_not_understood")
            raise RateUnknown("A rate card is not understood.", retry_after_s=RETRY_AFTER_S) from error
        return self.rules

    def _forget(self, look: asyncio.Task[None]) -> None:
        """Whoever waited for it has been told, and whoever did not may ask again."""
        self._looks.discard(look)
        if not look.cancelled():
            look.exception()

    async def _look_after(self, begun_before_count: int) -> None:
        async with self._one_look:
            if self._looks_begun_count == begun_before_count:
                await self._look()

    async def _look(self) -> None:
        self._looks_begun_count += 1
        async with asyncio.timeout(_READ_TIMEOUT_S), self._engine.connect() as connection:
            newest_id = await newest_rule_id(connection)
            if newest_id == self._newest_id:
                return
            found = await find_in_use(connection, self.rules)
        self.rules = await asyncio.to_thread(understood, found)
        self._newest_id = newest_id
        log.info("rate_cards_read", versions=len(self.rules.stored), newest_rule=newest_id)

    async def _try_to_read(self) -> None:
        """What cannot be read stays as it is: no commit is charged by what no longer holds."""
        try:
            await self.newest()
        except Unavailable as error:
            log.warning("rate_cards_not_read", reason=type(error.__cause__).__name__, retry_in_s=READ_INTERVAL_S)
