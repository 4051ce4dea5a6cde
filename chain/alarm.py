"""Many deadlines, one timer.

To arm and disarm a timer of the event loop for each of them costs more than all else about it, and nearly none is ever
reached. Here one timer waits for the earliest deadline that was known when it was armed; when it wakes, it calls those
that are due and waits for the earliest of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final


class Alarm:
    """Calls what was not taken back in time. Belongs to one event loop.

    alarm.set(at_s, late)      # late() once the loop's clock has reached at_s
    alarm.unset(late)
    """

    def __init__(self) -> None:
        self._late: Final[dict[Callable[[], None], float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at_s = inf

    def set(self, at_s: float, late: Callable[[], None]) -> None:
        """One deadline for each callable: the last one that was set."""
        self._late[late] = at_s
        if at_s < self._wakes_at_s:
            self._arm(at_s)

    def unset(self, late: Callable[[], None]) -> None:
        """The timer stays: it will find nothing, or what was set meanwhile."""
        self._late.pop(late, None)

    def close(self) -> None:
        """Nothing is called any more."""
        self._late.clear()
        self._disarm()

    def _arm(self, at_s: float) -> None:
        self._disarm()
        self._timer = asyncio.get_running_loop().call_at(at_s, self._wake)
        self._wakes_at_s = at_s

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._wakes_at_s = None, inf

    def _wake(self) -> None:
        self._disarm()
        now_s = asyncio.get_running_loop().time()
        due = [late for late, at_s in self._late.items() if at_s <= now_s]
        try:
            for late in due:
                if self._late.pop(late, None) is not None:  # otherwise one before it took it back
                    late()
        finally:
            if self._late and (next_s := min(self._late.values())) < self._wakes_at_s:
                self._arm(next_s)
