"""Whose escrows are ours: senders that were ever followed on the chain, and those of signers that ask at the webhook.

New ones appear within seconds, without a restart. Nobody disappears: who signs no more may have open tickets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, LiteralString

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.background import Repeated
from clearinghouse.database.connect import DATABASE_FAILED

log = structlog.get_logger(__name__)

SENDERS: Final[LiteralString] = "SELECT sender FROM chain_sender UNION SELECT sender FROM webhook_signer ORDER BY 1"
READ_EVERY_S: Final = 10
_READ_TIMEOUT_S: Final = 5


class KnownSenders:
    """Tells `follow` of all of them, again and again. `start` before use, `stop` after."""

    def __init__(
        self, engine: AsyncEngine, follow: Callable[[Iterable[bytes]], None], *, every_s: float = READ_EVERY_S
    ) -> None:
        self._engine = engine
        self._follow = follow
        self._reading = Repeated("known-senders", self._read, every_s=every_s)

    def start(self) -> None:
        self._reading.start()

    async def stop(self) -> None:
        await self._reading.stop()

    async def _read(self) -> None:
        """Where the database does not answer, those that are known go on being followed."""
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S), self._engine.connect() as connection:
                senders = [bytes(sender) for sender in (await connection.execute(text(SENDERS))).scalars()]
        except (*DATABASE_FAILED, TimeoutError) as error:
            log.warning("senders_not_read", reason=type(error).__name__, retry_in_s=READ_EVERY_S)
        else:
            self._follow(senders)
