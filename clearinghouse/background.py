"""Work beside the calls, repeated for as long as the service runs. No failure ends it: the next turn may go well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

_CANCEL_AGAIN_S: Final = 2


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels them until they have ended, however they end.

    Once is not enough for what goes on after failures: a database driver whose connection breaks at that moment raises
    that instead, and a loop which takes it for one more failure would be waited for without end.
    """
    while going_on := [task for task in tasks if not task.done()]:
        for task in going_on:
            task.cancel()
        await asyncio.wait(going_on, timeout=_CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


class Repeated:
    """`start` before use, `stop` after; both belong to one event loop. `name` is what logs call it.

    Trouble that is to be expected `work` catches itself and says what follows from it. Whatever it raises is a bug: it
    is logged with its trace, and must not silently leave a service whose memory grows old.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[None]], *, every_s: float, woken_every_s: float = 1
    ) -> None:
        """`woken_every_s`: the shortest pause between two turns, however often it is woken."""
        self._name = name
        self._work = work
        self._every_s = every_s
        self._woken_every_s = min(woken_every_s, every_s)
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, *, at_once: bool = True) -> None:
        """Begins with a turn, or with a pause where the first turn was just taken."""
        assert self._task is None, "starts once"
        self._task = asyncio.create_task(self._go_on(at_once), name=self._name)

    def wake(self) -> None:
        """The next turn is due now, or right after the one that is under way."""
        self._woken.set()

    async def stop(self) -> None:
        """Cancels a turn that is under way. May be called twice, and without a start."""
        if self._task is not None:
            await end(self._task)

    async def _go_on(self, at_once: bool) -> None:
        if not at_once:
            await self._pause()
        while True:
            self._woken.clear()
            try:
                await self._work()
            except Exception:
                log.exception("background_work_failed", work=self._name)
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._woken_every_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._every_s - self._woken_every_s):
                await self._woken.wait()
