"""Changes of terms: only where a period ends, without a gap or an overlap, and the past stays as it was."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.errors import Conflict, InvalidRequest
from clearinghouse.identity import gateways
from clearinghouse.identity.gateways import Gateway
from clearinghouse.ids import show, uuid7
from settlement.customers.changes import Schedule, cancel_changes, change_terms, schedule, set_end_of_free_terms
from settlement.customers.terms import DEFAULT_TERMS, Terms, all_terms
from settlement.periods import Period, Way
from settlement.timelines import timeline_of
from tests.parts.books import commit, usage
from tests.settlement.conftest import Owner

POSTPAID = {"way": "postpaid", "credit_limit": "500"}


async def acme(connection: AsyncConnection, gateway_id: UUID) -> Gateway:
    return await gateways.find(connection, show("gw", gateway_id))


async def changed(admin: AsyncEngine, gateway_id: UUID, begins: str = "next", **given: str) -> Schedule:
    async with admin.begin() as connection:
        return await change_terms(
            connection, await acme(connection, gateway_id), given, begins=begins, actor="cli:test"
        )


async def seen(admin: AsyncEngine, gateway_id: UUID) -> Schedule:
    async with admin.connect() as connection:
        return await schedule(connection, await acme(connection, gateway_id))


def used(owner: Owner, gateway_id: UUID) -> None:
    """Something was signed for it, for which nothing was charged."""
    key_id = uuid7()
    owner.execute(
        "INSERT INTO api_key (id, gateway_id, public_id, secret_hmac) VALUES (%s, %s, %s, %s)",
        [key_id, gateway_id, str(key_id), bytes(32)],
    )
    assert commit(owner, replace(usage(gateway_id, key_id), charge=Decimal(0)))[0] is None


async def test_a_gateway_nobody_agreed_on_anything_with_is_prepaid_in_months(
    admin: AsyncEngine, gateway_id: UUID
) -> None:
    found = await seen(admin, gateway_id)
    assert (found.now, found.to_come) == (DEFAULT_TERMS, ())


async def test_another_way_begins_where_the_period_ends_and_not_before(admin: AsyncEngine, gateway_id: UUID) -> None:
    found = await changed(admin, gateway_id, **POSTPAID)
    assert found.now == DEFAULT_TERMS
    (coming,) = found.to_come
    assert (coming.way, coming.credit_limit, coming.begins_at) == (Way.POSTPAID, Decimal(500), found.period.end)


async def test_a_change_that_has_not_begun_is_replaced_or_taken_back(admin: AsyncEngine, gateway_id: UUID) -> None:
    await changed(admin, gateway_id, **POSTPAID)
    (coming,) = (await changed(admin, gateway_id, way="free")).to_come
    assert coming.way is Way.FREE
    async with admin.begin() as connection:
        gateway = await acme(connection, gateway_id)
        assert (await cancel_changes(connection, gateway)).to_come == ()
        with pytest.raises(Conflict, match="nothing is to change"):
            await cancel_changes(connection, gateway)
    await changed(admin, gateway_id, **POSTPAID)
    assert (await changed(admin, gateway_id, way="prepaid")).to_come == ()


async def test_a_period_is_named_by_its_month_or_its_day(admin: AsyncEngine, gateway_id: UUID) -> None:
    period = (await seen(admin, gateway_id)).period
    third = period.next_day.replace(day=1)
    for _ in range(2):
        third = (third + timedelta(days=32)).replace(day=1)
    by_month = await changed(admin, gateway_id, f"{third:%Y-%m}", **POSTPAID)
    assert by_month.to_come[0].begins_at == datetime(third.year, third.month, 1, tzinfo=UTC)
    assert (await changed(admin, gateway_id, third.isoformat(), **POSTPAID)).to_come == by_month.to_come
    with pytest.raises(InvalidRequest, match=f"one does on {third.isoformat()}, and the next on"):
        await changed(admin, gateway_id, third.replace(day=15).isoformat(), **POSTPAID)
    with pytest.raises(InvalidRequest, match="the next one begins on"):
        await changed(admin, gateway_id, "2020-01", **POSTPAID)
    for nonsense in ("tomorrow", "2026-13", "2026-02-30", "20261201"):
        with pytest.raises(InvalidRequest, match="terms begin at next"):
            await changed(admin, gateway_id, nonsense, **POSTPAID)


async def test_what_is_not_named_stays_and_another_way_begins_with_nothing_of_the_old(
    admin: AsyncEngine, gateway_id: UUID
) -> None:
    found = await changed(admin, gateway_id, "start", **POSTPAID, cadence="weekly:thu", time_zone="Europe/Berlin")
    assert (found.now.way, str(found.now.cadence), found.now.zone) == (Way.POSTPAID, "weekly:thu", "Europe/Berlin")
    (coming,) = (await changed(admin, gateway_id, cadence="monthly:15")).to_come
    assert (coming.way, coming.credit_limit, coming.zone) == (Way.POSTPAID, Decimal(500), "Europe/Berlin")
    (coming,) = (await changed(admin, gateway_id, way="prepaid")).to_come
    assert (coming.credit_limit, str(coming.cadence)) == (Decimal(0), "weekly:thu")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"way": "barter"}, "a way to be billed is prepaid, automatic"),
        ({"way": "postpaid"}, "needs credit_limit (--credit-limit)"),
        ({"way": "prepaid", "credit_limit": "5"}, "prepaid billing has no credit_limit (--credit-limit)"),
        ({"way": "subscription", "fee": "5"}, "--included"),
        ({"way": "subscription"}, "a subscription needs fee (--fee) and included (--included)"),
        ({"way": "automatic"}, "needs refill_below (--refill-below), refill_to (--refill-to)"),
        ({"way": "automatic", "refill_below": "5", "refill_to": "5", "refill_day_max": "9", "refill_month_max": "9"},
         "a top-up goes up"),
        ({"way": "automatic", "refill_below": "5", "refill_to": "9", "refill_day_max": "9", "refill_month_max": "8"},
         "at most the most in a month"),
        ({"way": "automatic", "refill_below": "5", "refill_to": "9", "refill_day_max": "9", "refill_month_max": "9",
          "refill_cooldown": "30s"}, "1m to 366d"),
        ({"way": "free", "ends_at": "2026-01-01T00:00:00Z"}, "end after they begin"),
        ({"way": "free", "ends_at": "tomorrow"}, "a time is written"),
        ({"cadence": "daily"}, "a period is weekly"),
        ({"time_zone": "Berlin"}, "IANA name"),
        ({"way": "postpaid", "credit_limit": "1e3"}, "plain decimal number"),
    ],
)  # fmt: skip
async def test_what_cannot_be_agreed_on_is_explained_and_changes_nothing(
    admin: AsyncEngine, gateway_id: UUID, given: dict[str, str], said: str
) -> None:
    before = await changed(admin, gateway_id, **POSTPAID)
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        await changed(admin, gateway_id, **given)
    assert await seen(admin, gateway_id) == before


async def test_a_new_gateway_may_have_its_terms_from_the_start_and_they_hold_at_once(
    admin: AsyncEngine, gateway_id: UUID
) -> None:
    found = await changed(admin, gateway_id, "start", **POSTPAID)
    assert found.now.way is Way.POSTPAID
    async with admin.connect() as connection:
        limit = await connection.execute(text("SELECT credit_limit FROM account WHERE gateway_id IS NOT NULL"))
        assert limit.scalar_one() == 500


async def test_terms_from_the_start_that_are_replaced_leave_nothing_behind(
    admin: AsyncEngine, owner: Owner, gateway_id: UUID
) -> None:
    def limit() -> object:
        return owner.execute("SELECT credit_limit, signs_until FROM account WHERE id = %s", [gateway_id]).fetchone()

    await changed(admin, gateway_id, "start", **POSTPAID)
    assert limit() == (500, None)
    await changed(admin, gateway_id, "start", way="postpaid", credit_limit="20")
    assert limit() == (20, None)
    await changed(admin, gateway_id, "start", way="free", ends_at="2099-01-01T00:00:00Z")
    assert limit() == (0, datetime(2099, 1, 1, tzinfo=UTC))
    assert (await changed(admin, gateway_id, "start", way="prepaid")).now == DEFAULT_TERMS
    assert limit() == (0, None)


async def test_once_something_was_signed_there_is_a_past_and_it_stays(
    admin: AsyncEngine, owner: Owner, gateway_id: UUID
) -> None:
    before = await changed(admin, gateway_id, "start", **POSTPAID)
    used(owner, gateway_id)
    with pytest.raises(Conflict, match="that is past"):
        await changed(admin, gateway_id, "start", way="prepaid")
    assert await seen(admin, gateway_id) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_terms SET credit_limit = 9",
        "UPDATE billing_terms SET begins_at = begins_at + interval '1 year'",
        "UPDATE billing_terms SET way = 'free', credit_limit = 0, ends_at = now() + interval '1 day'",
        "DELETE FROM billing_terms",
        "TRUNCATE billing_terms",
        "INSERT INTO billing_terms (gateway_id, begins_at, way) SELECT id, now() - interval '1 s', 'free' FROM gateway",
    ],
)
async def test_the_database_refuses_to_rewrite_the_past_whoever_asks(
    admin: AsyncEngine, owner: Owner, gateway_id: UUID, statement: str
) -> None:
    await changed(admin, gateway_id, "start", **POSTPAID)
    used(owner, gateway_id)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute(statement.encode())
    owner.execute(
        "INSERT INTO billing_terms (gateway_id, begins_at, way) SELECT id, now() + interval '9 s', 'free' FROM gateway"
    )
    owner.execute("DELETE FROM billing_terms WHERE begins_at > now()")


async def test_the_end_of_free_terms_can_be_moved_and_only_forward_from_now(
    admin: AsyncEngine, owner: Owner, gateway_id: UUID
) -> None:
    soon = datetime.now(UTC) + timedelta(days=3)
    await changed(admin, gateway_id, "start", way="free", ends_at=soon.isoformat().replace("+00:00", "Z"))
    used(owner, gateway_id)

    def signs_until() -> datetime | None:
        row = owner.execute("SELECT signs_until FROM account WHERE id = %s", [gateway_id]).fetchone()
        assert row is not None
        return row[0]  # type: ignore[no-any-return]

    assert signs_until() == soon
    later = soon + timedelta(days=30)
    async with admin.begin() as connection:
        gateway = await acme(connection, gateway_id)
        assert (await set_end_of_free_terms(connection, gateway, later)).now.ends_at == later
    assert signs_until() == later
    with pytest.raises(Conflict, match="that is past"):
        async with admin.begin() as connection:
            await set_end_of_free_terms(connection, gateway, datetime.now(UTC) - timedelta(seconds=1))
    async with admin.begin() as connection:
        await set_end_of_free_terms(connection, gateway, None)
    assert signs_until() is None


WAYS = st.sampled_from(
    [
        {"way": "prepaid"},
        POSTPAID,
        {"way": "free"},
        {"way": "subscription", "fee": "10", "included": "12"},
        {"way": "automatic", "refill_below": "5", "refill_to": "9", "refill_day_max": "9", "refill_month_max": "90"},
    ]
)
CADENCES = st.sampled_from(["weekly", "weekly:sun", "monthly", "monthly:15", "monthly:31"])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland", "Asia/Kathmandu"])
CHANGES = st.lists(st.tuples(st.integers(0, 5), WAYS, CADENCES, ZONES, st.booleans()), min_size=1, max_size=6)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, age_days=st.integers(1, 800))
async def test_whatever_is_agreed_on_periods_follow_each_other_and_the_past_stays(
    admin: AsyncEngine, owner: Owner, changes: list[tuple[int, dict[str, str], str, str, bool]], age_days: int
) -> None:
    gateway = await an_old_gateway(admin, owner, age_days)
    await changed(admin, gateway.id, "start", **POSTPAID)
    used(owner, gateway.id)
    for ahead, way, cadence, zone, is_cancelled in changes:
        before = await periods_of(admin, gateway)
        past = [period for period in before if period.begin <= datetime.now(UTC)]
        target = before[len(past) + ahead]
        found = await changed(admin, gateway.id, target.id, **way, cadence=cadence, time_zone=zone)
        after = await periods_of(admin, gateway)
        assert after[: len(past)] == past, "what has begun goes on to its end"
        assert after[: len(past) + ahead] == before[: len(past) + ahead], "nor does anything before the change"
        assert all(first.end == second.begin for first, second in pairwise(after))
        assert after[0].begin == gateway.created_at
        require_boundaries(after, found)
        assert found.to_come == () or found.to_come[-1].begins_at <= target.begin
        if is_cancelled and found.to_come:
            async with admin.begin() as connection:
                await cancel_changes(connection, gateway)
            assert (await periods_of(admin, gateway))[: len(past)] == past


def require_boundaries(periods: list[Period], found: Schedule) -> None:
    """Terms begin where periods do, and hold throughout them."""
    begins = [terms.begins_at for terms in found.to_come]
    assert set(begins) <= {period.begin for period in periods}
    for period in periods:
        if period.begin > found.period.begin:
            held = [
                terms
                for terms in (found.now, *found.to_come)
                if terms.begins_at is None or terms.begins_at <= period.begin
            ]
            assert (period.terms.way, period.terms.zone) == (held[-1].way, held[-1].zone)


async def an_old_gateway(admin: AsyncEngine, owner: Owner, age_days: int) -> Gateway:
    async with admin.begin() as connection:
        gateway = await gateways.create(connection, f"g{uuid7().hex}", currency="EUR")
    owner.execute(
        "UPDATE gateway SET created_at = created_at - %s WHERE id = %s", [timedelta(days=age_days), gateway.id]
    )
    async with admin.connect() as connection:
        return await acme(connection, gateway.id)


async def periods_of(admin: AsyncEngine, gateway: Gateway) -> list[Period]:
    """All of them for two years to come."""
    async with admin.connect() as connection:
        timeline = await timeline_of(connection, gateway.id)
    found, until = [timeline.first()], datetime.now(UTC) + timedelta(days=730)
    while found[-1].end < until:
        found.append(timeline.after(found[-1]))
    return found


async def test_all_terms_are_given_oldest_first(admin: AsyncEngine, gateway_id: UUID) -> None:
    period = (await seen(admin, gateway_id)).period
    await changed(admin, gateway_id, "start", way="free")
    await changed(admin, gateway_id, f"{date(period.next_day.year, period.next_day.month, 1):%Y-%m}", **POSTPAID)
    async with admin.connect() as connection:
        found: list[Terms] = await all_terms(connection, gateway_id)
    assert [terms.way for terms in found] == [Way.FREE, Way.POSTPAID]
