"""`python -m tests.bench.month_end`: a month's end from the books to Stripe. Gateways with 100 calls each are closed,
and each gets an invoice, at the rate that Stripe takes changes; it answers as late as one that is far away. Meanwhile
some sign: in turns alone and beside the run, so that both are measured under the same load of the machine.

    python -m tests.bench.month_end --gateways 10000

What is counted of the rate is counted at Stripe's end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.config_invoices import InvoiceSettings
from clearinghouse.config_stripe import StripeSettings
from clearinghouse.database.connect import ADMIN_ROLE, WORK_ROLE, async_engine, in_role
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from clearinghouse.ledger.verify import verify
from settlement.closing.close import close_due
from settlement.customers.stripe_copy import ensure_customer
from settlement.invoices.defaults import InvoiceDefaults
from settlement.invoices.requests import shown_id
from settlement.invoices.run import plan_due, waiting_invoices, walk_all
from settlement.invoices.store import Choice, Invoice
from settlement.invoices.walk import Walker
from settlement.runs import tick_engine
from settlement.schedule import Tick
from settlement.stripe_link.client import stripe_link
from settlement.stripe_link.desk import POOL_SIZE, POOL_WAIT_S, Desk
from tests.bench.closing import BATCH_ROWS, NEXT_MONTH, SIGNERS, SLOWER_MAX, Watch, filled, p99
from tests.bench.failure import BenchFailed
from tests.bench.processes import Server
from tests.parts.stripe import stripe_settings

GATEWAYS: Final = 300
CALLS_EACH: Final = 100
#: What Stripe takes in test mode.
LIMIT_PER_S: Final = StripeSettings().writes_per_s
LATENCY_MS: Final = 300
WINDOW_S: Final = 15
PAIRS: Final = 20
RATE_SHARE_MIN: Final = 0.92
MONTH_END_GATEWAYS: Final = 10_000
_CUSTOMERS_AT_ONCE: Final = 64
#: They began long ago, which nobody may say afterwards.
TERMS: Final = """
    SET session_replication_role = replica;
    INSERT INTO billing_terms (gateway_id, begins_at, way, credit_limit)
        SELECT id, created_at, 'postpaid', 1e9 FROM gateway WHERE name <> 'elder';
    RESET session_replication_role;
    INSERT INTO customer (gateway_id, name, email, collection)
        SELECT id, name, 'billing@gateway.example', 'send_invoice' FROM gateway WHERE name <> 'elder'
"""


class Window(NamedTuple):
    """By the monotonic clock, in seconds."""

    begin_s: float
    end_s: float


@dataclass
class Run:
    """`pairs` are times in which the run rested, and right after it had enough to do to the end."""

    pairs: list[tuple[Window, Window]] = field(default_factory=list)
    invoices_count: int = 0
    walked_s: float = 0


@dataclass(frozen=True)
class Arrivals:
    """When changes were asked of Stripe, oldest first."""

    moments_s: list[float]

    def per_s(self, windows: Sequence[Window]) -> float:
        count = sum(bisect_left(self.moments_s, end) - bisect_left(self.moments_s, begin) for begin, end in windows)
        return count / sum(end - begin for begin, end in windows)

    def most_in_a_second(self) -> int:
        """Of any second, whenever it begins."""
        return max(bisect_left(self.moments_s, at + 1) - number for number, at in enumerate(self.moments_s))


@dataclass(frozen=True)
class Signed:
    """When batches were committed, and how many milliseconds each took."""

    batches: list[tuple[float, float]]

    def within(self, *windows: Window) -> list[float]:
        return [took_ms for at_s, took_ms in self.batches for begin, end in windows if begin <= at_s < end]


@asynccontextmanager
async def desk_at(settings: StripeSettings, engine: AsyncEngine) -> AsyncIterator[Desk]:
    async with stripe_link(settings) as link:
        yield Desk(link, engine)


async def customers_made(base_url: str, engine: AsyncEngine, gateways: Sequence[UUID]) -> None:
    """They were Stripe's customers before the month ended."""
    waiting = list(gateways)
    async with desk_at(stripe_settings(base_url), engine) as desk, asyncio.TaskGroup() as group:

        async def some() -> None:
            while waiting:
                await ensure_customer(desk, waiting.pop())

        for _ in range(_CUSTOMERS_AT_ONCE):
            group.create_task(some())


async def closed(conninfo: str) -> None:
    worker = tick_engine(conninfo)
    try:
        began_s = time.perf_counter()
        said = await close_due(Tick(worker, NEXT_MONTH), Watch())
    finally:
        await worker.dispose()
    print(f"{said} in {time.perf_counter() - began_s:.1f} s")


async def planned(engine: AsyncEngine, count: int) -> None:
    began_s = time.perf_counter()
    made = await plan_due(engine, Choice(), defaults=InvoiceDefaults())
    if made.problems or made.count("planned") != count:
        raise BenchFailed(f"{made.count('planned')} of {count} are planned: {made.problems[:3]}")
    print(f"{count} invoices planned in {time.perf_counter() - began_s:.1f} s", flush=True)


async def run_in_turns(walker: Walker, in_flight_count: int, total: int) -> Run:
    """Until every invoice is out. At first in pairs: some seconds of signing alone, and as many beside the run."""
    run = Run()

    def told(invoice: Invoice) -> None:
        if invoice.state != "open":
            raise BenchFailed(f"{shown_id(invoice)} is {invoice.state}: {invoice.problem}")
        run.invoices_count += 1

    while waiting := await waiting_invoices(walker.desk.engine, Choice(), await walker.desk.now(), not_since=None):
        rests_s = time.monotonic()
        is_compared = len(run.pairs) < PAIRS
        if is_compared:
            await asyncio.sleep(WINDOW_S)
        began_s = time.monotonic()
        walked = await walk_all(walker, waiting, in_flight_count=in_flight_count, within_s=WINDOW_S, told=told)
        ended_s = time.monotonic()
        if walked.left_count and is_compared:
            run.pairs.append((Window(rests_s, began_s), Window(began_s, began_s + WINDOW_S)))
        run.walked_s += ended_s - began_s
        left_s = run.walked_s / max(run.invoices_count, 1) * (total - run.invoices_count)
        print(f"  {run.invoices_count} of {total} invoices are out, {left_s:.0f} s of the run are left", flush=True)
    return run


async def violations(conninfo: str) -> dict[str, int]:
    """By claim of the ledger."""
    engine = async_engine(in_role(conninfo, ADMIN_ROLE), pool_size=1)
    try:
        return {verdict.claim: verdict.violations for verdict in (await verify(engine)).verdicts}
    finally:
        await engine.dispose()


async def require_all_out(conninfo: str, count: int, before: dict[str, int]) -> None:
    """BenchFailed unless each has one invoice that is open, and the books are as much in order as they were `before`:
    calls that no service has recorded are not counted in some places."""
    after = await violations(conninfo)
    if wrong := {claim: found for claim, found in after.items() if found > before[claim]}:
        raise BenchFailed(f"the ledger does not verify any more: {wrong}")
    with psycopg.connect(conninfo) as connection:
        query = "SELECT count(*), count(DISTINCT (gateway_id, stripe_invoice_id)) FROM invoice WHERE state = 'open'"
        found = connection.execute(query).fetchone()
    if found != (count, count):
        raise BenchFailed(f"of {count} gateways, invoices are open: {found}")


async def measured(conninfo: str, base_url: str, gateways: int) -> Run:
    engine = async_engine(in_role(conninfo, WORK_ROLE), pool_size=POOL_SIZE, pool_wait_s=POOL_WAIT_S)
    try:
        with psycopg.connect(conninfo) as connection:
            ids = [row[0] for row in connection.execute("SELECT gateway_id FROM customer")]
        before = await violations(conninfo)
        await customers_made(base_url, engine, ids)
        await closed(conninfo)
        await planned(engine, gateways)
        async with desk_at(stripe_settings(base_url, writes_per_s=LIMIT_PER_S), engine) as desk:
            run = await run_in_turns(Walker(desk, ensure_customer), InvoiceSettings().in_flight_count, gateways)
        await require_all_out(conninfo, gateways, before)
    finally:
        await engine.dispose()
    if not run.pairs:
        raise BenchFailed(f"the run takes less than {WINDOW_S} s: more --gateways are needed")
    return run


def judged(run: Run, arrivals: Arrivals, signed: Signed) -> bool:
    """Prints, and says whether everything was reached."""
    quiet, busy = [pair[0] for pair in run.pairs], [pair[1] for pair in run.pairs]
    per_s, most = arrivals.per_s(busy), arrivals.most_in_a_second()
    writes_each = len(arrivals.moments_s) / run.invoices_count
    alone_ms, beside_ms = signed.within(*quiet), signed.within(*busy)
    slower = median(p99(signed.within(run_s)) / p99(signed.within(rest_s)) for rest_s, run_s in run.pairs)
    print(
        f"\n{run.invoices_count} invoices in {run.walked_s:.0f} s of running, {writes_each:.1f} changes each; "
        f"{MONTH_END_GATEWAYS:,} would take {MONTH_END_GATEWAYS * writes_each / per_s / 60:.0f} minutes"
    )
    for name, took_ms in (("alone", alone_ms), ("beside the run", beside_ms)):
        print(
            f"commits {name}: {median(took_ms):.1f} ms, p99 {p99(took_ms):.1f} ({len(took_ms)} of {BATCH_ROWS} calls)"
        )
    targets = [
        (f"{per_s:.2f} changes a second of {LIMIT_PER_S}", per_s >= RATE_SHARE_MIN * LIMIT_PER_S),
        (f"at most {most} of {LIMIT_PER_S} in any second", most <= LIMIT_PER_S),
        (f"commits beside it take {slower:.2f} times as long of {SLOWER_MAX}, p99, median of {len(run.pairs)} pairs",
         slower <= SLOWER_MAX),
    ]  # fmt: skip
    for sentence, is_reached in targets:
        print(f"  {sentence}: {'reached' if is_reached else 'MISSED'}")
    print(f"Load average: {os.getloadavg()[0]:.2f}")
    return all(is_reached for _, is_reached in targets)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--gateways", type=int, default=GATEWAYS)
    arguments.add_argument("--latency-ms", type=int, default=LATENCY_MS, help="of each of Stripe's answers")
    options = arguments.parse_args()
    if options.gateways < SIGNERS:
        arguments.error(f"--gateways must be at least {SIGNERS}: so many sign")
    with tempfile.TemporaryDirectory(prefix="bench-") as name, EmbeddedPostgres(Path(name) / "data") as database:
        folder = Path(name)
        migrate(database.conninfo)
        with psycopg.connect(database.conninfo, autocommit=True) as connection:
            filled(connection, gateways=options.gateways, issuances=options.gateways * CALLS_EACH, money=TERMS)
        asked, times = folder / "arrivals", folder / "times"
        stripe = ["-m", "tests.bench.counted_stripe", str(asked), str(options.latency_ms)]
        signer = ["-m", "tests.bench.signing_beside", database.conninfo, str(times)]
        with Server("stripe", stripe, folder=folder) as server, Server("signer", signer, folder=folder):
            base_url = server.wait_for(r"listening on (http://\S+)")[1]
            run = asyncio.run(measured(database.conninfo, base_url, options.gateways))
        began_s = run.pairs[0][1].begin_s
        arrivals = Arrivals([at for line in asked.read_text().split() if (at := float(line)) >= began_s])
        batches = [line.split() for line in times.read_text().splitlines()]
    return 0 if judged(run, arrivals, Signed([(float(at), float(took)) for at, took in batches])) else 1


if __name__ == "__main__":
    sys.exit(main())
