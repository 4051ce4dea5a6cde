"""Stripe's events for whoever looks at them, and having them done again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.errors import Conflict, NotFound
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.transfers import check_reason

STATES: Final = ("received", "processing", "done", "parked")


class NotParked(Conflict):
    """Only what waits for a person can be closed by one."""

    what_next = "`clearinghouse stripe events list --state parked` has those that can be."


class EventBusy(Conflict):
    """Somebody is at it."""

    what_next = "Wait until it is done, parked or its lease has run out; then try again."


_COLUMNS: Final = """id, type, object_type, object_id, api_version, created_at, received_at, source, state, due_at,
    attempts_count, failures_count, said, ended_at"""
_LIST: Final = f"""
    SELECT {_COLUMNS} FROM stripe_event
     WHERE (CAST(:state AS text) IS NULL OR state = :state) AND (CAST(:object AS text) IS NULL OR object_id = :object)
       AND (CAST(:type AS text) IS NULL OR type LIKE :type)
     ORDER BY received_at DESC, id LIMIT :count
"""  # noqa: S608 (a constant)


async def list_events(
    connection: AsyncConnection, *, state: str | None, object_id: str | None, kind: str | None, count: int
) -> list[dict[str, Any]]:
    """The newest first. `kind` is a type, or the beginning of one before an asterisk: `invoice.*`."""
    pattern = None if kind is None else _escaped(kind.removesuffix("*")) + ("%" if kind.endswith("*") else "")
    values = {"state": state, "object": object_id, "type": pattern, "count": count}
    return [_document(row) for row in await connection.execute(text(_LIST), values)]


async def show_event(connection: AsyncConnection, event_id: str) -> dict[str, Any]:
    """With what arrived. Raises NotFound."""
    query = f"SELECT {_COLUMNS}, payload FROM stripe_event WHERE id = :id"  # noqa: S608 (a constant)
    row = (await connection.execute(text(query), {"id": event_id})).one_or_none()
    if row is None:
        raise NotFound(f"There is no event {event_id[:80]!r}: it has not arrived, or was forgotten.")
    return {**_document(row), "payload": row.payload}


_AGAIN: Final = """
    UPDATE stripe_event SET state = 'received', due_at = now(), failures_count = 0, ended_at = NULL, said = :said
"""


async def replay(connection: AsyncConnection, event_ids: Sequence[str], *, actor: str) -> int:
    """Acted upon once more, whatever became of them; none of them if one cannot be. Raises NotFound, EventBusy."""
    wanted = sorted(set(event_ids))
    locked = text(
        "SELECT id, state = 'processing' AND due_at > now() AS is_busy FROM stripe_event"
        " WHERE id = ANY (:ids) FOR UPDATE"
    )
    found = {row.id: row.is_busy for row in await connection.execute(locked, {"ids": wanted})}
    if missing := [event_id for event_id in wanted if event_id not in found]:
        raise NotFound(f"There is no event {missing[0][:80]!r}: it has not arrived, or was forgotten.")
    if busy := [event_id for event_id, is_busy in found.items() if is_busy]:
        raise EventBusy(f"The event {busy[0]} is being acted upon now.")
    values = {"ids": wanted, "said": f"to be done again: {actor}"}
    return (await connection.execute(text(f"{_AGAIN} WHERE id = ANY (:ids)"), values)).rowcount


async def redrive(connection: AsyncConnection, *, kind: str | None, actor: str) -> int:
    """All that are parked, or those of one type. Returns how many."""
    where = "WHERE state = 'parked' AND (CAST(:type AS text) IS NULL OR type = :type)"
    values = {"type": kind, "said": f"to be done again: {actor}"}
    return (await connection.execute(text(f"{_AGAIN} {where}"), values)).rowcount


async def close(connection: AsyncConnection, event_ids: Sequence[str], *, reason: str, actor: str) -> int:
    """What is parked and was settled otherwise needs nothing more; none of them if one is not. Raises NotParked."""
    check_reason(reason)
    wanted = sorted(set(event_ids))
    update = text("""UPDATE stripe_event SET state = 'done', ended_at = now(), said = left(:said, 500)
                      WHERE id = ANY (:ids) AND state = 'parked' RETURNING id""")
    values = {"ids": wanted, "said": f"closed by {actor}: {reason}"}
    closed = {row.id for row in await connection.execute(update, values)}
    if left := [event_id for event_id in wanted if event_id not in closed]:
        raise NotParked(f"The event {left[0][:80]!r} is not parked.")
    return len(closed)


def _escaped(words: str) -> str:
    return words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _document(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "type": row.type,
        "object_type": row.object_type,
        "object_id": row.object_id,
        "state": row.state,
        "said": row.said,
        "source": row.source,
        "api_version": row.api_version,
        "created_at": rfc3339(row.created_at),
        "received_at": rfc3339(row.received_at),
        "due_at": rfc3339(row.due_at) if row.ended_at is None else None,
        "ended_at": rfc3339(row.ended_at) if row.ended_at is not None else None,
        "attempts_count": row.attempts_count,
        "failures_count": row.failures_count,
    }
