"""The book of released tickets in the database (migrations/sql/0001_exposure.sql): kept small, compared and mended.

A commit adds what it releases, the indexer takes out what was redeemed, clearinghouse.coverage reads what is open.
Sums are integers over WIN_PROB_CERTAIN, never divided here.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.database.batches import ROWS_AT_ONCE_COUNT, to_its_end

#: Of an hour that is longer ago, nothing is kept: the burn of a week is read from the book, and a day is to spare.
KEPT: Final = timedelta(days=8)

_KEY: Final = "sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour"


class Kind(NamedTuple):
    """Tickets that are counted together, in full. `creation_round` to `win_prob` are None where they were not seen."""

    sender: bytes
    gateway_id: UUID
    creation_round: int | None
    recipient: bytes | None
    face_value_wei: int | None
    win_prob: int | None
    issued_hour: datetime
    num_tickets: int
    ev_numerator: int


async def roll_up(engine: AsyncEngine, *, rows_max: int = ROWS_AT_ONCE_COUNT) -> int:
    """Moves what was added into the counters, in transactions of a bounded size. Returns how many rows that were.

    0 also where another process is at it. Raises one of DATABASE_FAILED.
    """
    return await to_its_end(engine, "SELECT roll_up_exposure(:rows)", {"rows": rows_max}, rows_at_once_count=rows_max)


async def forget(engine: AsyncEngine, *, older_than: timedelta = KEPT) -> int:
    """Forgets hours longer ago, unless the chain's newest rounds reach back to them. Returns how many counters."""
    async with engine.begin() as connection:
        query = text("SELECT forget_exposure(now() - CAST(:older_than AS interval))")
        return int((await connection.execute(query, {"older_than": older_than})).scalar_one())


async def difference(connection: AsyncConnection) -> list[Kind]:
    """What the book lacks (negative: has too much of), compared with the issuances less what of them was redeemed."""
    await connection.execute(text("SET LOCAL statement_timeout = 0"))
    query = f"SELECT {_KEY}, num_tickets, ev_numerator FROM exposure_difference() ORDER BY {_KEY}"  # noqa: S608
    return [_kind(row) for row in (await connection.execute(text(query))).all()]


async def mend(engine: AsyncEngine) -> int:
    """Adds what the book lacks; payments may go on. Returns how many kinds of tickets were wrong."""
    async with engine.begin() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        return int((await connection.execute(text("SELECT mend_exposure()"))).scalar_one())


def _kind(row: Any) -> Kind:
    sender, gateway_id, round_, recipient, face_value_wei, win_prob, hour, num_tickets, ev_numerator = row
    return Kind(
        bytes(sender), gateway_id, round_, None if recipient is None else bytes(recipient), _int(face_value_wei),
        _int(win_prob), hour, num_tickets, int(ev_numerator),
    )  # fmt: skip


def _int(value: Any) -> int | None:
    return None if value is None else int(value)
