"""Seals: after one, no entry of an earlier time can come to a gateway's books any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from settlement.closing.due import Due

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

#: Calls of so many gateways wait for one seal, about a millisecond. More would wait for longer, and that is what the
#: slowest of a hundred calls is made of.
AT_ONCE_COUNT: Final = 25
#: Longer than a commit of calls takes. A busy gateway is locked most of the time: its seal has to queue.
_WAITS_FOR: Final = "2s"


async def seal(engine: AsyncEngine, due: Sequence[Due]) -> list[Due]:
    """Seals each until the end of its last period. Those that are sealed now; the others are tried again another time.

    Each batch is one statement outside of any transaction: a process that is stopped holds no lock.
    """
    waiting = [each for each in due if not each.is_sealed]
    done: set[UUID] = {each.gateway_id for each in due if each.is_sealed}
    async with engine.connect() as connection:
        options = {"isolation_level": "AUTOCOMMIT", "postgresql_readonly": False}
        sealing = await connection.execution_options(**options)
        for start in range(0, len(waiting), AT_ONCE_COUNT):
            done |= await _seal(sealing, waiting[start : start + AT_ONCE_COUNT], waits=False)
        busy = [each for each in waiting if each.gateway_id not in done]
        if busy:
            await sealing.execute(text("SELECT set_config('lock_timeout', :timeout, false)"), {"timeout": _WAITS_FOR})
            for each in busy:
                done |= await _seal(sealing, [each], waits=True)
            await sealing.execute(text("RESET lock_timeout"))
    return [each for each in due if each.gateway_id in done]


async def _seal(connection: AsyncConnection, due: Sequence[Due], *, waits: bool) -> set[UUID]:
    """Of which gateways; none where one that is waited for does not become free."""
    values = {"gateways": [each.gateway_id for each in due], "ends": [each.end for each in due], "waits": waits}
    query = text("SELECT seal_books(CAST(:gateways AS uuid[]), CAST(:ends AS timestamptz[]), :waits)")
    try:
        return set((await connection.execute(query, values)).scalars())
    except OperationalError as error:
        if waits and getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            return set()
        raise


_LOCK_NOT_AVAILABLE: Final = "55P03"
