"""The connection of the hot path: made when it is first needed, and anew when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Any, LiteralString

import psycopg

from clearinghouse.database.connect import hot_conninfo
from clearinghouse.database.statements import Parameter, Statements
from clearinghouse.errors import DatabaseUnavailable

RECONNECT_PAUSE_S = 0.05
#: A connection that has died while nobody used it fails at once; one that fails later was lost with the statement.
_FOUND_DEAD_WITHIN_S = 0.5


class HotConnection:
    """One connection that is made when first needed and made anew after it was lost."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = hot_conninfo(conninfo)
        self._statements: Statements | None = None
        self._connecting = asyncio.Lock()

    async def fetch(self, query: LiteralString, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
        """Runs one statement in its own transaction. DatabaseUnavailable: its outcome is unknown."""
        statements = self._connected() or await self._connect()
        try:
            return await statements.run(query, parameters)
        except psycopg.Error as error:
            if not statements.is_closed and not _is_of_the_connection(error):
                raise
            statements.close()  # whatever ended it: nobody knows what became of the statement
            raise DatabaseUnavailable("The database connection was lost.", retry_after_s=1) from error

    async def read(self, query: LiteralString, parameters: Sequence[Parameter]) -> list[tuple[Any, ...]]:
        """As `fetch`, for a statement that changes nothing: where its connection turns out to be dead since long ago,
        it is sent again over a new one, so that no caller learns of a server that was away in between."""
        was_connected, began_s = self._connected() is not None, monotonic()
        try:
            return await self.fetch(query, parameters)
        except DatabaseUnavailable:
            if not was_connected or monotonic() - began_s > _FOUND_DEAD_WITHIN_S:
                raise
        return await self.fetch(query, parameters)

    def _connected(self) -> Statements | None:
        return None if self._statements is None or self._statements.is_closed else self._statements

    async def _connect(self) -> Statements:
        async with self._connecting:
            if (others := self._connected()) is not None:
                return others
            try:
                self._statements = await Statements.connected(self._conninfo)
            except (psycopg.OperationalError, OSError) as error:
                raise DatabaseUnavailable("The database cannot be reached.", retry_after_s=1) from error
            return self._statements

    async def close(self) -> None:
        if self._statements is not None:
            self._statements.close()


def is_of_the_statement(error: psycopg.Error) -> bool:
    """Whether a value was too large for the server (class 54, such as a key that fits into no index), which psycopg
    counts among the server's troubles: the statement was rolled back, and again it would fail again."""
    return (error.sqlstate or "").startswith("54")


def _is_of_the_connection(error: psycopg.Error) -> bool:
    """Read-only: a server that is no longer the primary. A new connection may find the one that is."""
    if isinstance(error, _RETRYABLE) or is_of_the_statement(error):
        return False
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | psycopg.errors.ReadOnlySqlTransaction)


#: Rolled back as a whole: the same call may succeed when repeated.
_RETRYABLE = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.QueryCanceled,
    psycopg.errors.LockNotAvailable,
)
