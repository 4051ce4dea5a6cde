"""Reads that are not on the hot path: balances and lists, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.errors import DatabaseUnavailable


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection to read with. DatabaseUnavailable when there is none, or when it is lost on the way."""
    try:
        async with engine.connect() as connection:
            yield connection
    except PoolTimeoutError:
        raise DatabaseUnavailable("All database connections for reading are in use.", retry_after_s=1) from None
    except (OperationalError, InterfaceError) as error:
        raise DatabaseUnavailable("The database cannot be reached.") from error
