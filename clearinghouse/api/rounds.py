"""Lets calls that arrive one by one begin together, so that they share their lookups and their commit.

A gRPC server hands over one call per turn of the event loop. Were each begun at once, the loop would finish it before
it looks at the next one: the others queue where nobody sees them, every call pays for a transaction of its own, and
that makes the loop slower still. As in the commit, nobody who is alone waits for company.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


class Rounds:
    """While one round is being worked on, the next gathers. A call that finds nobody at work begins at once.

    A round ends when all its calls are done, or after `round_max_s`: a signer that hangs holds nobody up for longer.
    """

    def __init__(self, *, round_max_s: float, calls_max_count: int) -> None:
        self._round_max_s = round_max_s
        self._calls_max_count = calls_max_count
        self._round = 0
        self._working_count = 0  # of the present round; 0: there is none, and nobody waits
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def join(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Does the work in the next round."""
        round_ = await self._begin()
        try:
            return await work()
        finally:
            self._end(round_)

    async def _begin(self) -> int:
        if not self._working_count:
            self._open(1)
            return self._round
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn had come, and it will not take it
                self._end(turn.result())
            raise

    def _end(self, round_: int) -> None:
        if round_ != self._round:
            return  # it outlasted its round
        self._working_count -= 1
        if not self._working_count:
            self._next()

    def _next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        turns = self._take()
        self._open(len(turns))
        for turn in turns:
            turn.set_result(self._round)

    def _take(self) -> list[asyncio.Future[int]]:
        turns: list[asyncio.Future[int]] = []
        while self._waiting and len(turns) < self._calls_max_count:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                turns.append(turn)
        return turns

    def _open(self, count: int) -> None:
        self._round += 1
        self._working_count = count
        self._timer = asyncio.get_running_loop().call_later(self._round_max_s, self._next) if count else None
