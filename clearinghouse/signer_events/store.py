"""Events into the database, a batch at a time, whether they come from a file or from Kafka.

intake = Intake(engine)
intake.add("events.jsonl:17", b'{"id": …}')      # never refuses; a bad line is counted and named
await intake.flush()                             # durable when it returns; nothing was kept when it raises
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.arrays import array_literal
from clearinghouse.signer_events.read import BadEvent, NewPayment, SignedTicket, digest, lines_of, read_event

log = structlog.get_logger(__name__)

BATCH_ROWS_MAX: Final = 5000
#: Of so many bad lines the place and the reason are kept; all are counted.
BAD_LINES_NAMED_MAX: Final = 100


class Kind(StrEnum):
    """What became of a line: a metric's label."""

    NEW = "new"
    #: The same event was there before.
    REPEATED = "repeated"
    #: On the same topic, and not for us.
    OTHER_TYPE = "other_type"
    BAD = "bad"


@dataclass(slots=True)
class Counts:
    """What became of the lines so far, in the order of `Kind`."""

    lines: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    #: (where, why) of the first bad ones.
    bad: list[tuple[str, str]] = field(default_factory=list)
    #: When the first of the events happened, by the signer's clock.
    earliest: datetime | None = None


class _Told(NamedTuple):
    """An event as one batch has it: how often, and how often with other words."""

    event: SignedTicket | NewPayment
    digest: bytes
    source: str
    copies: int
    differing: int


class Intake:
    """Reads lines and records them. `on_kinds` hears how many lines became what, once that is durable."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        on_kinds: Callable[[Mapping[Kind, int]], None] = lambda _: None,
        on_bad: Callable[[str, str], None] = lambda where, why: None,
    ) -> None:
        self._engine = engine
        self._on_kinds = on_kinds
        self._on_bad = on_bad
        self.counts = Counts()
        self._clear()

    def _clear(self) -> None:
        # By id, so that none stands twice in a statement.
        self._tickets: dict[UUID, _Told] = {}
        self._payments: dict[UUID, _Told] = {}
        self._bad: list[tuple[str, str]] = []
        self._lines = dict.fromkeys(Kind, 0)

    def add(self, source: str, content: bytes | None) -> None:
        """One line. `source` says where it stands; the same place read again is no further copy of its event."""
        try:
            event = read_event(content)
        except BadEvent as error:
            self._lines[Kind.BAD] += 1
            self._bad.append((source, str(error)))
            return
        if event is None:
            self._lines[Kind.OTHER_TYPE] += 1
            return
        batch = self._payments if isinstance(event, NewPayment) else self._tickets
        told = _Told(event, digest(event), source, 1, 0)
        if (known := batch.get(event.id)) is not None:
            differs = known.digest != told.digest
            told = known._replace(copies=known.copies + 1, differing=known.differing + differs)
        batch[event.id] = told
        self._lines[Kind.NEW if known is None else Kind.REPEATED] += 1

    @property
    def is_full(self) -> bool:
        return sum(self._lines.values()) >= BATCH_ROWS_MAX

    async def flush(self) -> None:
        """Records what was added, in one transaction. What SQLAlchemy raises means: all of it is still to be read."""
        try:
            async with self._engine.begin() as connection:
                for function, types, batch in (
                    ("record_signer_events", _TICKET_TYPES, self._tickets),
                    ("record_signer_payments", _PAYMENT_TYPES, self._payments),
                ):
                    if batch:
                        columns = _columns(types, map(_row, batch.values()))
                        rows = await connection.execute(text(_call(function, types)), columns)
                        known = sum(not is_new for is_new in rows.scalars())
                        self._lines[Kind.NEW] -= known
                        self._lines[Kind.REPEATED] += known
            self._tell()
        finally:
            self._clear()

    def _tell(self) -> None:
        for kind, count in self._lines.items():
            self.counts.lines[kind] += count
        for where, why in self._bad:
            self._on_bad(where, why)
        self.counts.bad += self._bad[: max(BAD_LINES_NAMED_MAX - len(self.counts.bad), 0)]
        happened = [told.event.happened_at for told in (*self._tickets.values(), *self._payments.values())]
        self.counts.earliest = min([*happened, *filter(None, [self.counts.earliest])], default=None)
        self._on_kinds(self._lines)


def log_bad_event(where: str, why: str) -> None:
    """Where there is no person to be told."""
    log.warning("signer_event_bad", where=where, reason=why)


async def record_file(
    engine: AsyncEngine, path: Path, *, on_progress: Callable[[Counts], None] = lambda _: None
) -> Counts:
    """Records a file of one event a line. `on_progress` is called after each batch. Raises OSError."""
    intake = Intake(engine)
    for line in lines_of(path):
        intake.add(f"{path.name}:{line.number}", line.content)
        if intake.is_full:
            await intake.flush()
            on_progress(intake.counts)
    await intake.flush()
    return intake.counts


def _call(function: str, types: Sequence[str]) -> str:
    arguments = ", ".join(f"CAST(:a{index} AS {kind}[])" for index, kind in enumerate(types))
    return f"SELECT is_new FROM {function}({arguments})"  # noqa: S608 - of constants


def _columns(types: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> dict[str, str]:
    columns = zip(types, zip(*rows, strict=True), strict=True)
    return {f"a{index}": array_literal(kind, column) for index, (kind, column) in enumerate(columns)}


_TICKET_TYPES: Final = (
    "uuid", "bytea", "timestamptz", "text", "text", "uuid", "uuid", "text", "bigint", "bytea", "bigint", "numeric",
    "numeric", "bytea", "text", "bigint", "bigint",
)  # fmt: skip
_PAYMENT_TYPES: Final = (
    "uuid", "bytea", "timestamptz", "text", "bytea", "bytea", "numeric", "bigint", "text", "bigint", "bigint",
)  # fmt: skip


def _row(told: _Told) -> tuple[Any, ...]:
    """The parameters of the recording functions: the event's fields in their order, around them how it was told."""
    id_, happened_at, *rest = told.event
    return (id_, told.digest, happened_at, told.source, *rest, told.copies, told.differing)
