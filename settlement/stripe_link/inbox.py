"""Stripe's events in the database: taken on under a lease, and ended. migrations/sql/0001_stripe_events.sql has the
states.

A lease is a time and a number: until the time nobody else takes the event on, and whoever ends an attempt that is not
the newest any more ends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.runs import one_line


@dataclass(frozen=True, slots=True)
class Taken:
    """An event that is being acted upon. `failures_count`: how often in a row that went wrong."""

    id: str
    type: str
    object_type: str
    object_id: str | None
    attempt: int
    failures_count: int


class Backlog(NamedTuple):
    """What is still to be done, since when the oldest of it waits, and what nobody will do without being told to."""

    waiting_count: int
    oldest_received_at: datetime | None
    parked_count: int


class Pace(NamedTuple):
    """Times of the processing. What is away is asked again sooner than what is wrong."""

    lease: timedelta = timedelta(seconds=180)
    #: Less than the lease: a process that lives never works at what is another's.
    handler_timeout_s: float = 150
    first_pause: timedelta = timedelta(seconds=5)
    longest_pause: timedelta = timedelta(minutes=5)
    longest_away: timedelta = timedelta(minutes=1)
    #: With these pauses after half an hour.
    failures_max: int = 12

    def pause(self, failures_count: int) -> timedelta:
        """After so many failures in a row."""
        return min(self.longest_pause, self.first_pause * (1 << min(failures_count - 1, 20)))


# A process that ends in the middle of a handler may end because of it: that counts as a failure.
_PARK_KILLERS: Final = """
    UPDATE stripe_event
       SET state = 'parked', ended_at = now(), failures_count = failures_count + 1,
           said = 'whoever worked at it ended in the middle, ' || (failures_count + 1) || ' times'
     WHERE state = 'processing' AND due_at <= now() AND failures_count + 1 >= :failures_max
"""
# Together with those that arrived first goes everything else about the same objects: asking once answers all of it.
# While an object is being asked for, what comes about it waits, and is asked for again: the answer may have been older.
_TAKE: Final = """
    WITH first AS (
        SELECT id, object_id FROM stripe_event
         WHERE state IN ('received', 'processing') AND due_at <= now()
           AND NOT EXISTS (SELECT FROM stripe_event AS other
                            WHERE other.object_id = stripe_event.object_id AND other.state = 'processing'
                              AND other.due_at > now())
         ORDER BY due_at, received_at LIMIT :count FOR UPDATE SKIP LOCKED),
    beside AS (
        SELECT id FROM stripe_event
         WHERE state = 'received' AND due_at <= now() AND object_id IN (SELECT object_id FROM first)
           AND id NOT IN (SELECT id FROM first) FOR UPDATE SKIP LOCKED)
    UPDATE stripe_event
       SET failures_count = failures_count + (state = 'processing')::integer, state = 'processing',
           attempts_count = attempts_count + 1, due_at = now() + :lease
     WHERE id IN (SELECT id FROM first UNION ALL SELECT id FROM beside)
    RETURNING id, type, object_type, object_id, attempts_count, failures_count
"""


async def take(connection: AsyncConnection, *, count: int, pace: Pace) -> list[Taken]:
    """Up to `count` events that are due, and what else is due about their objects, for the time of a lease."""
    await connection.execute(text(_PARK_KILLERS), {"failures_max": pace.failures_max})
    rows = await connection.execute(text(_TAKE), {"count": count, "lease": pace.lease})
    return [Taken(*row) for row in rows]


_END: Final = """
    UPDATE stripe_event
       SET state = :state, said = :said, due_at = now() + :pause, failures_count = failures_count + :failures,
           ended_at = CASE WHEN :state IN ('done', 'parked') THEN now() END
      FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS integer[])) AS mine (id, attempt)
     WHERE stripe_event.id = mine.id AND attempts_count = attempt AND state = 'processing'
"""


async def _end(
    connection: AsyncConnection,
    taken: Sequence[Taken],
    state: str,
    said: str | None,
    *,
    pause: timedelta = timedelta(0),
    failures: int = 0,
) -> int:
    values = {
        "ids": [each.id for each in taken], "attempts": [each.attempt for each in taken], "state": state,
        "said": one_line(said) if said else None, "pause": pause, "failures": failures,
    }  # fmt: skip
    return (await connection.execute(text(_END), values)).rowcount


async def done(connection: AsyncConnection, taken: Sequence[Taken], said: str) -> int:
    """How many of them were still ours. So with the others."""
    return await _end(connection, taken, "done", said)


async def park(connection: AsyncConnection, taken: Sequence[Taken], reason: str, *, failures: int = 0) -> int:
    """Until somebody has them done again."""
    return await _end(connection, taken, "parked", reason, failures=failures)


async def try_again(
    connection: AsyncConnection, taken: Sequence[Taken], reason: str | None, *, pause: timedelta, failures: int
) -> int:
    """After a pause, by anybody."""
    return await _end(connection, taken, "received", reason, pause=pause, failures=failures)


_BACKLOG: Final = """
    SELECT (SELECT count(*) FROM stripe_event WHERE state IN ('received', 'processing')),
           (SELECT min(received_at) FROM stripe_event WHERE state IN ('received', 'processing')),
           (SELECT count(*) FROM stripe_event WHERE state = 'parked')
"""


async def backlog(connection: AsyncConnection) -> Backlog:
    return Backlog(*(await connection.execute(text(_BACKLOG))).one())
