"""The outbox in the database: put in, taken on, ended. See the package for what is exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ids import uuid7
from settlement.delivery.message import Delivery, Message, message_from

Kind = Literal["alert", "notice"]
Outcome = Literal["delivered", "failed", "refused"]

CLAIMED_AT_ONCE_MAX: Final = 100
ERROR_CHARS_MAX: Final = 300


class Backoff(NamedTuple):
    """Pauses between attempts: the first, doubled each time, never more than the longest."""

    first_s: int
    longest_s: int
    attempts_max: int

    def pause(self, attempt: int) -> timedelta:
        """After so many attempts."""
        return timedelta(seconds=min(self.longest_s, self.first_s << min(attempt - 1, 20)))


async def put(
    connection: AsyncConnection,
    kind: Kind,
    *,
    subject: UUID,
    number: int,
    channels: Iterable[str],
    message: Message,
    now: datetime,
) -> None:
    """In the transaction of what it tells of. IntegrityError where this message was put in before."""
    insert = """INSERT INTO delivery (id, kind, subject, number, channel, message, created_at, next_attempt_at)
                VALUES (:id, :kind, :subject, :number, :channel, CAST(:message AS jsonb), :now, :now)"""
    document = json.dumps(message.as_json())
    for channel in sorted(channels):
        parameters = {"id": uuid7(), "kind": kind, "subject": subject, "number": number, "channel": channel}
        await connection.execute(text(insert), {**parameters, "message": document, "now": now})


# What was told earlier about the same subject goes first: an end before its beginning would leave an incident open.
_CLAIM: Final = """
    WITH due AS (
        SELECT id FROM delivery
         WHERE state = 'waiting' AND kind = :kind AND next_attempt_at <= :now
           AND NOT EXISTS (SELECT FROM delivery AS earlier
                            WHERE earlier.subject = delivery.subject AND earlier.channel = delivery.channel
                              AND earlier.state = 'waiting' AND earlier.position < delivery.position)
         ORDER BY next_attempt_at, position LIMIT :count FOR UPDATE SKIP LOCKED),
    claimed AS (
        UPDATE delivery SET attempts_count = attempts_count + 1, next_attempt_at = :lost_at FROM due
         WHERE delivery.id = due.id
        RETURNING delivery.id, position, channel, subject, attempts_count, message, created_at,
                  attempts_before),
    noted AS (
        INSERT INTO delivery_attempt (delivery_id, number, started_at)
        SELECT id, attempts_count, :now FROM claimed)
    SELECT id, channel, subject, attempts_count, message, created_at, attempts_before FROM claimed ORDER BY position
"""


async def claim(connection: AsyncConnection, kind: Kind, *, now: datetime, lost_at: datetime) -> list[Delivery]:
    """Begins an attempt for everything that is due: until `lost_at` nobody else does. In the order to be sent in."""
    parameters = {"kind": kind, "now": now, "lost_at": lost_at, "count": CLAIMED_AT_ONCE_MAX}
    rows = (await connection.execute(text(_CLAIM), parameters)).all()
    return [
        Delivery(
            row.id,
            row.channel,
            row.subject,
            row.attempts_count,
            message_from(row.message),
            row.created_at,
            row.attempts_before,
        )
        for row in rows
    ]


_END: Final = """
    WITH ended AS (
        UPDATE delivery_attempt SET ended_at = :now, outcome = :outcome, detail = :detail
         WHERE delivery_id = :id AND number = :attempt AND ended_at IS NULL RETURNING 1)
    UPDATE delivery
       SET state = :state, error = :detail, next_attempt_at = :next_attempt_at,
           ended_at = CASE WHEN :state = 'waiting' THEN NULL ELSE CAST(:now AS timestamptz) END
     WHERE id = :id AND attempts_count = :attempt AND state = 'waiting' AND EXISTS (SELECT FROM ended)
    RETURNING state
"""


async def end(
    connection: AsyncConnection,
    deliveries: Sequence[Delivery],
    outcome: Outcome,
    *,
    detail: str = "",
    now: datetime,
    backoff: Backoff,
) -> int:
    """Records how an attempt ended, for those of which it is still the newest. Returns how many messages died of it."""
    died_count = 0
    for delivery in deliveries:
        attempt = delivery.attempt - delivery.attempts_before
        is_last = attempt >= backoff.attempts_max
        state = "delivered" if outcome == "delivered" else "dead" if outcome == "refused" or is_last else "waiting"
        parameters = {
            "id": delivery.id, "attempt": delivery.attempt, "outcome": outcome, "detail": detail[:ERROR_CHARS_MAX],
            "now": now, "state": state, "next_attempt_at": now + backoff.pause(attempt),
        }  # fmt: skip
        ended = (await connection.execute(text(_END), parameters)).scalar_one_or_none()
        died_count += ended == "dead"
    return died_count


async def put_back(connection: AsyncConnection, delivery_ids: Sequence[UUID], *, now: datetime) -> int:
    """What was given up or delivered goes out again, from its first attempt. Returns how many that are."""
    again = """UPDATE delivery SET state = 'waiting', next_attempt_at = :now, ended_at = NULL, error = '',
                      attempts_before = attempts_count
                WHERE id = ANY (:ids) AND state <> 'waiting'"""
    return (await connection.execute(text(again), {"ids": list(delivery_ids), "now": now})).rowcount
