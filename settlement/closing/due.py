"""Which periods are over and not closed: derived from the gateways' calendars and from what was closed last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import Row, text

from clearinghouse.errors import InvalidRequest
from settlement.cadence import Cadence, Every
from settlement.periods import Period, Terms, Timeline, Way
from settlement.timelines import timeline

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

#: However late, so many periods of a gateway are closed in one go, and the others in the next.
PERIODS_AT_ONCE_MAX: Final = 120

# The newest closed period of each gateway, and its terms. After a period no other ends within five days (a week in
# which clocks are put forward, or a day is left out, is longer), unless other terms begin where it ended.
_STANDINGS: Final = """
    SELECT gateway.id, gateway.created_at, account.currency, newest.first_day, newest.next_day, newest.begins_at,
           newest.ends_at, coalesce(newest.closing, 0) AS closing, seal.sealed_until,
           agreed.begin, agreed.way, agreed.cadence, agreed.anchor_day, agreed.zone
      FROM gateway
      JOIN account ON account.id = gateway.id
      LEFT JOIN LATERAL (
           SELECT first_day, next_day, begins_at, ends_at, closing FROM billing_period
            WHERE billing_period.gateway_id = gateway.id ORDER BY begins_at DESC LIMIT 1) AS newest ON true
      LEFT JOIN billing_seal AS seal ON seal.gateway_id = gateway.id
      LEFT JOIN (
           SELECT gateway_id, array_agg(begins_at ORDER BY begins_at) AS begin,
                  array_agg(way ORDER BY begins_at) AS way, array_agg(cadence ORDER BY begins_at) AS cadence,
                  array_agg(anchor_day ORDER BY begins_at) AS anchor_day,
                  array_agg(time_zone ORDER BY begins_at) AS zone
             FROM billing_terms GROUP BY gateway_id) AS agreed ON agreed.gateway_id = gateway.id
"""
_MAY_BE_DUE: Final = """
     WHERE coalesce(newest.ends_at, gateway.created_at) < :until
       AND (newest.ends_at IS NULL OR newest.ends_at <= CAST(:until AS timestamptz) - interval '5 days'
            OR newest.ends_at = ANY (agreed.begin))
     ORDER BY gateway.id
"""


@dataclass(frozen=True, slots=True)
class Due:
    """Periods of a gateway that are over, oldest first, at least one; each begins where the one before it ends."""

    gateway_id: UUID
    periods: tuple[Period, ...]
    #: Whether an entry could still come whose time is in one of them.
    is_sealed: bool

    @property
    def begin(self) -> datetime:
        return self.periods[0].begin

    @property
    def end(self) -> datetime:
        return self.periods[-1].end


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A gateway whose terms make no calendar. `reason` says why."""

    gateway_id: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class Calendar:
    """A gateway's periods, and the newest of them that was closed, with what the account had at its end."""

    gateway_id: UUID
    timeline: Timeline
    closed: Period | None
    closing: Decimal
    currency: str
    sealed_until: datetime | None

    def open_from(self) -> Period:
        """The first that is not closed."""
        return self.timeline.first() if self.closed is None else self.timeline.after(self.closed)

    def due(self, now: datetime) -> Due | None:
        """What of it is over at `now`; None where nothing is."""
        periods: list[Period] = []
        for period in self.timeline.closed(last=self.closed, final=now):
            periods.append(period)
            if len(periods) == PERIODS_AT_ONCE_MAX:
                break
        if not periods:
            return None
        is_sealed = self.sealed_until is not None and periods[-1].end <= self.sealed_until
        return Due(self.gateway_id, tuple(periods), is_sealed)


async def due_periods(engine: AsyncEngine, now: datetime) -> tuple[list[Due], list[Unreadable]]:
    """Of all gateways, by their ids. Nothing is over before the database's own clock says so, whatever `now` is."""
    async with engine.connect() as connection:
        until = (await connection.execute(text("SELECT least(:now, clock_timestamp())"), {"now": now})).scalar_one()
        rows = (await connection.execute(text(_STANDINGS + _MAY_BE_DUE), {"until": until})).all()
    # Ten thousand calendars take half a second, in which neither the loop nor the database shall wait.
    return await asyncio.to_thread(_due, rows, until)


def _due(rows: Sequence[Row[Any]], until: datetime) -> tuple[list[Due], list[Unreadable]]:
    found, unreadable = [], []
    for row in rows:
        try:
            due = _calendar(row).due(until)
        except (ValueError, InvalidRequest) as error:
            unreadable.append(Unreadable(row.id, str(error)))
        else:
            if due is not None:
                found.append(due)
    return found, unreadable


async def calendar_of(connection: AsyncConnection, gateway_id: UUID) -> Calendar:
    """Of one gateway. ValueError or InvalidRequest where its terms make none."""
    query = text(f"{_STANDINGS} WHERE gateway.id = :gateway_id")
    return _calendar((await connection.execute(query, {"gateway_id": gateway_id})).one())


def cohorts(due: Sequence[Due]) -> Iterator[list[Due]]:
    """Those that are summed together: their first periods begin in the same month. Oldest first.

    What is read for them is what was written since the oldest of them began: who is months behind would make that
    months for everybody.
    """
    waiting = sorted(due, key=lambda each: (each.begin, each.gateway_id))
    while waiting:
        until = waiting[0].begin + timedelta(days=31)
        count = sum(each.begin < until for each in waiting)
        yield waiting[:count]
        waiting = waiting[count:]


def _calendar(row: Row[Any]) -> Calendar:
    """Raises ValueError, and InvalidRequest for a time zone that there is not."""
    agreed = [
        (begin, Terms(Cadence(Every(cadence), anchor_day), zone, Way(way)))
        for begin, way, cadence, anchor_day, zone in zip(
            row.begin or (), row.way or (), row.cadence or (), row.anchor_day or (), row.zone or (), strict=True
        )
    ]
    periods = timeline(row.created_at, agreed)
    closed = None
    if row.ends_at is not None:
        closed = Period(row.first_day, row.next_day, row.begins_at, row.ends_at, periods.terms_on(row.first_day))
    return Calendar(row.id, periods, closed, row.closing, row.currency, row.sealed_until)
