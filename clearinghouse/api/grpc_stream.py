"""A stream of requests that are worked on side by side and answered in order of completion."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from clearinghouse.errors import ShuttingDown
from clearinghouse.rpc.call import Call

IN_FLIGHT_MAX_COUNT: Final = 64


class AnsweredStream:
    """One bidirectional call. `answer` turns a request into its answer; what it raises ends the stream."""

    def __init__(
        self,
        call: Call,
        answer: Callable[[bytes], Awaitable[bytes]],
        *,
        in_flight_max_count: int = IN_FLIGHT_MAX_COUNT,
    ) -> None:
        self._call = call
        self._answer = answer
        self._free_places = asyncio.Semaphore(in_flight_max_count)
        self._writing = asyncio.Lock()  # one message at a time
        self._reading: asyncio.Task[None] | None = None
        self._is_closing = False

    async def run(self) -> None:
        """Returns when the caller has half-closed and everything accepted is answered.

        Raises ShuttingDown when it was `close` that ended the reading, and everything accepted is answered.
        """
        async with asyncio.TaskGroup() as tasks:
            self._reading = tasks.create_task(self._read(tasks))
            if self._is_closing:
                self._reading.cancel()
        if self._reading.cancelled():
            raise ShuttingDown("The service is stopping. What was accepted is answered; nothing else was begun.")

    def close(self) -> None:
        """Accepts nothing more. What the caller sent and nobody has read yet was never begun."""
        self._is_closing = True
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            # A place first, then the request: a full house leaves the rest with the sender (HTTP/2 flow control).
            await self._free_places.acquire()
            request = await self._call.read()
            if request is None:
                return
            tasks.create_task(self._work(request))

    async def _work(self, request: bytes) -> None:
        try:
            answer = await self._answer(request)
            async with self._writing:
                await self._call.write(answer)
        finally:
            self._free_places.release()
