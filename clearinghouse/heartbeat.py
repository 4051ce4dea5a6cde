"""What a serving process says of itself, in the database: every few seconds, how each of its parts does.

Some things only the process knows that meets them: that its signers hang, that its RPC endpoints disagree. Whoever
watches for trouble (the worker's alerts) reads it here, and takes silence for trouble too. A process that stops
says so; one that is killed goes silent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.background import Repeated
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.ids import uuid7
from clearinghouse.readiness import Probe, Readiness

log = structlog.get_logger(__name__)

EVERY_S: Final = 5
_DETAIL_CHARS_MAX: Final = 300


class Heartbeat:
    """`probes` are what is looked at besides readiness: what is worth telling and keeps no caller away.

    `engine` is of role clearinghouse_serve.
    """

    def __init__(self, engine: AsyncEngine, readiness: Readiness, probes: Mapping[str, Probe]) -> None:
        self._engine = engine
        self._looked_at = (readiness, Readiness(probes))
        self._id: UUID = uuid7()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._beating = Repeated("heartbeat", self._beat, every_s=EVERY_S)

    def start(self) -> None:
        self._beating.start()

    async def stop(self) -> None:
        """Takes leave, if the database hears it."""
        await self._beating.stop()
        try:
            async with self._engine.begin() as connection:
                await connection.execute(text("SELECT forget_service(:id)"), {"id": self._id})
        except DATABASE_FAILED as error:
            log.info("left_without_word", reason=type(error).__name__)

    async def beat(self) -> None:
        """Once. Raises one of DATABASE_FAILED."""
        checks = [check for readiness in self._looked_at for check in await readiness.checks()]
        note = text("SELECT note_service_conditions(:id, :name, :names, :are_well, :details)")
        values = {
            "id": self._id, "name": self._name, "names": [check.name for check in checks],
            "are_well": [check.ok for check in checks],
            "details": [check.detail[:_DETAIL_CHARS_MAX] for check in checks],
        }  # fmt: skip
        async with self._engine.begin() as connection:
            await connection.execute(note, values)

    async def _beat(self) -> None:
        try:
            await self.beat()
        except DATABASE_FAILED as error:
            log.warning("heartbeat_lost", reason=type(error).__name__, retry_in_s=EVERY_S)
