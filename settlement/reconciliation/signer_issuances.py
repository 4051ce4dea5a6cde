"""Issuances ↔ signer events: what `clearinghouse reconcile signer-events` looks for, over the period, written nowhere.

What somebody has looked into and accepted there is explained, and no difference; nor is an event that was told twice in
the same words.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ids import uuid7_from
from clearinghouse.signer_events.faults import Found
from clearinghouse.signer_events.reconcile import Expected, all_faults, count_events, whole_ms, window_end
from settlement.reconciliation.report import Compared, Difference, Period, Section, wei

NAME: Final = "signer_events"
TITLE: Final = "Issuances ↔ signer events"
_LINK: Final = "clearinghouse reconcile signer-events"


async def compare(
    connection: AsyncConnection,
    period: Period,
    *,
    expected: Expected,
    grace: timedelta,
    now: datetime,
    tell: Callable[[str], None],
) -> Section:
    """`connection` is in a snapshot. Events younger than `grace` are left for later: others may be on their way."""
    section = Section(NAME, TITLE)
    first, last = (await connection.execute(text("SELECT min(happened_at), max(happened_at) FROM signer_event"))).one()
    if first is None:
        return section.leave_out("no signer has reported any event: `clearinghouse signer-events --help`")
    begins_at, ends_at = whole_ms(period.begins_at), whole_ms(min(period.ends_at, now - grace))
    if last < begins_at or first >= ends_at:
        return section.leave_out(f"the events that there are happened from {_shown(first)} to {_shown(last)}")
    if first > begins_at:
        section.leave_out(f"issuances before {_shown(first)}: the first event that is kept is of then")
    if last < ends_at:
        section.leave_out(f"issuances after {_shown(last)}: the newest event is of then")
    if ends_at < whole_ms(min(period.ends_at, now)):
        section.leave_out(f"what happened after {_shown(ends_at)}: events of it may still be on their way")
    span = Period(max(begins_at, whole_ms(first)), ends_at)
    await _judge(connection, section, span, expected, tell)
    return section


async def _judge(
    connection: AsyncConnection,
    section: Section,
    span: Period,
    expected: Expected,
    tell: Callable[[str], None],
) -> None:
    begins_at, ends_at = span
    ids = {"first_id": uuid7_from(begins_at), "end_id": uuid7_from(ends_at)}
    issued = (await connection.execute(text(_ISSUED), ids)).one()
    events_count, accepted_count, duplicates_count, told_count = 0, 0, 0, 0
    at = begins_at
    while at < ends_at:
        until = await window_end(connection, at, ends_at)
        events_count += await count_events(connection, at, until)
        accepted, duplicates = await _note(connection, section, expected, at, until)
        accepted_count, duplicates_count = accepted_count + accepted, duplicates_count + duplicates
        at = until
        if events_count - told_count >= _EVENTS_BETWEEN_LINES:
            told_count = events_count
            tell(f"{events_count} signer events compared, until {_shown(until)}")
    section.compared += [
        Compared("events of signers", events_count),
        Compared("issuances of the same time", issued.found_count, (wei(issued.ev_wei or Decimal(0)),)),
        Compared("events that were told more than once, in the same words", duplicates_count),
        Compared("findings that somebody has accepted", accepted_count),
    ]


async def _note(
    connection: AsyncConnection, section: Section, expected: Expected, begins_at: datetime, ends_at: datetime
) -> tuple[int, int]:
    """The window's differences. How many of its faults are accepted, and how many are events told in the same words."""
    rows = await connection.execute(text(_ACCEPTED), {"begins_at": begins_at, "ends_at": ends_at})
    accepted = {(kind, subject) for kind, subject in rows}
    accepted_count, duplicates_count = 0, 0
    async for fault in all_faults(connection, begins_at, ends_at, expected):
        duplicates_count += fault.kind is Found.DUPLICATE
        if (fault.kind.value, fault.subject) in accepted:
            accepted_count += 1
        elif fault.kind is not Found.DUPLICATE:
            amount = wei(fault.amount_wei) if fault.amount_wei is not None else None
            section.differs(Difference(fault.kind.value, fault.subject, amount, fault.detail, _LINK))
    return accepted_count, duplicates_count


def _shown(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


_EVENTS_BETWEEN_LINES: Final = 50_000
_ACCEPTED: Final = """
    SELECT kind, subject FROM signer_event_finding
     WHERE accepted_at IS NOT NULL AND happened_at >= :begins_at AND happened_at < :ends_at
"""
_ISSUED: Final = """
    SELECT count(*) AS found_count, sum(issued.ev_wei) AS ev_wei
      FROM gateway
      JOIN LATERAL (SELECT ev_wei::numeric AS ev_wei FROM issuance
                     WHERE gateway_id = gateway.id AND id >= :first_id AND id < :end_id
                    OFFSET 0) AS issued ON true
"""
