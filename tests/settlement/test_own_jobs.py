"""The books are checked, and old runs forgotten: as they run on the schedule, in the role that the worker has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from clearinghouse.job_runs import Outcome
from settlement.own_jobs import forget_job_runs, ledger_verify
from settlement.schedule import Job
from tests.parts.days import days
from tests.parts.service import house_of
from tests.settlement.conftest import Owner
from tests.settlement.test_runs import said

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


async def test_books_in_order_are_said_so_and_books_that_are_not_are_a_failure_of_its_own_kind(
    database: str, owner: Owner
) -> None:
    async with house_of(database) as house:
        await house.new_gateway(tickets=10)
    async with days(database, NOON) as passing:
        good = await passing.run(ledger_verify())
        owner.execute("SET session_replication_role = replica")  # past all triggers, as nobody else can
        owner.execute("UPDATE account SET balance = balance + 1 WHERE gateway_id IS NOT NULL")
        bad = await passing.run(ledger_verify(), by_hand=True)
    assert good is not None
    assert good.said is not None
    assert good.said.startswith("the books are in order: 1 gateways")
    assert bad is not None
    assert (bad.outcome, bad.error_kind) == (Outcome.FAILED, "LedgerNotInOrder")
    assert bad.error is not None
    assert bad.error.startswith("violations of ")


async def test_old_runs_are_forgotten_but_never_the_last_of_a_job(database: str, owner: Owner) -> None:
    rare, often = Job("rare", 86_400 * 90, said("rare")), Job("often", 3600, said("often"))
    forget = forget_job_runs(kept=timedelta(days=2))
    async with days(database, NOON) as passing:
        assert await passing.run(rare) is not None
        await passing.until(NOON + timedelta(days=4), [often])
        run = await passing.run(forget)
        assert await passing.run(rare) is None, "its only run is remembered, so it is not due"
    assert run is not None
    kept = owner.execute("SELECT job, count(*), min(started_at) FROM job_run GROUP BY 1 ORDER BY 1").fetchall()
    assert run.said == f"{96 - 49} runs forgotten"
    assert [(job, count) for job, count, _ in kept] == [("forget-job-runs", 1), ("often", 49), ("rare", 1)]
    assert kept[1][2] >= NOON + timedelta(days=2)
