"""Events against issuances: what was signed, and not issued; what was issued, and not reported; what differs.

An event and an issuance belong together when gateway, session, sequence number and recipientRandHash are equal. There
is at most one such issuance (promise 4), and as many events as payments were signed: one, and one for each that the
service asked for and threw away, which it writes down in `unreleased`. Any further event was signed for somebody else.

Time goes by in windows, and each is judged by one query. Issuances are found by the time in their ids (UUIDv7), so that
no index had to be added to what every payment writes. Around a window both are read a little further, because clocks
differ. What is critical stays so or not whatever other events arrive late; warnings come and go with them.

Nobody is billed or suspended by a finding.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.database.arrays import array_literal
from clearinghouse.database.batches import to_its_end
from clearinghouse.derivation import CLOCK_SKEW_MAX_NS
from clearinghouse.errors import NotFound
from clearinghouse.signer_events.faults import FAULTS, SEVERITY, Found, Severity

#: How far apart an event and its issuance may be: clocks differ by CLOCK_SKEW_MAX_NS at most, or the answer was
#: refused, and no call takes longer than 30 s (limits.request_deadline_s). The rest is for scheduling.
APART_MAX: Final = timedelta(seconds=120)
assert timedelta(microseconds=CLOCK_SKEW_MAX_NS // 1000) + timedelta(seconds=60) < APART_MAX
#: A window has no more events than this, unless it would be shorter than what is read around it.
WINDOW_EVENTS: Final = 200_000
WINDOW_MIN: Final = timedelta(minutes=10)
WINDOW_MAX: Final = timedelta(hours=1)
#: Of each kind in each window so many findings are written down; all are counted.
FINDINGS_PER_WINDOW_MAX: Final = 1000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FOR_EVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Expected:
    """What every payment of the signers must keep to. `sender` and `face_value_max_wei`: None where not known."""

    sender: bytes | None = None
    #: Empty: anybody may be paid.
    recipients: tuple[bytes, ...] = ()
    face_value_max_wei: int | None = None


class Finding(NamedTuple):
    """Something that does not fit. `subject` is an event's, an issuance's or a state's id."""

    kind: str
    subject: str
    severity: str
    detail: str
    happened_at: datetime
    first_seen_at: datetime


class Fault(NamedTuple):
    """`amount_wei` is what it is about: of an issuance its expected value, of a fee by how much it differs, of what the
    books do not have the fee that the signer reports. None where nobody tells."""

    kind: Found
    subject: str
    detail: str
    happened_at: datetime
    amount_wei: Decimal | None


class Judged(NamedTuple):
    """A window. `totals` count all of `faults`, of which there are FINDINGS_PER_WINDOW_MAX of a kind at most."""

    events: int
    totals: dict[Found, int]
    faults: list[Fault]


@dataclass(slots=True)
class Report:
    """What one run found between `begins_at` and `ends_at`: all of it counted, whether or not it was known before."""

    begins_at: datetime
    ends_at: datetime
    events: int = 0
    found: dict[Found, int] = field(default_factory=lambda: dict.fromkeys(Found, 0))


async def reconcile(
    engine: AsyncEngine,
    *,
    begins_at: datetime,
    ends_at: datetime,
    expected: Expected = Expected(),
    on_window: Callable[[Report, datetime], None] = lambda _report, _until: None,
) -> Report:
    """Judges [begins_at, ends_at) window by window and writes down what is found. Needs SELECT and the noting function.

    `ends_at` should lie a little in the past: events and records of what was thrown away come late. Events that name no
    session of ours are reported also after it. `on_window` is called after each window with the time reached.
    """
    begins_at, ends_at = whole_ms(begins_at), whole_ms(ends_at)
    report = Report(begins_at, ends_at)
    window_begins_at = begins_at
    while window_begins_at < ends_at:
        async with engine.begin() as connection:
            # A long look is meant here, and large sorts should not go to disk at once.
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            await connection.execute(text("SET LOCAL work_mem = '64MB'"))
            window_ends_at = await window_end(connection, window_begins_at, ends_at)
            await _judge(connection, report, window_begins_at, window_ends_at, expected)
        window_begins_at = window_ends_at
        on_window(report, window_ends_at)
    return report


async def reconcile_further(
    engine: AsyncEngine, *, ends_at: datetime, expected: Expected, windows_max: int
) -> Report | None:
    """Goes on from where the last run ended, or from what has arrived late since. None where there is nothing to do.

    Not for two at once: they would do the same work. What arrives meanwhile moves the beginning back and is done next.
    """
    total: Report | None = None
    for _ in range(windows_max):
        async with engine.connect() as connection:
            begins_at = (await connection.execute(text("SELECT reconciled_until FROM signer_event_progress"))).scalar()
            if begins_at is None or begins_at >= ends_at:
                return total
            window_ends_at = await window_end(connection, begins_at, ends_at)
        report = await reconcile(engine, begins_at=begins_at, ends_at=window_ends_at, expected=expected)
        total = report if total is None else _sum(total, report)
        async with engine.begin() as connection:
            moves = {"begins_at": begins_at, "ends_at": window_ends_at}
            await connection.execute(text("SELECT signer_events_reconciled(:begins_at, :ends_at)"), moves)
    return total


async def open_findings(
    connection: AsyncConnection, *, severity: Severity | None = None, limit: int = 1000
) -> list[Finding]:
    """What is wrong now, the gravest and newest first: what an alert is about. Needs SELECT."""
    query = """
        SELECT kind, subject, severity, detail, happened_at, first_seen_at FROM open_signer_event_finding
         WHERE severity = coalesce(CAST(:severity AS text), severity)
         ORDER BY array_position(ARRAY['critical', 'warning', 'info'], severity), happened_at DESC, kind, subject
         LIMIT :limit
    """
    rows = await connection.execute(text(query), {"severity": severity, "limit": limit})
    return [Finding(*row) for row in rows]


async def count_open_findings(connection: AsyncConnection) -> dict[Found, int]:
    """How many findings of each kind are open; every kind is there. Needs SELECT."""
    rows = await connection.execute(text("SELECT kind, count(*) FROM open_signer_event_finding GROUP BY kind"))
    counts = {kind: int(count) for kind, count in rows}
    return {kind: counts.get(kind.value, 0) for kind in Found}


async def accept_finding(connection: AsyncConnection, kind: str, subject: str, *, reason: str, actor: str) -> None:
    """Somebody has looked into it, so that it is open no more. NotFound. Needs the admin role."""
    query = text("SELECT accept_signer_event_finding(:kind, :subject, :reason, :actor)")
    parameters = {"kind": kind, "subject": subject, "reason": reason, "actor": actor}
    if not (await connection.execute(query, parameters)).scalar_one():
        raise NotFound(f"there is no open finding {kind} {subject[:128]}")


async def forget(engine: AsyncEngine, *, older_than: timedelta) -> int:
    """Forgets events and what explains them after so long, in transactions of a bounded size. Returns how many rows."""
    return await to_its_end(engine, "SELECT forget_signer_events(:older_than)", {"older_than": older_than})


def _sum(total: Report, report: Report) -> Report:
    found = {kind: total.found[kind] + report.found[kind] for kind in Found}
    return Report(min(total.begins_at, report.begins_at), report.ends_at, total.events + report.events, found)


async def window_end(connection: AsyncConnection, begins_at: datetime, ends_at: datetime) -> datetime:
    """So that a window has about WINDOW_EVENTS, and is neither so short that what is read around it counts most, nor
    longer than WINDOW_MAX."""
    query = "SELECT happened_at FROM signer_event WHERE happened_at >= :at ORDER BY happened_at OFFSET :count LIMIT 1"
    full_at = (await connection.execute(text(query), {"at": begins_at, "count": WINDOW_EVENTS})).scalar()
    longest = min(begins_at + WINDOW_MAX, ends_at)
    return min(longest, max(full_at or longest, begins_at + WINDOW_MIN))


async def _judge(
    connection: AsyncConnection, report: Report, begins_at: datetime, ends_at: datetime, expected: Expected
) -> None:
    foreign_begins_at = ends_at if ends_at == report.ends_at else FOR_EVER
    judged = await judged_window(connection, begins_at, ends_at, expected, foreign_begins_at=foreign_begins_at)
    report.events += judged.events
    for kind, total in judged.totals.items():
        report.found[kind] += total
    complete = [kind for kind in Found if judged.totals.get(kind, 0) <= FINDINGS_PER_WINDOW_MAX]
    findings = [(one.kind, one.subject, SEVERITY[one.kind], one.detail, one.happened_at) for one in judged.faults]
    await _note(connection, begins_at, ends_at, complete, findings)


async def judged_window(
    connection: AsyncConnection,
    begins_at: datetime,
    ends_at: datetime,
    expected: Expected,
    *,
    foreign_begins_at: datetime = FOR_EVER,
) -> Judged:
    """What does not fit in [begins_at, ends_at): whole milliseconds, no longer than WINDOW_MAX. Reads only.

    From `foreign_begins_at` on, events that name no session of ours are among it too.
    """
    values = _values(begins_at, ends_at, expected, foreign_begins_at, findings_max=FINDINGS_PER_WINDOW_MAX)
    rows = (await connection.execute(text(FAULTS), values)).all()
    totals = {Found(row.kind): int(row.total) for row in rows}
    return Judged(await count_events(connection, begins_at, ends_at), totals, [_fault(row) for row in rows])


async def all_faults(
    connection: AsyncConnection, begins_at: datetime, ends_at: datetime, expected: Expected
) -> AsyncIterator[Fault]:
    """The same, but every one, as the database gives them: there may be as many as events."""
    values = _values(begins_at, ends_at, expected, FOR_EVER, findings_max=None)
    async for row in await connection.stream(text(FAULTS), values):
        yield _fault(row)


async def count_events(connection: AsyncConnection, begins_at: datetime, ends_at: datetime) -> int:
    """Those that happened in [begins_at, ends_at)."""
    query = text("SELECT count(*) FROM signer_event WHERE happened_at >= :begins_at AND happened_at < :ends_at")
    return int((await connection.execute(query, {"begins_at": begins_at, "ends_at": ends_at})).scalar_one())


def _fault(row: Any) -> Fault:
    return Fault(Found(row.kind), row.subject, row.detail, row.happened_at, row.amount_wei)


def _values(
    begins_at: datetime, ends_at: datetime, expected: Expected, foreign_begins_at: datetime, *, findings_max: int | None
) -> dict[str, Any]:
    """Of FAULTS. `findings_max`: None for all."""
    return {
        "begins_at": begins_at,
        "ends_at": ends_at,
        "near_begins_at": begins_at - APART_MAX,
        "near_ends_at": ends_at + APART_MAX,
        "first_id": _first_id(begins_at),
        "end_id": _first_id(ends_at),
        "foreign_begins_at": foreign_begins_at,
        "near_first_id": _first_id(begins_at - APART_MAX),
        "near_end_id": _first_id(ends_at + APART_MAX),
        "sender": expected.sender,
        "recipients": array_literal("bytea", expected.recipients),
        "face_value_max_wei": expected.face_value_max_wei,
        "findings_max": findings_max,
    }


async def _note(
    connection: AsyncConnection,
    begins_at: datetime,
    ends_at: datetime,
    complete: Sequence[Found],
    findings: Sequence[tuple[str, str, str, str, datetime]],
) -> None:
    types = ("text", "text", "text", "text", "timestamptz")
    columns = list(zip(*findings, strict=True)) or [()] * len(types)
    literals = {name: array_literal(kind, column) for name, kind, column in zip("abcde", types, columns, strict=True)}
    query = """SELECT note_signer_event_findings(:begins_at, :ends_at, CAST(:complete AS text[]), CAST(:a AS text[]),
        CAST(:b AS text[]), CAST(:c AS text[]), CAST(:d AS text[]), CAST(:e AS timestamptz[]))"""
    complete_kinds = array_literal("text", complete)
    times = {"begins_at": begins_at, "ends_at": ends_at, "complete": complete_kinds}
    await connection.execute(text(query), {**times, **literals})


def whole_ms(instant: datetime) -> datetime:
    """Events and identifiers have no finer times: each is in one window."""
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def _first_id(instant: datetime) -> UUID:
    """The least UUIDv7 of a time: identifiers begin with their milliseconds."""
    return UUID(int=max((instant - EPOCH) // timedelta(milliseconds=1), 0) << 80)
