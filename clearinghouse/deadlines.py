"""A bound on how long each call may take, with one timer for all of them.

asyncio.timeout arms and disarms a timer of the event loop for every call. Here all calls have the same time, so they
end in the order in which they began: a queue, and one timer for its head.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")
Argument = TypeVar("Argument")


class _Running:
    """A task at work. `task` is None when the work has ended, `is_late` when it was ended for taking too long."""

    __slots__ = ("ends_at_s", "is_late", "task")

    def __init__(self, task: asyncio.Task[object], ends_at_s: float) -> None:
        self.task: asyncio.Task[object] | None = task
        self.ends_at_s = ends_at_s
        self.is_late = False


class Deadlines:
    """Runs work that is cancelled after `timeout_s`. For one event loop."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._running: deque[_Running] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, work: Callable[[Argument], Awaitable[Result]], argument: Argument) -> Result:
        """`await work(argument)`. Raises TimeoutError when it took too long; it was cancelled then, and has ended."""
        task = asyncio.current_task()
        assert task is not None, "awaited in a task"
        loop = asyncio.get_running_loop()
        running = _Running(task, loop.time() + self._timeout_s)
        self._running.append(running)
        if self._timer is None:
            self._timer = loop.call_at(running.ends_at_s, self._end_late_ones)
        try:
            return await work(argument)
        except asyncio.CancelledError:
            if running.is_late and task.uncancel() == 0:  # otherwise somebody else cancelled it as well
                raise TimeoutError from None
            raise
        finally:
            running.task = None
            while self._running and self._running[0].task is None:  # the timer would find them all at once
                self._running.popleft()

    def _end_late_ones(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._running:
            head = self._running[0]
            if head.task is not None:
                if head.ends_at_s > now_s:
                    break
                head.is_late = True
                head.task.cancel()
            self._running.popleft()
        self._timer = loop.call_at(self._running[0].ends_at_s, self._end_late_ones) if self._running else None
