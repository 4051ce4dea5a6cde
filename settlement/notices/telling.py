"""One notice to one gateway, put into the outbox in the transaction of what it tells of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.database.connect import database_now
from clearinghouse.ids import show, uuid7
from settlement.delivery.message import Level, Message
from settlement.delivery.outbox import put
from settlement.notices.targets import Target, target_of

#: Of pg_advisory_xact_lock: one at a time numbers notices and remembers what was told.
LOCK: Final = int.from_bytes(b"notices\0")


@dataclass(frozen=True, slots=True)
class Told:
    """What is told: `type` and `data` for machines, `title` and `body` for people; `{name}` there is the gateway's."""

    type: str
    subject: str
    level: Level
    title: str
    body: str
    data: dict[str, Any]
    is_end: bool = False


async def tell(connection: AsyncConnection, gateway_id: UUID, told: Told) -> None:
    """Whether it has happened before is for the caller to know: this tells it again."""
    await take_turn(connection)
    now = await database_now(connection)
    target = await target_of(connection, gateway_id)
    query = text("SELECT name FROM gateway WHERE id = :id")
    name = str((await connection.execute(query, {"id": gateway_id})).scalar_one())
    shown = show("gw", gateway_id)

    def message(number: int) -> Message:
        return Message(
            type=told.type, dedup_key=f"{shown}:{told.subject}", level=told.level, is_end=told.is_end, group=shown,
            title=told.title.replace("{name}", name), body=told.body.replace("{name}", name), said_at=now,
            document={"gateway_id": shown, "gateway": name, "number": number, **told.data},
        )  # fmt: skip

    await put_notice(connection, target, told.type, told.data, message, now=now)


async def take_turn(connection: AsyncConnection) -> None:
    """Until the transaction ends."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


async def put_notice(
    connection: AsyncConnection,
    target: Target,
    type_: str,
    data: dict[str, Any],
    message: Callable[[int], Message],
    *,
    now: datetime,
) -> None:
    """The notice and its messages, whose number is the gateway's next."""
    values = {"id": target.gateway_id, "now": now}
    count = text("SELECT coalesce(max(number), 0) + 1 FROM notice WHERE gateway_id = :id")
    number = int((await connection.execute(count, {"id": target.gateway_id})).scalar_one())
    insert = """INSERT INTO notice (id, gateway_id, number, type, data, created_at)
                VALUES (:notice_id, :id, :number, :type, CAST(:data AS jsonb), :now)"""
    notice = {"notice_id": uuid7(), "number": number, "type": type_, "data": json.dumps(data)}
    await connection.execute(text(insert), {**values, **notice})
    await put(
        connection, "notice", subject=target.gateway_id, number=number, channels=target.channels(),
        message=message(number), now=now,
    )  # fmt: skip
