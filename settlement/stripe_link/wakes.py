"""Hears from the database that an event has arrived, so that nobody need wait for the next look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psycopg

from clearinghouse.database.connect import WORK_ROLE, in_role

_AGAIN_AFTER_S: Final = 1


async def wake_on_events(conninfo: str, wake: Callable[[], None]) -> None:
    """Calls `wake` at each arrival, until it is cancelled. What arrives while the connection is away it does not hear.

    It needs a connection to the server itself: through a pooler it hears nothing, and looks find the events.
    """
    own = in_role(conninfo, WORK_ROLE, application_name="clearinghouse-stripe-wakes")
    while True:
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(own, autocommit=True) as connection:
                await connection.execute("LISTEN stripe_event")
                wake()  # for what arrived before
                async for _ in connection.notifies():
                    wake()
        await asyncio.sleep(_AGAIN_AFTER_S)
