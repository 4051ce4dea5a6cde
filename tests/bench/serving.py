"""What the two servers that exist only here have in common: uvloop, a settled memory, and a clean end at SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import uvloop

from clearinghouse.process import settle_memory

Serving = Callable[[], AbstractAsyncContextManager[int]]


def serve_until_stopped(serving: Serving) -> None:
    """Says `listening on PORT`, then serves until SIGTERM."""

    async def main() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with serving() as port:
            settle_memory()  # as the service does, so that the comparison is fair
            print(f"listening on {port}", file=sys.stderr, flush=True)
            await stop.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
