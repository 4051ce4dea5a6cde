"""Natural batching: while one call to the database is in flight, the next batch gathers. No timer, no added latency."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from time import monotonic
from typing import Any, Generic, LiteralString, TypeVar

import psycopg

from clearinghouse.database.connect import hot_conninfo
from clearinghouse.database.statements import Parameter, Statements
from clearinghouse.errors import DatabaseUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

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


class NaturalBatcher(Generic[Item, Result]):
    """Gathers items while `execute` works on the ones before. Whose caller has gone before it was sent is left out.

    `execute` gives one result or exception per item, in order; if it raises, every item of the batch gets the error.
    `exclusive` names what at most one item of a batch may touch; an item that would be the second waits for the next.
    `group`, where given, names what all items of a batch have in common.
    """

    def __init__(
        self,
        execute: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        rows_max_count: int,
        exclusive: Callable[[Item], Iterable[Hashable]] = lambda _: (),
        group: Callable[[Item], Hashable] | None = None,
    ) -> None:
        self._execute = execute
        self._rows_max_count = rows_max_count
        self._exclusive = exclusive
        self._group = group
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Cancelling the caller does not cancel the work: the item may be carried out all the same."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def drain(self) -> None:
        """Returns when everything submitted so far is done."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = self._take()
                if not batch:
                    continue
                try:
                    results = await self._execute([item for item, _ in batch])
                except Exception as error:  # noqa: BLE001 - not swallowed: every caller of the batch gets it
                    results = [error] * len(batch)
                for (_, future), result in zip(batch, results, strict=True):
                    _resolve(future, result)
        finally:
            self._worker = None

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        touched: set[Hashable] = set()
        postponed: list[tuple[Item, asyncio.Future[Result]]] = []
        while self._waiting and len(batch) < self._rows_max_count:
            entry = self._waiting.popleft()
            if entry[1].done():
                continue  # its caller has gone and nothing was sent: a charge now would buy nothing
            if self._group is not None and batch and self._group(entry[0]) != self._group(batch[0][0]):
                postponed.append(entry)
                continue
            keys = list(self._exclusive(entry[0]))
            if touched.isdisjoint(keys):
                touched.update(keys)
                batch.append(entry)
            else:
                postponed.append(entry)
        self._waiting.extendleft(reversed(postponed))
        return batch


def _resolve(future: asyncio.Future[Result], result: Result | Exception) -> None:
    if future.done():
        return  # its caller has gone
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
