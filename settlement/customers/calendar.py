"""The calendar of gateways, written down where only SQL is spoken: the period that runs, and subscriptions' periods.

A subscription's period is written down before it begins, so that the commit itself can charge its fee and include its
usage from its first instant on. One that had ended before anybody wrote it down, or booked it, is not charged.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from psycopg.errors import ExclusionViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from clearinghouse.ids import show
from settlement.schedule import JobFailed
from settlement.timelines import timeline_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.periods import Period
    from settlement.schedule import Tick

EVERY_S: Final = 30
#: Subscriptions' periods are written down so long before they begin: a worker may be away for a weekend.
AHEAD: Final = timedelta(days=3)
#: Of one transaction, so that it is short: what signs for these gateways waits for it.
_AT_ONCE_COUNT: Final = 10
_NAMED_MAX_COUNT: Final = 3


class CalendarsWrong(JobFailed):
    """Terms of some gateways do not begin where a period ends, so that nobody can say which periods they have."""


async def reckon_calendars(tick: Tick) -> str:
    """A job's turn: every gateway whose period has ended since, or whose subscription goes on soon.

    Raises CalendarsWrong, once all others are reckoned.
    """
    done_count, wrong = 0, []
    async with tick.engine.connect() as connection:
        due = (await connection.execute(text(_DUE), {"now": tick.now, "ahead": AHEAD})).scalars().all()
    for first in range(0, len(due), _AT_ONCE_COUNT):
        async with tick.transaction() as connection:
            for gateway_id in due[first : first + _AT_ONCE_COUNT]:
                try:
                    async with connection.begin_nested():  # what is wrong with one takes nothing back of the others
                        await reckon(connection, gateway_id, tick.now)
                    done_count += 1
                except ValueError as error:
                    wrong.append(f"{show('gw', gateway_id)}: {error}")
    if wrong:
        raise CalendarsWrong(f"{len(wrong)} calendars cannot be reckoned: {'; '.join(wrong[:_NAMED_MAX_COUNT])}")
    return f"{done_count} calendars reckoned"


async def reckon(connection: AsyncConnection, gateway_id: UUID, now: datetime) -> None:
    """Writes down the period that `now` is in; and of a subscription that one, and the next if it begins soon.

    By the terms as they are, not as they were: the account is held first, as by whoever changes them. Raises ValueError
    where periods cannot be: then the caller's transaction, or savepoint, is to be taken back.
    """
    await connection.execute(text("SELECT hold_terms(:gateway_id)"), {"gateway_id": gateway_id})
    timeline = await timeline_of(connection, gateway_id)
    period = timeline.period_at(now)
    await connection.execute(text(_NOTE_PERIOD), _values(gateway_id, period))
    for each in (period, timeline.after(period)):
        if each.terms.way == "subscription" and each.begin <= now + AHEAD:
            await _plan(connection, gateway_id, each)


async def _plan(connection: AsyncConnection, gateway_id: UUID, period: Period) -> None:
    plan = text("SELECT plan_subscription_period(:gateway_id, :begins_at, :ends_at, :first_day, :next_day)")
    try:
        await connection.execute(plan, _values(gateway_id, period))
    except IntegrityError as error:
        if not isinstance(error.orig, ExclusionViolation):
            raise
        raise ValueError(error.orig.diag.message_primary) from error


def _values(gateway_id: UUID, period: Period) -> dict[str, object]:
    return {
        "gateway_id": gateway_id,
        "begins_at": period.begin,
        "ends_at": period.end,
        "first_day": period.first_day,
        "next_day": period.next_day,
    }


_NOTE_PERIOD: Final = """
    INSERT INTO current_period (gateway_id, begins_at, ends_at, first_day, next_day)
    VALUES (:gateway_id, :begins_at, :ends_at, :first_day, :next_day)
        ON CONFLICT (gateway_id) DO UPDATE SET begins_at = EXCLUDED.begins_at, ends_at = EXCLUDED.ends_at,
           first_day = EXCLUDED.first_day, next_day = EXCLUDED.next_day
"""
# Of subscriptions: the one that runs is not written down, or the next is not and begins soon.
_DUE: Final = """
    SELECT gateway.id FROM gateway LEFT JOIN current_period AS period ON period.gateway_id = gateway.id
      LEFT JOIN LATERAL (SELECT way FROM billing_terms
                          WHERE gateway_id = gateway.id AND begins_at <= period.ends_at
                          ORDER BY begins_at DESC LIMIT 1) AS coming ON true
      LEFT JOIN LATERAL (SELECT way FROM billing_terms
                          WHERE gateway_id = gateway.id AND begins_at <= :now
                          ORDER BY begins_at DESC LIMIT 1) AS running ON true
     WHERE period.ends_at IS NULL OR period.ends_at <= :now
        OR coming.way = 'subscription' AND period.ends_at <= CAST(:now AS timestamptz) + :ahead AND NOT EXISTS (
           SELECT FROM subscription_period AS planned
            WHERE planned.gateway_id = gateway.id AND planned.begins_at = period.ends_at)
        OR running.way = 'subscription' AND NOT EXISTS (
           SELECT FROM subscription_period AS begun
            WHERE begun.gateway_id = gateway.id AND begun.begins_at <= :now AND begun.ends_at > :now)
     ORDER BY gateway.id
"""
