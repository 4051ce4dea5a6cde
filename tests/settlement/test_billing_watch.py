"""What Prometheus is told of payments and invoices: what is in the database, by queries that stay cheap."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from clearinghouse.config_dunning import DunningSettings
from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.dunning_steps import policy_of
from clearinghouse.identity import gateways
from clearinghouse.ids import uuid7
from settlement.billing_watch.figures import FIGURES, STAGES, Figure, bound, read
from settlement.billing_watch.metrics import BillingMetrics
from settlement.billing_watch.watch import BillingWatch, watch_engine
from settlement.customers.holds import Hold
from settlement.dunning.open_invoices import open_invoices
from settlement.dunning.stages import hold_for
from tests.settlement.conftest import Owner

DUNNING = DunningSettings()
#: Of the four stages, in days after an invoice was due.
DUE_DAYS = (-3, 2, 14, 30)
DAY_ONE = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def worker(database: str) -> AsyncIterator[AsyncEngine]:
    """With time for a machine that stands still."""
    engine = watch_engine(database, query_timeout="60s")
    yield engine
    await engine.dispose()


@pytest.fixture
async def acme(database: str) -> UUID:
    engine = async_engine(in_role(database, ADMIN_ROLE), pool_size=1)
    async with engine.begin() as connection:
        made = await gateways.create(connection, "acme", currency="USD")
    await engine.dispose()
    return made.id


def pays(
    owner: Owner, gateway: UUID, method: str, state: str, *, ago: str, reference: str | None = None
) -> None:  # fmt: skip
    owner.execute(
        """INSERT INTO payment (id, gateway_id, method, state, amount, currency, reference, requested_by, created_at,
                                ended_at)
           VALUES (%s, %s, %s, %s, 5, 'USD', %s, 'test', now() - %s::interval,
                   CASE WHEN %s IN ('requested', 'open') THEN NULL ELSE now() - %s::interval END)""",
        [uuid7(), gateway, method, state, reference, ago, state, ago],
    )


def goes_back(owner: Owner, gateway: UUID, state: str, *, ago: str) -> None:
    owner.execute(
        """INSERT INTO refund (id, gateway_id, state, amount, currency, reason, requested_by, created_at, ended_at)
           VALUES (%s, %s, %s, 5, 'USD', 'test', 'test', now() - %s::interval,
                   CASE WHEN %s IN ('requested', 'pending') THEN NULL ELSE now() - %s::interval END)""",
        [uuid7(), gateway, state, ago, state, ago],
    )


INVOICE = """
    INSERT INTO invoice (id, gateway_id, kind, begins_at, ends_at, first_day, next_day, currency, decimals, exact,
                         total_minor, state, state_at, problem, problem_at, stripe_customer_id, stripe_invoice_id,
                         remaining_minor, finalized_at, due_at, ended_at)
    VALUES (%(id)s, %(gateway)s, 'usage', %(begins)s, %(begins)s + interval '1 day', '2026-01-01', '2026-01-02', 'USD',
            2, 12.34, 1234, %(state)s, now() - interval '1 hour', %(problem)s,
            CASE WHEN %(problem)s::text IS NOT NULL THEN now() END, 'cus_1', %(stripe)s, 1234, now(),
            now() - %(due_days)s * interval '24 hours', CASE WHEN %(state)s = 'void' THEN now() END)
"""


def asks(
    owner: Owner, gateway: UUID, number: int, state: str, *, due_days: int = 0, problem: str | None = None
) -> None:  # fmt: skip
    """An invoice of a period of its own, in its state for an hour."""
    values = {"id": uuid7(), "gateway": gateway, "begins": DAY_ONE + timedelta(days=number), "stripe": f"in_{number}"}
    owner.execute(INVOICE, values | {"state": state, "problem": problem, "due_days": due_days})


async def seen(database: str, worker: AsyncEngine) -> CollectorRegistry:
    registry = CollectorRegistry()
    await BillingWatch(database, DUNNING, BillingMetrics(registry), every_s=300).look(worker)
    return registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"clearinghouse_{name}", labels)


async def test_payments_are_told_by_kind_and_outcome_and_how_long_the_oldest_waits(
    database: str, worker: AsyncEngine, owner: Owner, acme: UUID
) -> None:
    for method, state, ago in (
        ("checkout", "succeeded", "1 hour"), ("checkout", "succeeded", "2 days"), ("automatic", "failed", "23 hours"),
        ("checkout", "open", "3 days"), ("card", "requested", "20 minutes"), ("checkout", "requested", "1 minute"),
    ):  # fmt: skip
        pays(owner, acme, method, state, ago=ago)
    pays(owner, acme, "wire", "requested", ago="2 days", reference="DE1")
    goes_back(owner, acme, "requested", ago="30 minutes")
    goes_back(owner, acme, "pending", ago="2 days")
    goes_back(owner, acme, "succeeded", ago="1 hour")
    told = await seen(database, worker)
    assert value(told, "payments_ended_day", method="checkout", outcome="succeeded") == 1
    assert value(told, "payments_ended_day", method="automatic", outcome="failed") == 1
    assert value(told, "payments_ended_day", method="wire", outcome="canceled") == 0
    assert value(told, "payments_open", method="checkout") == 1
    assert [value(told, "payments_waiting", kind=kind) for kind in ("payment", "refund", "receipt")] == [2, 1, 1]
    oldest_s = [value(told, "payments_oldest_seconds", kind=kind) for kind in ("payment", "refund", "receipt")]
    assert oldest_s == pytest.approx([1200, 1800, 172_800], abs=300)
    assert [value(told, "refunds_under_way", state=state) for state in ("requested", "pending")] == [1, 1]
    assert value(told, "refunds_ended_day", outcome="succeeded") == 1


async def test_disputes_and_holds_are_told_by_how_they_stand(
    database: str, worker: AsyncEngine, owner: Owner, acme: UUID
) -> None:
    for number, (status, ends) in enumerate((("needs_response", None), ("brand_new", None), ("lost", "now"))):
        owner.execute(
            """INSERT INTO dispute (id, gateway_id, stripe_charge_id, amount, currency, status, reason, ended_at)
               VALUES (%s, %s, 'ch_1', 5, 'USD', %s, 'fraudulent', %s::timestamptz)""",
            [f"dp_{number}", acme, status, ends],
        )
    owner.execute("SELECT set_billing_hold(%s, 'signing', 'a dispute', 'dispute')", [acme])
    told = await seen(database, worker)
    shown = {
        status: value(told, "disputes_open", status=status) for status in ("needs_response", "under_review", "other")
    }
    assert shown == {"needs_response": 1, "under_review": 0, "other": 1}
    assert value(told, "billing_holds", source="dispute", hold="signing") == 1
    assert value(told, "billing_holds", source="dunning", hold="signing") == 0


async def test_invoices_are_told_by_state_with_what_is_due_and_how_far_dunning_has_come(
    database: str, worker: AsyncEngine, owner: Owner, acme: UUID
) -> None:
    asks(owner, acme, 1, "planned", problem="acme has no customer")
    asks(owner, acme, 2, "void")
    for number, days in enumerate(DUE_DAYS, start=10):
        asks(owner, acme, number, "uncollectible" if number == 13 else "open", due_days=days)
    told = await seen(database, worker)
    counts = {state: value(told, "invoices", state=state) for state in ("planned", "agreed", "open", "uncollectible")}
    assert counts == {"planned": 1, "agreed": 0, "open": 3, "uncollectible": 1}
    assert value(told, "invoices", state="void") is None, "what is final is not read"
    assert value(told, "invoices_oldest_seconds", state="planned") == pytest.approx(3600, abs=300)
    assert value(told, "invoices_oldest_seconds", state="agreed") == 0
    assert value(told, "invoices_held") == 1
    assert value(told, "invoices_due", currency="USD") == pytest.approx(4 * 12.34)
    assert [value(told, "invoices_unpaid", stage=stage) for stage in STAGES] == [1, 1, 1, 1]


async def test_stages_are_those_of_dunning(worker: AsyncEngine, owner: Owner, acme: UUID) -> None:
    """The query counts what hold_for decides one by one."""
    for number, days in enumerate((*DUE_DAYS, 13, 29), start=10):
        asks(owner, acme, number, "open", due_days=days)
    holds = {"new_sessions": Hold.NEW_SESSIONS, "signing": Hold.SIGNING}
    (figure,) = (each for each in FIGURES if each.names[0][0] == "invoices_unpaid")
    async with worker.connect() as connection:
        found = await read(connection, figure, policy_of(DUNNING))
        now = (await connection.execute(text("SELECT now()"))).scalar_one()
        decided = [hold_for([one], now, policy_of(DUNNING)).hold for one in (await open_invoices(connection))[acme]]
    assert {stage: found[stage,][0] for stage in holds} == {stage: decided.count(hold) for stage, hold in holds.items()}


async def test_a_period_that_is_over_and_not_closed_is_told_by_how_late_it_is(
    database: str, worker: AsyncEngine, owner: Owner, acme: UUID
) -> None:
    owner.execute("UPDATE gateway SET created_at = now() - interval '40 days' WHERE id = %s", [acme])
    query = """INSERT INTO current_period VALUES (%s, now() - interval '2 hours', now() + interval '20 days',
                                                  '2026-11-01', '2026-12-01')"""
    owner.execute(query, [acme])
    assert value(await seen(database, worker), "billing_periods_lag_seconds") == pytest.approx(7200, abs=300)
    owner.execute("UPDATE gateway SET created_at = (SELECT begins_at FROM current_period) WHERE id = %s", [acme])
    assert value(await seen(database, worker), "billing_periods_lag_seconds") == 0, "it is the first, and runs"
    owner.execute("UPDATE current_period SET ends_at = now() - interval '1 hour'")
    assert value(await seen(database, worker), "billing_periods_lag_seconds") == pytest.approx(3600, abs=300)


async def test_what_takes_too_long_is_left_out_and_said_and_the_rest_is_told(
    database: str, worker: AsyncEngine, owner: Owner
) -> None:
    owner.execute("""CREATE FUNCTION takes_too_long() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN
                         RAISE query_canceled; END $$""")  # as a time-out does
    slow = Figure((("slow", "Slow."),), (), (), "SELECT takes_too_long()")
    registry = CollectorRegistry()
    watch = BillingWatch(database, DUNNING, BillingMetrics(registry), figures=(slow, *FIGURES), every_s=300)
    with capture_logs() as logs:
        await watch.look(worker)
    assert [(entry["event"], entry["figure"]) for entry in logs] == [("billing_not_counted", "slow")]
    assert value(registry, "invoices", state="open") == 0


async def test_a_query_has_a_short_time(database: str) -> None:
    engine = watch_engine(database)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SHOW statement_timeout"))).scalar_one() == "2s"
    await engine.dispose()


async def test_no_figure_reads_what_is_final(worker: AsyncEngine) -> None:
    """By their plans: payments, refunds and invoices are read by the indexes over what is not, or by time."""
    plans = ""
    async with worker.connect() as connection:
        await connection.execute(text("SET enable_seqscan = off"))
        for figure in FIGURES:
            explained = bound(f"EXPLAIN {figure.query}", policy_of(DUNNING))
            plan = "\n".join((await connection.execute(explained)).scalars())
            assert not re.search("Seq Scan on (payment|refund|invoice|dispute)", plan), plan
            plans += plan
    for index in ("payment_requested", "payment_ended", "payment_in_flight", "refund_ended", "invoice_under_way"):
        assert re.search(rf"\b{index}\b", plans), index


async def test_it_goes_on_without_a_database_and_tells_nothing_old() -> None:
    registry = CollectorRegistry()
    metrics = BillingMetrics(registry, known_for_s=0)
    metrics.saw({FIGURES[0]: {("card", "failed"): (1,)}})
    assert value(registry, "payments_ended_day", method="card", outcome="failed") is None
    stop = asyncio.Event()
    watch = BillingWatch("host=127.0.0.1 port=1 connect_timeout=2", DUNNING, metrics, every_s=0.1)
    with capture_logs() as logs:
        running = asyncio.create_task(watch.run(stop))
        async with asyncio.timeout(60):
            while len(logs) < 2:
                await asyncio.sleep(0.02)
        stop.set()
        await running
    assert {entry["event"] for entry in logs} == {"billing_not_counted"}
