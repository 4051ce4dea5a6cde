"""What gateways were told, and how far that got; told again on demand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse.errors import NotFound
from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from settlement.delivery.outbox import put, put_back

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.delivery.message import Message

Document = dict[str, Any]
LISTED_MAX: Final = 500

_LISTED: Final = """
    SELECT notice.id, notice.gateway_id, gateway.name, notice.number, notice.type, notice.data, notice.created_at,
           coalesce(jsonb_agg(jsonb_build_object(
               'channel', delivery.channel, 'state', delivery.state, 'attempts', delivery.attempts_count,
               'error', delivery.error) ORDER BY delivery.channel) FILTER (WHERE delivery.id IS NOT NULL), '[]') AS sent
      FROM notice JOIN gateway ON gateway.id = notice.gateway_id
      LEFT JOIN delivery ON delivery.kind = 'notice' AND delivery.subject = notice.gateway_id
                        AND delivery.number = notice.number
     WHERE (CAST(:gateway_id AS uuid) IS NULL OR notice.gateway_id = :gateway_id)
     GROUP BY notice.id, gateway.name
    HAVING NOT :only_dead OR bool_or(delivery.state = 'dead')
     ORDER BY notice.created_at DESC, notice.number DESC LIMIT :count
"""


async def list_notices(connection: AsyncConnection, *, gateway_id: UUID | None, only_dead: bool) -> list[Document]:
    """The newest first, at most LISTED_MAX."""
    values = {"gateway_id": gateway_id, "only_dead": only_dead, "count": LISTED_MAX}
    return [
        {
            "id": show("ntc", row.id), "gateway_id": show("gw", row.gateway_id), "gateway": row.name,
            "number": row.number, "type": row.type, "created_at": rfc3339(row.created_at), "data": row.data,
            "sent": row.sent,
        }
        for row in await connection.execute(text(_LISTED), values)
    ]  # fmt: skip


async def replay(connection: AsyncConnection, notice_ids: Sequence[UUID], *, now: datetime) -> int:
    """Sends these again, to wherever they went, under the same ids. Returns how many. NotFound."""
    find = text("""SELECT delivery.id FROM notice JOIN delivery
                       ON delivery.kind = 'notice' AND delivery.subject = notice.gateway_id
                      AND delivery.number = notice.number WHERE notice.id = ANY (:ids)""")
    known = text("SELECT count(*) FROM notice WHERE id = ANY (:ids)")
    values = {"ids": list(notice_ids)}
    if (await connection.execute(known, values)).scalar_one() != len(set(notice_ids)):
        raise NotFound("not all of these notices are there: see `clearinghouse notices list`")
    return await put_back(connection, list((await connection.execute(find, values)).scalars()), now=now)


async def replay_dead(connection: AsyncConnection, gateway_id: UUID, *, now: datetime) -> int:
    """Everything that was given up for a gateway. How many."""
    dead = text("SELECT id FROM delivery WHERE kind = 'notice' AND subject = :id AND state = 'dead'")
    found = (await connection.execute(dead, {"id": gateway_id})).scalars()
    return await put_back(connection, list(found), now=now)


async def send_test(
    connection: AsyncConnection, gateway_id: UUID, channels: Sequence[str], message: Message, *, now: datetime
) -> None:
    """A message that is no notice: it has a negative number, so that none of the gateway's own is missed for it."""
    lowest = text("SELECT least(min(number), 0) - 1 FROM delivery WHERE kind = 'notice' AND subject = :id")
    number = (await connection.execute(lowest, {"id": gateway_id})).scalar_one() or -1
    await put(connection, "notice", subject=gateway_id, number=number, channels=channels, message=message, now=now)
