"""Hears from the database that something has arrived, so that nobody need wait for the next look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import structlog
from psycopg import sql

from clearinghouse.database.connect import WORK_ROLE, in_role

log = structlog.get_logger(__name__)


async def wake_on(
    conninfo: str, channel: str, application_name: str, wake: Callable[[], None], again_after_s: float
) -> None:
    """Calls `wake` at each notice of `channel`, until it is cancelled. What comes while the connection is away it does
    not hear; it listens again after `again_after_s`, and calls `wake` for what came meanwhile.

    It needs a connection to the server itself: through a pooler it hears nothing, and looks find what has arrived.
    """
    own = in_role(conninfo, WORK_ROLE, application_name=application_name)
    is_away = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(own, autocommit=True) as connection:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                if is_away:
                    log.info("wakes_heard_again", channel=channel)
                is_away = False
                wake()
                async for _ in connection.notifies():
                    wake()
        except psycopg.Error as error:
            if not is_away:
                reason = str(error).partition("\n")[0]
                log.warning("wakes_not_heard", channel=channel, reason=reason, retry_in_s=again_after_s)
            is_away = True
        await asyncio.sleep(again_after_s)
