"""How many requests an endpoint is sent: no more in a second than its operator's plan allows, and none while it asks
for patience. Everything in a process that asks one endpoint shares its budget.

A budget fills evenly and holds a second's worth. Whoever comes when it is empty waits in line, as long as its time-out
allows; the quorum asks an endpoint first whose budget is not empty.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class BudgetSpent(Exception):
    """There is no turn within the time that was given; nothing was sent."""


class RequestBudget:
    """`per_s` requests a second. `waited_s` hears how long each request that had to wait did so."""

    def __init__(self, per_s: float, *, waited_s: Callable[[float], None] = lambda _: None) -> None:
        assert per_s > 0
        self._interval_s = 1 / per_s
        self._held_s = max(1 - self._interval_s, 0)
        self._waited_s = waited_s
        #: When the budget would be full again but for what it holds: it runs ahead of the clock as requests are made.
        self._full_at_s: float = 0
        self._patient_until_s: float = 0

    def wait_s(self) -> float:
        """How long a request would wait now; 0 where it would not."""
        now_s = time.monotonic()
        return max(self._full_at_s - self._held_s - now_s, self._patient_until_s - now_s, 0)

    def be_patient(self, seconds: float) -> None:
        """The endpoint's own word: nothing is sent to it for so long."""
        self._patient_until_s = max(self._patient_until_s, time.monotonic() + seconds)

    async def take(self, *, timeout_s: float) -> None:
        """Returns when a request may be sent. Raises BudgetSpent, at once, where that is more than `timeout_s` away."""
        wait_s = self.wait_s()
        if wait_s > timeout_s:
            raise BudgetSpent
        self._full_at_s = max(self._full_at_s, time.monotonic()) + self._interval_s
        if wait_s <= 0:
            return
        self._waited_s(wait_s)
        await asyncio.sleep(wait_s)
        if self._patient_until_s > time.monotonic():  # it has asked for patience meanwhile
            raise BudgetSpent
