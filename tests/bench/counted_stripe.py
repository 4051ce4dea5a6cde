"""A local Stripe that answers as late as one that is far away, and notes down when each change was asked of it.

    python -m tests.bench.counted_stripe ARRIVALS_FILE LATENCY_MS

A line in the file is a moment by the machine's monotonic clock, in seconds, the same in every process.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from pathlib import Path

from clearinghouse.process import run
from settlement.stripe_local.faults import Fault
from settlement.stripe_local.frame import Answer, LocalStripe, Request
from settlement.stripe_local.handlers import HANDLERS
from settlement.stripe_local.server import stripe_served
from settlement.stripe_local.store import Store


class CountedStripe(LocalStripe):
    def __init__(self, arrivals: Path) -> None:
        super().__init__(HANDLERS, store=Store(None))
        self._arrivals = os.open(arrivals, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def answer(self, request: Request) -> Answer:
        if request.method != "GET":
            os.write(self._arrivals, f"{time.monotonic():.6f}\n".encode())
        return await super().answer(request)


async def serve(arrivals: Path, latency_ms: int, stop: asyncio.Event) -> None:
    stripe = CountedStripe(arrivals)
    if latency_ms:
        stripe.faults.add(Fault("latency", times=None, delay_ms=latency_ms))
    async with stripe_served(stripe) as base_url:
        # Stripe's description is millions of objects: to look through them takes a tenth of a second, in which changes
        # that were asked for one by one would arrive at once.
        gc.collect()
        gc.freeze()
        print(f"listening on {base_url}", file=sys.stderr, flush=True)
        await stop.wait()


if __name__ == "__main__":
    _, file, milliseconds = sys.argv
    run(lambda stop: serve(Path(file), int(milliseconds), stop))
