"""What a signer was asked for and nobody was given, written down so that the signer's own report of it is understood.

A signature that is thrown away costs nothing (design section 3), but the signer may have reported it as an event:
without a word from us, it would look like a payment signed behind our back. With best effort and never in a payment's
way: a call only appends to a list in memory, which a task writes to the table `unreleased` every second. What is in
that list when the process is killed is lost, and what a database that is away for long leaves no room for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Final, NamedTuple, Self
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.background import Repeated
from clearinghouse.database.arrays import array_literal
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.errors import Refusal
from clearinghouse.ids import uuid7
from clearinghouse.signer_events.metrics import SignerEventMetrics
from clearinghouse.signers.base import SignerAnswer

log = structlog.get_logger(__name__)

WRITE_INTERVAL_S: Final = 1
BATCH_ROWS_MAX: Final = 1000
#: About 500 bytes each.
WAITING_MAX_COUNT: Final = 20_000
STOP_TIMEOUT_S: Final = 2
#: Taken where nobody knows how many signers were asked: each member of a pool is asked once at most.
SIGNERS_ASKED_MAX: Final = 8


class Unreleased(NamedTuple):
    """At most `signatures` payments for the same place in a session; `reason` is a refusal's code or one of ours."""

    id: UUID
    gateway_id: UUID
    session_id: UUID
    sequence: int
    recipient_rand_hash: bytes
    signatures: int
    reason: str
    at: datetime


Keep = Callable[[Unreleased], None]


class Asking:
    """Around the part of a call that asks a signer: whatever way it ends, what was not released is kept.

    with Asking(keep) as asking:
        asking.begins(gateway_id, session_id, sequence=0, recipient_rand_hash=…)
        asking.answered(await signer.generate_payment(…))
        …
        asking.released()
    """

    __slots__ = ("_keep", "_place", "_reason", "_signatures")

    def __init__(self, keep: Keep | None) -> None:
        self._keep = keep
        self._place: tuple[UUID, UUID, int, bytes] | None = None
        self._signatures = 0
        self._reason = "replayed"

    def begins(self, gateway_id: UUID, session_id: UUID, *, sequence: int, recipient_rand_hash: bytes) -> None:
        """From here on a signer may sign."""
        self._place = gateway_id, session_id, sequence, recipient_rand_hash
        self._signatures = SIGNERS_ASKED_MAX

    def answered(self, answer: SignerAnswer) -> None:
        """Whoever was asked before the one that answered may have signed too."""
        self._signatures = answer.signers_asked - (400 <= answer.status < 500)

    def released(self) -> None:
        """One of the signatures is the caller's."""
        self._signatures -= 1
        self._reason = "failed_over"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._place is None or self._keep is None:
            return
        if isinstance(error, Refusal):
            self._reason = error.code
            asked = error.facts.get("signers_asked")
            self._signatures = asked if isinstance(asked, int) else self._signatures
        elif error is not None:
            self._reason = "abandoned" if isinstance(error, asyncio.CancelledError) else "internal_error"
        if self._signatures > 0:
            self._keep(Unreleased(uuid7(), *self._place, self._signatures, self._reason, datetime.now(UTC)))


class UnreleasedLog:
    """Writes what is kept, in the background. `start` before use, `stop` after."""

    def __init__(self, engine: AsyncEngine, metrics: SignerEventMetrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._waiting: deque[Unreleased] = deque()
        self._is_behind = False
        self._writing = Repeated("unreleased", self.write, every_s=WRITE_INTERVAL_S)

    def keep(self, unreleased: Unreleased) -> None:
        """Never waits. When there is no room, the oldest is lost and counted."""
        self._metrics.unreleased(lost=len(self._waiting) >= WAITING_MAX_COUNT)
        if len(self._waiting) >= WAITING_MAX_COUNT:
            self._waiting.popleft()
        self._waiting.append(unreleased)

    def start(self) -> None:
        self._writing.start()

    async def stop(self) -> None:
        """Writes what is still there, as far as that is possible in a moment."""
        await self._writing.stop()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.write()
        except TimeoutError:
            self._is_behind = True
        finally:
            if self._waiting:
                log.warning("unreleased_lost", count=len(self._waiting))

    async def write(self) -> None:
        """Everything that waits, in batches; what the database does not take now waits on."""
        while batch := list(islice(self._waiting, BATCH_ROWS_MAX)):
            try:
                async with self._engine.begin() as connection:
                    await connection.execute(text(_RECORD), _columns(batch))
            except DATABASE_FAILED as error:
                if not self._is_behind:
                    log.warning("unreleased_postponed", reason=type(error).__name__, waiting=len(self._waiting))
                self._is_behind = True
                return
            self._is_behind = False
            written = {unreleased.id for unreleased in batch}
            while self._waiting and self._waiting[0].id in written:  # the oldest may have been lost meanwhile
                self._waiting.popleft()


_TYPES: Final = ("uuid", "uuid", "uuid", "bigint", "bytea", "integer", "text", "timestamptz")
assert len(_TYPES) == len(Unreleased._fields)
_RECORD: Final = f"SELECT record_unreleased({', '.join(f'CAST(:a{i} AS {kind}[])' for i, kind in enumerate(_TYPES))})"


def _columns(batch: list[Unreleased]) -> dict[str, str]:
    columns = zip(_TYPES, zip(*batch, strict=True), strict=True)
    return {f"a{index}": array_literal(kind, column) for index, (kind, column) in enumerate(columns)}
