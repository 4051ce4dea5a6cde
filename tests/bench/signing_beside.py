"""Signs at a steady pace in a process of its own, as the service does, until it is told to end.

    python -m tests.bench.signing_beside CONNINFO TIMES_FILE

A line in the file is a batch: when it was committed by the monotonic clock, in seconds, and what it took, in ms.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

from clearinghouse.process import run
from tests.bench.closing import sign_at_a_pace


async def sign(conninfo: str, times: Path, stop: asyncio.Event) -> None:
    file = os.open(times, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ended = threading.Event()

    def took(milliseconds: float) -> None:
        os.write(file, f"{time.monotonic():.6f} {milliseconds:.3f}\n".encode())

    signing = asyncio.create_task(asyncio.to_thread(sign_at_a_pace, conninfo, ended, took))
    print("signing", file=sys.stderr, flush=True)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((signing, stopped), return_when=asyncio.FIRST_COMPLETED)
    ended.set()
    stopped.cancel()
    await signing


if __name__ == "__main__":
    _, conninfo, file = sys.argv
    run(lambda stop: sign(conninfo, Path(file), stop))
