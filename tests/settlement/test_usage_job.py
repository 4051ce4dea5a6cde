"""The job that adds up usage, in the role that the worker has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg

from clearinghouse.job_runs import Outcome, Run
from settlement.usage_job import usage_roll_up
from tests.parts.books import commit, new_gateway, usage
from tests.parts.days import Days, days
from tests.parts.used import Books
from tests.settlement.conftest import Owner

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


async def ran(passing: Days) -> Run:
    run = await passing.run(usage_roll_up(), by_hand=True)
    assert run is not None
    return run


async def test_a_turn_adds_what_was_issued_since_the_last_one(database: str, owner: Owner) -> None:
    gateway, key = new_gateway(owner)
    async with days(database, NOON) as passing:
        for count in (2, 0, 1):
            for _ in range(count):
                assert commit(owner, usage(gateway, key))[0] is None
            run = await ran(passing)
            assert run.outcome is Outcome.OK, run.error
            assert run.said is not None
            assert run.said.startswith(f"{count} issuances added, until 20")
    assert owner.execute("SELECT sum(issuances) FROM usage_bucket WHERE span = 'ever'").fetchone() == (3,)


async def test_it_says_that_it_waits_for_a_transaction_that_does_not_end(database: str, owner: Owner) -> None:
    async with days(database, NOON) as passing:
        with psycopg.connect(database) as slow:
            assert commit(slow, usage(*new_gateway(owner)))[0] is None
            run = await ran(passing)
    assert run.outcome is Outcome.OK
    assert run.said is not None
    assert run.said.endswith("a transaction that began before is still under way")


async def test_sums_that_are_wrong_are_mended_and_what_cannot_be_is_a_failure(database: str, owner: Owner) -> None:
    books = Books(owner)
    gateway = books.new_gateway()
    async with days(database, NOON) as passing:
        books.use(gateway, datetime.now(UTC))
        await ran(passing)
        books.use(gateway, datetime.now(UTC) - timedelta(hours=5), charge=Decimal(2))
        mended = await ran(passing)
        assert mended.said is not None
        assert mended.said.endswith("; 3 sums were wrong and are mended")

        books.use(gateway, datetime.now(UTC) - timedelta(days=3), charge=Decimal(2))
        soon = await ran(passing)
        assert (soon.outcome, soon.error_kind) == (Outcome.FAILED, "UsageSumsWrong")
        owner.execute("UPDATE usage_progress SET mended_at = now() - interval '1 hour'")
        later = await ran(passing)
    assert (later.outcome, later.error_kind) == (Outcome.FAILED, "UsageSumsWrong")
    assert later.error is not None
    assert later.error.startswith(f"the sums of 1 gateways are not what was charged (gw_{gateway.hex}: 2.000000001 and")
    assert owner.execute("SELECT mended_at > now() - interval '1 minute' FROM usage_progress").fetchone() == (True,)
