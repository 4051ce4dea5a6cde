"""One at a time by name: whoever comes while a name is taken waits, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable


class Turns:
    """Locks by name that exist only while somebody holds them. For one event loop.

    `take` before the work, `give` after it, in a `finally`: the pair costs a fraction of an asyncio.Lock made for it.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}

    async def take(self, name: Hashable) -> None:
        """Returns when it is the caller's turn. A caller that is cancelled meanwhile has none and gives none."""
        queue = self._queues.get(name)
        if queue is None:
            self._queues[name] = deque()
            return
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(name)  # it had just become this caller's
            raise

    def give(self, name: Hashable) -> None:
        """The next one's turn. KeyError for a name that nobody holds."""
        queue = self._queues[name]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._queues[name]

    def __len__(self) -> int:
        """Names that are taken."""
        return len(self._queues)
