"""The local Stripe's clock: the machine's, until somebody moves it. It runs on from where it was put."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Seconds since 1970, as Stripe stamps its objects."""

    def __init__(self, machine: Callable[[], float] = time.time) -> None:
        self._machine = machine
        self.offset_s = 0

    def now_s(self) -> int:
        """The time by which everything is judged."""
        return int(self._machine()) + self.offset_s

    def advance(self, by_s: int) -> None:
        """Moves it forward. Raises ValueError for a step back, which Stripe's time never takes."""
        if by_s < 0:
            raise ValueError(f"the clock cannot go back by {-by_s} s")
        self.offset_s += by_s
