"""What terms do to an account at the instant they begin, while payments are committed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import database_now
from clearinghouse.ledger.verify import verify
from settlement.customers.calendar import CalendarsWrong, reckon, reckon_calendars
from settlement.schedule import Tick
from tests.parts.books import commit, new_gateway, usage_costing
from tests.settlement.conftest import Owner

ONE = Decimal(1)
PATIENCE_S = 60
#: More than can be paid in a few seconds.
MUCH = 1_000_000
#: Before one instant and from another on, and how often before a third.
USED = """
    SELECT coalesce(sum(charge) FILTER (WHERE created_at < %s), 0),
           coalesce(sum(charge) FILTER (WHERE created_at >= %s), 0), count(*) FILTER (WHERE created_at < %s)
      FROM issuance
"""


def soon(owner: Owner, seconds: float = 0.8) -> datetime:
    (now,) = row(owner, "SELECT clock_timestamp()")
    assert isinstance(now, datetime)
    return now + timedelta(seconds=seconds)


def row(owner: Owner, query: str, *parameters: Any) -> tuple[Any, ...]:
    found = owner.execute(query.encode(), parameters).fetchone()
    assert found is not None
    return found


def agreed(owner: Owner, gateway: UUID, begins_at: datetime, **terms: Any) -> None:
    values = {"gateway_id": gateway, "begins_at": begins_at, **terms}
    marks = ", ".join(["%s"] * len(values))
    owner.execute(f"INSERT INTO billing_terms ({', '.join(values)}) VALUES ({marks})".encode(), list(values.values()))


def agreed_soon(owner: Owner, gateway: UUID, **terms: Any) -> datetime:
    """Returns when they begin, which was still to come when they were agreed on, however long that took."""
    for _ in range(20):
        begins_at = soon(owner)
        try:
            agreed(owner, gateway, begins_at, **terms)
        except psycopg.errors.InsufficientPrivilege:
            continue
        return begins_at
    raise AssertionError("nothing can be agreed on within 0.8 s")


def subscribed(owner: Owner, gateway: UUID, begins_at: datetime, ends_at: datetime) -> None:
    """A period of a subscription, as the worker writes it down."""
    (is_planned,) = row(
        owner, "SELECT plan_subscription_period(%s, %s, %s, %s, %s)", gateway, begins_at, ends_at,
        begins_at.date(), begins_at.date() + timedelta(days=1),
    )  # fmt: skip
    assert is_planned


def written_down(owner: Owner, gateway: UUID, begins_at: datetime, ends_at: datetime) -> None:
    """A period of a subscription that a worker wrote down in time, before whatever signs went away."""
    owner.execute(
        "INSERT INTO subscription_period (gateway_id, begins_at, ends_at, first_day, next_day, fee, included) "
        "SELECT gateway_id, %s, %s, '2026-11-01', '2026-11-02', fee, included FROM billing_terms WHERE gateway_id = %s",
        [begins_at, ends_at, gateway],
    )
    owner.execute("SELECT note_terms_due(%s)", [gateway])


def account(owner: Owner, gateway: UUID) -> tuple[Decimal, Decimal, Decimal]:
    """Balance, limit, overdrawn."""
    return row(owner, "SELECT balance, credit_limit, overdrawn FROM account WHERE id = %s", gateway)  # type: ignore[return-value]


def until(instant: datetime) -> None:
    while datetime.now(UTC) < instant:
        time.sleep(0.01)


@contextmanager
def paying(database: str, gateway: UUID, key: UUID, *, threads: int = 4) -> Iterator[None]:
    """Payments of 1 from several processes, without a pause, until the block ends. Each process has one session: on a
    quick machine a session for each payment would be more than may be open at an orchestrator."""
    has_ended = threading.Event()

    def pay() -> None:
        call = usage_costing(gateway, key, ONE)
        with psycopg.connect(database, autocommit=True) as connection:
            while not has_ended.is_set():
                if commit(connection, call)[0] is None:
                    call = call.continued()

    with ThreadPoolExecutor(threads) as pool:
        payers = [pool.submit(pay) for _ in range(threads)]
        try:
            yield
        finally:
            has_ended.set()
            for payer in payers:
                payer.result()


def until_paid(owner: Owner, gateway: UUID, since: datetime) -> None:
    """More than ten payments since then, of those that go on."""
    give_up_s = time.monotonic() + PATIENCE_S
    query = "SELECT count(*) FROM issuance WHERE gateway_id = %s AND created_at >= %s"
    while row(owner, query, gateway, since)[0] <= 10:
        assert time.monotonic() < give_up_s, "nothing is paid"
        time.sleep(0.05)


def test_a_limit_begins_and_ends_at_its_instant_whoever_commits_at_it(database: str, owner: Owner) -> None:
    gateway, key = new_gateway(owner, credit=0)
    assert commit(owner, usage_costing(gateway, key, ONE))[0] == "out_of_credit"
    with paying(database, gateway, key):
        begins_at = agreed_soon(owner, gateway, way="postpaid", credit_limit=1_000_000)
        until_paid(owner, gateway, begins_at)
        ends_at = agreed_soon(owner, gateway, way="prepaid")
        until(ends_at + timedelta(seconds=0.3))
    (count, first, last) = row(owner, "SELECT count(*), min(created_at), max(created_at) FROM issuance")
    assert count > 10
    assert begins_at <= first
    assert last < ends_at
    assert account(owner, gateway) == (-count, 0, count), "the debt stays, and nothing can be signed on it"
    owner.execute(
        "SELECT book_entry(gen_random_uuid(), 'payment', %s, %s, NULL, 'payment:1', 'x', 'x')", [gateway, count]
    )
    assert account(owner, gateway) == (0, 0, 0)
    assert commit(owner, usage_costing(gateway, key, ONE))[0] == "out_of_credit"


def test_a_debt_is_paid_down_and_only_what_is_beyond_it_can_be_signed(owner: Owner) -> None:
    gateway, key = new_gateway(owner, credit=0)
    agreed(owner, gateway, soon(owner, -60), way="postpaid", credit_limit=10)
    for _ in range(8):
        assert commit(owner, usage_costing(gateway, key, ONE))[0] is None
    until(agreed_soon(owner, gateway, way="postpaid", credit_limit=5))
    assert commit(owner, usage_costing(gateway, key, ONE))[0] == "out_of_credit"
    assert account(owner, gateway) == (-8, 5, 3)
    owner.execute("SELECT book_entry(gen_random_uuid(), 'payment', %s, 4, NULL, 'payment:1', 'x', 'x')", [gateway])
    assert account(owner, gateway) == (-4, 5, 0)
    assert commit(owner, usage_costing(gateway, key, ONE))[0] is None
    assert commit(owner, usage_costing(gateway, key, ONE))[0] == "out_of_credit"


def test_an_account_that_nobody_pays_from_is_given_its_terms_too(database: str, owner: Owner) -> None:
    gateway, _ = new_gateway(owner)
    at = soon(owner, 1.0)
    agreed(owner, gateway, at, way="postpaid", credit_limit=10)
    until(at)
    assert row(owner, "SELECT apply_all_due_terms()") == (1,)
    assert account(owner, gateway)[1] == 10
    assert row(owner, "SELECT apply_all_due_terms()") == (0,)
    assert row(owner, "SELECT terms_begun_at, terms_due_at FROM account WHERE id = %s", gateway) == (at, None)


def test_terms_of_many_accounts_are_applied_a_few_at_a_time(owner: Owner) -> None:
    gateways = sorted(new_gateway(owner)[0] for _ in range(5))
    at = soon(owner, 1.0)
    for gateway in gateways:
        agreed(owner, gateway, at, way="postpaid", credit_limit=10)
    until(at)
    assert [row(owner, "SELECT apply_all_due_terms(2)")[0] for _ in range(4)] == [2, 2, 1, 0]
    assert [account(owner, gateway)[1] for gateway in gateways] == [10] * 5


def test_a_change_taken_back_at_the_last_moment_never_holds(owner: Owner) -> None:
    gateway, key = new_gateway(owner, credit=0)
    at = soon(owner, 1.0)
    agreed(owner, gateway, at, way="postpaid", credit_limit=10)
    owner.execute("DELETE FROM billing_terms")
    until(at)
    assert commit(owner, usage_costing(gateway, key, ONE))[0] == "out_of_credit"
    assert row(owner, "SELECT terms_due_at FROM account WHERE id = %s", gateway) == (None,)


async def test_a_subscription_charges_once_and_includes_usage_for_its_period_alone(
    database: str, owner: Owner, admin: AsyncEngine
) -> None:
    gateway, key = new_gateway(owner, credit=0)
    first, second, third = soon(owner, 1.0), soon(owner, 5.0), soon(owner, 600)
    agreed(owner, gateway, first, way="subscription", fee=7, included=MUCH, credit_limit=20)
    subscribed(owner, gateway, first, second)
    subscribed(owner, gateway, second, third)
    with paying(database, gateway, key):
        until(second)
        until_paid(owner, gateway, second)
    kinds = owner.execute("SELECT kind, count(*), sum(amount) FROM transfer GROUP BY kind ORDER BY kind").fetchall()
    used_first, used_second, too_early = row(owner, USED, second, second, first)
    assert min(used_first, used_second) > 10
    assert too_early == 0
    assert kinds == [("expiry", 1, MUCH - used_first), ("fee", 2, 14), ("included", 2, 2 * MUCH)]
    assert account(owner, gateway)[0] == -14 + MUCH - used_second
    assert (await verify(admin)).is_clean


async def test_a_period_that_was_over_before_anything_ran_again_costs_no_fee_and_includes_nothing(
    owner: Owner, admin: AsyncEngine
) -> None:
    gateway, key = new_gateway(owner)
    first, second, third = soon(owner, -7200), soon(owner, -3600), soon(owner, 3600)
    agreed(owner, gateway, first, way="subscription", fee=7, included=1)
    written_down(owner, gateway, first, second)
    written_down(owner, gateway, second, third)
    assert commit(owner, usage_costing(gateway, key, ONE))[0] is None
    kinds = owner.execute("SELECT kind, amount FROM transfer WHERE kind <> 'grant' ORDER BY kind").fetchall()
    assert kinds == [("fee", 7), ("included", 1)], "of the period that goes on"
    periods = owner.execute("SELECT lapsed, fee_id IS NULL FROM subscription_period ORDER BY begins_at").fetchall()
    assert periods == [(True, True), (False, False)]
    assert row(owner, "SELECT terms_due_at FROM account WHERE id = %s", gateway) == (None,)
    assert (await verify(admin)).is_clean


async def test_included_usage_ends_with_its_period_also_where_its_fee_is_not_paid(
    owner: Owner, admin: AsyncEngine
) -> None:
    gateway, key = new_gateway(owner, credit=0)
    first, second = soon(owner), soon(owner, 600)
    agreed(owner, gateway, first, way="subscription", fee=100, included=100, credit_limit=100)
    subscribed(owner, gateway, first, second)
    until(first)
    for _ in range(3):
        assert commit(owner, usage_costing(gateway, key, ONE))[0] is None
    assert account(owner, gateway) == (-3, 100, 0)
    assert row(owner, "SELECT expires_at FROM credit_lot") == row(owner, "SELECT next_expiry_at FROM account "
               "WHERE id = %s", gateway) == (second,)  # fmt: skip
    with owner.transaction():  # it is second
        owner.execute("UPDATE credit_lot SET expires_at = now()")
        owner.execute("UPDATE account SET next_expiry_at = now() WHERE id = %s", [gateway])
    row(owner, "SELECT settle_due_lots()")
    assert account(owner, gateway) == (-100, 100, 0), "97 were not used"
    assert (await verify(admin)).is_clean
    owner.execute("SELECT book_entry(gen_random_uuid(), 'payment', %s, 100, NULL, 'payment:1', 'x', 'x')", [gateway])
    assert account(owner, gateway)[0] == 0, "what was paid for the fee is no credit"
    assert (await verify(admin)).is_clean


async def test_the_worker_writes_down_the_periods_that_come_and_charges_none_twice(
    owner: Owner, admin: AsyncEngine, worker: AsyncEngine
) -> None:
    gateway, key = new_gateway(owner)
    agreed(owner, gateway, soon(owner, -86_400 * 20), way="subscription", fee=7, included=10)

    async def turn(ahead: timedelta = timedelta(0)) -> str:
        async with worker.connect() as connection:
            return await reckon_calendars(Tick(worker, await database_now(connection) + ahead))

    assert await turn() == "1 calendars reckoned"
    assert commit(owner, usage_costing(gateway, key, ONE))[0] is None
    periods = "SELECT count(*), count(booked_at), count(fee_id) FROM subscription_period"
    (count, booked, fees) = row(owner, periods)
    assert (booked, fees) == (1, 1)
    assert count in {1, 2}, "two where the next one begins in three days"
    (ends_at, now) = row(owner, "SELECT ends_at, now() FROM current_period")
    if count == 1:
        assert await turn() == "0 calendars reckoned"
        assert await turn(ends_at - now - timedelta(days=2)) == "1 calendars reckoned"
    assert await turn() == "0 calendars reckoned"
    assert row(owner, periods) == (2, 1, 1)
    assert account(owner, gateway)[0] == 1000 - 7 + 10 - 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute("DELETE FROM subscription_period WHERE booked_at IS NOT NULL")
    agreed(owner, gateway, ends_at, way="prepaid")
    assert row(owner, periods) == (1, 1, 1), "what is not to come any more is not charged"
    await turn(ends_at - now - timedelta(days=2))
    assert row(owner, periods) == (1, 1, 1)
    assert (await verify(admin)).is_clean


def test_a_change_taken_back_as_it_begins_either_never_holds_or_cannot_be_taken_back(
    database: str, owner: Owner
) -> None:
    """Raced again and again: whoever gets the account's lock first after the instant decides, for everybody."""
    outcomes, late = set[bool](), timedelta(milliseconds=-250)
    for number in range(60):
        if number >= 12 and outcomes == {True, False}:
            break
        gateway, key = new_gateway(owner, credit=0)
        at = soon(owner, 0.6)
        agreed(owner, gateway, at, way="postpaid", credit_limit=1_000_000)

        def take_back(gateway: UUID, at: datetime, late: timedelta) -> bool:
            with psycopg.connect(database, autocommit=True) as operator:
                until(at + late)
                try:
                    operator.execute("DELETE FROM billing_terms WHERE gateway_id = %s", [gateway])
                except psycopg.errors.InsufficientPrivilege:
                    return False
                return True

        with ThreadPoolExecutor(1) as pool:
            taken_back = pool.submit(take_back, gateway, at, late)
            with paying(database, gateway, key, threads=2):
                is_taken_back = taken_back.result()
                until(at + timedelta(seconds=0.1))
        count, first = row(owner, "SELECT count(*), min(created_at) FROM issuance WHERE gateway_id = %s", gateway)
        limit = account(owner, gateway)[1]
        assert (count, limit) == (0, 0) if is_taken_back else limit == 1_000_000
        assert first is None or first >= at
        outcomes.add(is_taken_back)
        late += timedelta(milliseconds=50 if is_taken_back else -50)  # about the instant from both sides
    assert outcomes == {True, False}, "the race was one"


async def test_a_calendar_that_cannot_be_reckoned_is_named_and_keeps_no_other_waiting(
    owner: Owner, worker: AsyncEngine
) -> None:
    (wrong, _), (right, _) = sorted([new_gateway(owner), new_gateway(owner)])
    agreed(owner, wrong, soon(owner, 3600), way="free")
    async with worker.connect() as connection:
        tick = Tick(worker, await database_now(connection))
    with pytest.raises(CalendarsWrong, match=f"1 calendars cannot be reckoned: gw_{wrong.hex}: terms change on"):
        await reckon_calendars(tick)
    assert owner.execute("SELECT gateway_id FROM current_period").fetchall() == [(right,)]


async def test_a_period_that_overlaps_another_is_never_written_down_and_keeps_no_other_waiting(
    owner: Owner, worker: AsyncEngine
) -> None:
    """As two workers with other time zones would."""
    (other, _), (right, _) = sorted([new_gateway(owner), new_gateway(owner)])
    for gateway in (other, right):
        (opened_at,) = row(owner, "SELECT created_at FROM gateway WHERE id = %s", gateway)
        agreed(owner, gateway, opened_at, way="subscription", fee=7, included=0)
    written_down(owner, other, soon(owner, -7200), soon(owner, 3600))
    async with worker.connect() as connection:
        tick = Tick(worker, await database_now(connection))
    with pytest.raises(CalendarsWrong, match=f"1 .*: gw_{other.hex}: the period of a subscription from .* overlaps"):
        await reckon_calendars(tick)
    assert set(owner.execute("SELECT gateway_id FROM current_period").fetchall()) == {(right,)}
    assert row(owner, "SELECT count(*) FROM subscription_period WHERE gateway_id = %s", other) == (1,)


async def test_a_calendar_is_reckoned_by_terms_that_are_being_changed(
    database: str, owner: Owner, worker: AsyncEngine
) -> None:
    gateway, _ = new_gateway(owner)
    (opened_at,) = row(owner, "SELECT created_at FROM gateway WHERE id = %s", gateway)
    agreed(owner, gateway, opened_at, way="subscription", fee=100, included=0)

    async def reckoned() -> None:
        async with worker.begin() as connection:
            await reckon(connection, gateway, opened_at)

    with psycopg.connect(database) as operator:
        operator.execute("SELECT FROM account WHERE id = %s FOR NO KEY UPDATE", [gateway])
        reckoning = asyncio.create_task(reckoned())
        while not row(owner, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')")[0]:
            await asyncio.sleep(0.01)
        operator.execute("DELETE FROM billing_terms")
        agreed(operator, gateway, opened_at, way="subscription", cadence="weekly", fee=25, included=0)
        operator.commit()
        await reckoning
    written = owner.execute(
        "SELECT ends_at - begins_at <= interval '8 days' FROM current_period UNION ALL "
        "SELECT ends_at - begins_at <= interval '8 days' FROM subscription_period"
    )
    assert {is_weekly for (is_weekly,) in written} == {True}
