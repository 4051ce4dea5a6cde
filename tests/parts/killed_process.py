"""Workers at the money that are killed: each is a process of its own, forked from one that has imported everything.

    python -m tests.parts.killed_process        tests/parts/killed.py talks to it

A line of JSON on standard input begins a worker ("begin": what it does, at which step it kills itself), another one
waits for its end ("wait": its pid). A worker writes the name of every step that it comes to into a file, so that one
who was killed has told where.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.config import LogSettings
from clearinghouse.config_payments import PaymentSettings
from clearinghouse.database.connect import WORK_ROLE, async_engine, in_role
from clearinghouse.log import configure_logging
from settlement.customers.stripe_copy import ensure_customer
from settlement.invoices.defaults import InvoiceDefaults
from settlement.invoices.run import plan_due, waiting_invoices, walk_all
from settlement.invoices.store import Choice
from settlement.invoices.walk import Walker
from settlement.payments.asking import Asking
from settlement.payments.clerk import Clerk, take_on
from settlement.stripe_link.client import stripe_link
from settlement.stripe_link.desk import POOL_WAIT_S, Desk
from settlement.stripe_link.handlers import HANDLERS, SWEEPABLES
from settlement.stripe_link.inbox_metrics import InboxMetrics
from settlement.stripe_link.processor import Processor
from tests.parts.crashing import CrashingLink, Fuse
from tests.parts.paying import RETURN_URL
from tests.parts.stripe import stripe_settings
from tests.parts.stripe_process import PACE

PAYMENTS = PaymentSettings(return_url=RETURN_URL)
_OBJECTS_MAX_COUNT = 1000
_PAGES = """
    SELECT stripe_session_id FROM payment
     WHERE state = 'open' AND method = 'checkout' AND (CAST(:of AS uuid) IS NULL OR gateway_id = :of)
"""


class DeadlyFuse(Fuse):
    """Kills its process, as `kill -9` does: nothing is closed, said or undone."""

    def __init__(self, at: int | None, steps_file: Path) -> None:
        super().__init__(at or sys.maxsize)
        self._steps = os.open(steps_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def step(self, name: str) -> None:
        os.write(self._steps, f"{name}\n".encode())
        super().step(name)

    def blow(self, name: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def commits_are_steps(engine: AsyncEngine, fuse: Fuse) -> None:
    """Of whoever uses the engine, be it a claim, a plan, or a posting."""
    dialect = engine.sync_engine.dialect
    commit = dialect.do_commit

    def step_by_step(connection: Any) -> None:
        fuse.step("before a commit")
        commit(connection)
        fuse.step("after a commit")

    dialect.do_commit = step_by_step  # type: ignore[method-assign]


async def invoices(desk: Desk, base_url: str, gateway_id: UUID | None) -> None:
    """What `clearinghouse invoices run` does."""
    choice = Choice(gateway_id=gateway_id)
    planned = await plan_due(desk.engine, choice, defaults=InvoiceDefaults())
    assert planned.problems == []
    waiting = await waiting_invoices(desk.engine, choice, await desk.now(), not_since=None)
    walked = await walk_all(Walker(desk, ensure_customer), waiting, in_flight_count=1)
    assert (walked.held, walked.away) == ([], None)


async def payments(desk: Desk, base_url: str, gateway_id: UUID | None) -> None:
    """What the clerk does; the gateway's people pay at the pages, and what Stripe has by then is looked at."""
    asking = Asking(desk, ensure_customer, PAYMENTS)
    while attempts := await take_on(asking):
        await asyncio.gather(*attempts)
    async with desk.engine.connect() as connection:
        pages = list((await connection.execute(text(_PAGES), {"of": gateway_id})).scalars())
    async with httpx.AsyncClient(trust_env=False, timeout=60) as people:
        for page in pages:
            await people.post(f"{base_url}/_control/checkout/{page}/pay", json={"card": "pm_card_visa"})
            await HANDLERS["checkout.session"](desk, page)


async def sweep(desk: Desk, base_url: str, gateway_id: UUID | None) -> None:
    """What is not final, held against Stripe."""
    for kind, sweepable in SWEEPABLES.items():
        async with desk.engine.connect() as connection:
            ids = await sweepable(connection, "", _OBJECTS_MAX_COUNT)
        for object_id in ids:
            await HANDLERS[kind](desk, object_id)


async def everything(conninfo: str, base_url: str, writes_per_s: int) -> None:
    """What `clearinghouse work` does about Stripe, all at once and without pauses, until somebody ends it."""
    settings, stop = stripe_settings(base_url, writes_per_s=writes_per_s), asyncio.Event()
    clerk = Clerk(conninfo, settings, PAYMENTS, ensure_customer, shutdown_timeout_s=5)
    metrics = InboxMetrics(CollectorRegistry())
    processor = Processor(conninfo, settings, HANDLERS, metrics=metrics, shutdown_timeout_s=5, pace=PACE)

    async def runs(desk: Desk) -> None:
        while True:
            await plan_due(desk.engine, Choice(), defaults=InvoiceDefaults())
            waiting = await waiting_invoices(desk.engine, Choice(), await desk.now(), not_since=None)
            await walk_all(Walker(desk, ensure_customer, lease=timedelta(seconds=3)), waiting, in_flight_count=3)
            await asyncio.sleep(0.1)

    engine = async_engine(in_role(conninfo, WORK_ROLE), pool_size=4, pool_wait_s=POOL_WAIT_S)
    async with stripe_link(settings) as link, asyncio.TaskGroup() as group:
        for work in (clerk.run(stop), processor.run(stop), runs(Desk(link, engine))):
            group.create_task(work)


_DO: Mapping[str, Callable[[Desk, str, UUID | None], Awaitable[None]]] = {
    "invoices": invoices,
    "payments": payments,
    "sweep": sweep,
}


async def done(wanted: Mapping[str, Any]) -> None:
    conninfo, base_url = wanted["conninfo"], wanted["base_url"]
    if wanted["what"] == ["everything"]:
        await everything(conninfo, base_url, wanted["writes_per_s"])
    fuse = DeadlyFuse(wanted["dies_at"], Path(wanted["steps_file"]))
    engine = async_engine(in_role(conninfo, WORK_ROLE), pool_size=8)
    commits_are_steps(engine, fuse)
    gateway_id = UUID(wanted["gateway"]) if wanted["gateway"] is not None else None
    async with stripe_link(stripe_settings(base_url)) as link:
        for what in wanted["what"]:
            await _DO[what](Desk(CrashingLink(link, fuse), engine), base_url, gateway_id)
    await engine.dispose()


def worker(wanted: Mapping[str, Any]) -> None:
    """Never returns to what it was forked from."""
    code = 1
    try:
        asyncio.run(done(wanted))
        code = 0
    except BaseException:  # noqa: BLE001 (whatever it is, what it was forked from must not see it)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    configure_logging(LogSettings())
    living = set[int]()
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            if "wait" in asked:
                _, status = os.waitpid(asked["wait"], 0)
                living.discard(asked["wait"])
                answer = os.waitstatus_to_exitcode(status)
            else:
                answer = os.fork() or worker(asked["begin"])
                living.add(answer)
            print(json.dumps(answer), flush=True)
    finally:
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
