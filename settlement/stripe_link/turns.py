"""Turns, so many a second at most: Stripe counts what it is asked to change."""

from __future__ import annotations

import asyncio
from typing import Final

#: Turns are so much further apart than they would have to be: on their way to Stripe some take longer than others, by
#: some 50 ms even to a server on the same machine.
_MARGIN: Final = 0.075
#: A turn that was taken late is made up for, so far: else a busy machine would never reach the rate. Less than what the
#: margin leaves in a second.
_MADE_UP_S: Final = 0.02


class Turns:
    """Evenly spaced, first come, first served. No burst: a second of Stripe's may begin at any moment of ours."""

    def __init__(self, per_s: int) -> None:
        self._gap_s = gap_s(per_s)
        self._next_at_s = 0.0  # by the loop's clock
        self._queue = asyncio.Lock()

    async def take(self) -> None:
        """Returns when it is one's turn."""
        clock = asyncio.get_running_loop().time
        async with self._queue:
            while (wait_s := self._next_at_s - clock()) > 0:  # noqa: ASYNC110 (until a time, which a pause may move)
                await asyncio.sleep(wait_s)
            self._next_at_s = next_at_s(self._next_at_s, clock(), self._gap_s)

    def pause(self, seconds: float) -> None:
        """Nobody's turn comes for so long."""
        self._next_at_s = max(self._next_at_s, asyncio.get_running_loop().time() + seconds)


def gap_s(per_s: int) -> float:
    """Between two turns, in the mean."""
    return (1 + _MARGIN) / per_s


def next_at_s(due_at_s: float, taken_at_s: float, gap_s: float) -> float:
    """When the next turn comes, after one that was due and was taken, not earlier, at these times.

    However late turns are taken: `per_s` turns further on, more than a second has passed.
    """
    return max(due_at_s, taken_at_s - _MADE_UP_S) + gap_s
