"""Natural batching: while one call to the database is in flight, the next batch gathers. No timer, no added latency."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


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
