"""Goes on comparing events with issuances in the background, and shows what is open.

Every serving process may run one: they take turns by a lock of the database. With no events there is nothing to do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.background import Repeated
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.signer_events.faults import SEVERITY, Found, Severity
from clearinghouse.signer_events.reconcile import Expected, count_open_findings, forget, reconcile_further

log = structlog.get_logger(__name__)

INTERVAL_S: Final = 60
FORGET_INTERVAL_S: Final = 3600
#: A day; there is another turn soon.
WINDOWS_AT_ONCE_MAX: Final = 24
#: Of a pg_advisory_lock: who holds it reconciles.
LOCK: Final = int.from_bytes(b"sigevent")


class Shown(Protocol):
    """Where the numbers go."""

    def open_findings(self, counts: Mapping[Found, int]) -> None: ...


class SignerEventWatch:
    """`start` before use, `stop` after. The engine needs two connections and the serving role."""

    def __init__(
        self, engine: AsyncEngine, *, expected: Expected, grace: timedelta, kept: timedelta, shown: Shown
    ) -> None:
        self._engine = engine
        self._expected = expected
        self._grace = grace
        self._kept = kept
        self._shown = shown
        self._forgets_at_s = time.monotonic() + FORGET_INTERVAL_S
        self._critical = 0
        self._watching = Repeated("signer-event-watch", self._try_to_look, every_s=INTERVAL_S)

    def start(self) -> None:
        self._watching.start()

    async def stop(self) -> None:
        await self._watching.stop()

    async def look(self) -> None:
        """One turn: compares what is due, if nobody else does, and shows what is open."""
        async with self._engine.connect() as unprepared:
            connection = await unprepared.execution_options(isolation_level="AUTOCOMMIT")
            if (await connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK})).scalar_one():
                try:
                    await self._work()
                finally:
                    await connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
            self._show(await count_open_findings(connection))

    async def _work(self) -> None:
        ends_at = datetime.now(UTC) - self._grace
        await reconcile_further(self._engine, ends_at=ends_at, expected=self._expected, windows_max=WINDOWS_AT_ONCE_MAX)
        if time.monotonic() >= self._forgets_at_s:
            self._forgets_at_s = time.monotonic() + FORGET_INTERVAL_S
            await forget(self._engine, older_than=self._kept)

    def _show(self, counts: dict[Found, int]) -> None:
        self._shown.open_findings(counts)
        critical = {str(kind): count for kind, count in counts.items() if count and SEVERITY[kind] is Severity.CRITICAL}
        if sum(critical.values()) > self._critical:
            log.error("signer_event_findings", **critical)
        self._critical = sum(critical.values())

    async def _try_to_look(self) -> None:
        try:
            await self.look()
        except DATABASE_FAILED as error:
            log.warning("signer_events_not_compared", reason=type(error).__name__, retry_in_s=INTERVAL_S)
