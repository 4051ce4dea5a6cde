"""A worker's turn of top-ups as a process of its own, which kills itself, as `kill -9` does, at a point of the way.

    python -m tests.parts.topup_process SETTINGS.json CONNINFO NOW POINT [SIGSTOP]

The settings come from a file: keys and passwords are never arguments. Without a POINT it ends by itself. With SIGSTOP
it only stops there, and goes on as if nothing had been when it is told to.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import datetime
from pathlib import Path

from clearinghouse.config import Settings
from settlement.runs import tick_engine
from settlement.schedule import Tick
from settlement.topups.automatic import AutomaticTopups
from settlement.topups.flow import Point


class Signalled:
    """Gets the signal when the point is reached: nothing is closed, said or undone."""

    def __init__(self, at: str, by: signal.Signals) -> None:
        self._at, self._by = at, by

    def reached(self, point: Point) -> None:
        if point.value == self._at:
            os.kill(os.getpid(), self._by)


async def turn(settings: Settings, conninfo: str, now: datetime, observer: Signalled) -> None:
    engine = tick_engine(conninfo)
    try:
        print(await AutomaticTopups(settings, observer=observer).turn(Tick(engine, now)))
    finally:
        await engine.dispose()


if __name__ == "__main__":
    _, file, conninfo, now, point, *further = sys.argv
    by = signal.Signals[further[0]] if further else signal.SIGKILL
    settings = Settings.model_validate(json.loads(Path(file).read_text(encoding="utf-8")))
    asyncio.run(turn(settings, conninfo, datetime.fromisoformat(now), Signalled(point, by)))
