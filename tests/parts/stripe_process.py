"""A processor of Stripe's events, with a handler of a test, here or as a process of its own that can be killed.

    python -m tests.parts.stripe_process CONNINFO BASE_URL TAKES_S

The handler follows customers: their metadata `step`, which only grows. It notes when it begins and when it ends; in
between it asks Stripe, and takes its time.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import text

from clearinghouse.config import LogSettings
from clearinghouse.log import configure_logging
from clearinghouse.process import run
from settlement.stripe_link.desk import Desk, Handler
from settlement.stripe_link.inbox import Pace
from settlement.stripe_link.inbox_metrics import InboxMetrics
from settlement.stripe_link.processor import Processor
from tests.parts.stripe import stripe_settings

FOLLOWED = """
    CREATE TABLE followed (customer text PRIMARY KEY, step integer NOT NULL);
    CREATE TABLE handled (customer text NOT NULL, begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
                          ended_at timestamptz, id bigint GENERATED ALWAYS AS IDENTITY);
    GRANT SELECT, INSERT, UPDATE ON followed, handled TO clearinghouse_work;
"""
#: Quick enough for a test; the order of the times is the same.
PACE = Pace(
    lease=timedelta(seconds=3),
    handler_timeout_s=2,
    first_pause=timedelta(seconds=0.2),
    longest_pause=timedelta(seconds=0.4),
    longest_away=timedelta(seconds=0.3),
    failures_max=3,
)


def following(takes_s: float = 0) -> Handler:
    """Our row of a customer, brought up to Stripe's."""

    async def handler(desk: Desk, customer_id: str) -> str:
        async with desk.transaction() as connection:
            begin = text("INSERT INTO handled (customer) VALUES (:id) RETURNING id")
            handled = (await connection.execute(begin, {"id": customer_id})).scalar_one()
        customer = await desk.link.call(desk.link.client.v1.customers.retrieve_async, customer_id)
        assert customer.metadata is not None
        step = int(customer.metadata["step"])
        await asyncio.sleep(takes_s)
        async with desk.transaction() as connection:
            forward = """INSERT INTO followed VALUES (:id, :step)
                         ON CONFLICT (customer) DO UPDATE SET step = greatest(followed.step, excluded.step)"""
            await connection.execute(text(forward), {"id": customer_id, "step": step})
            end = text("UPDATE handled SET ended_at = clock_timestamp() WHERE id = :id")
            await connection.execute(end, {"id": handled})
        return f"step {step}"

    return handler


def processor(
    conninfo: str, base_url: str, handlers: Mapping[str, Handler], registry: CollectorRegistry | None = None, **how: Any
) -> Processor:
    metrics = InboxMetrics(registry or CollectorRegistry())
    given = {"shutdown_timeout_s": 5, "pace": PACE, **how}
    return Processor(conninfo, stripe_settings(base_url, retry_for_s=0.2), handlers, metrics=metrics, **given)


@asynccontextmanager
async def processing(
    conninfo: str, base_url: str, handlers: Mapping[str, Handler], *, count: int = 1, **how: Any
) -> AsyncIterator[CollectorRegistry]:
    """So many processors, told to stop at the end of the block. The metrics are those of the first."""
    stop, registry = asyncio.Event(), CollectorRegistry()
    tasks = [
        asyncio.create_task(processor(conninfo, base_url, handlers, registry if not n else None, **how).run(stop))
        for n in range(count)
    ]
    try:
        yield registry
    finally:
        stop.set()
        await asyncio.gather(*tasks)


@contextmanager
def processing_elsewhere(
    conninfo: str, base_url: str, log: Path, *, takes_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """One in a process of its own, which is killed at the end of the block."""
    command = [sys.executable, "-m", "tests.parts.stripe_process", conninfo, base_url, str(takes_s)]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def main(conninfo: str, base_url: str, takes_s: str) -> None:
    configure_logging(LogSettings())
    run(processor(conninfo, base_url, {"customer": following(float(takes_s))}, pace=PACE._replace(
        handler_timeout_s=60)).run)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
