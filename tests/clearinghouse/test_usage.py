"""What is remembered of a refusal, and when a limit begins anew."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from clearinghouse.errors import LimitReached
from clearinghouse.ids import uuid7
from clearinghouse.usage import (
    REFUSAL_REMEMBERED_S,
    Allowance,
    Limit,
    Usage,
    UsageLimits,
    Use,
    begins_anew_at,
    first_passed,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
USE = Use(uuid7(), uuid7(), b"\x11" * 20, True, Decimal(5), 500)


class Books:
    """A database whose answer a test writes; counts how often it was asked."""

    def __init__(self, **allowances: tuple[Decimal | int | None, Decimal | int]) -> None:
        self.asked = 0
        self.set(**allowances)

    def set(self, **allowances: tuple[Decimal | int | None, Decimal | int]) -> None:
        self._allowances = dict.fromkeys(Limit, Allowance(None, 0)) | {
            Limit(name): Allowance(*both) for name, both in allowances.items()
        }

    async def usage(self, gateway_id: UUID, key_id: UUID, orchestrator: bytes) -> Usage:
        self.asked += 1
        return Usage(NOON, NOON.date(), "USD", self._allowances)


class Clock:
    now_s = 100

    def __call__(self) -> float:
        return self.now_s


class SlowBooks(Books):
    """Each answer is a second old when it arrives."""

    def __init__(self, clock: Clock, **allowances: tuple[Decimal | int | None, Decimal | int]) -> None:
        super().__init__(**allowances)
        self._clock = clock

    async def usage(self, gateway_id: UUID, key_id: UUID, orchestrator: bytes) -> Usage:
        usage = await super().usage(gateway_id, key_id, orchestrator)
        self._clock.now_s += REFUSAL_REMEMBERED_S
        return usage


@pytest.mark.parametrize(
    ("day", "next_day", "next_month"),
    [
        (date(2026, 11, 21), "2026-11-22", "2026-12-01"),
        (date(2026, 12, 31), "2027-01-01", "2027-01-01"),
        (date(2026, 12, 1), "2026-12-02", "2027-01-01"),
        (date(2028, 2, 28), "2028-02-29", "2028-03-01"),
        (date(2028, 2, 29), "2028-03-01", "2028-03-01"),
    ],
)
def test_days_and_months_end_at_midnight_utc(day: date, next_day: str, next_month: str) -> None:
    assert begins_anew_at(day, monthly=False).isoformat() == f"{next_day}T00:00:00+00:00"
    assert begins_anew_at(day, monthly=True).isoformat() == f"{next_month}T00:00:00+00:00"


async def test_who_was_refused_is_refused_from_memory_and_then_from_the_books() -> None:
    clock, books = Clock(), Books(spend_per_day=(Decimal(7), Decimal(3)))
    limits = UsageLimits(books, now_s=clock)
    await limits.require(USE)
    assert books.asked == 0, "whoever was never refused costs nothing"
    refusal = await limits.passed("spend_per_day", USE)
    assert (refusal.retry_after_s, refusal.facts["used"], books.asked) == (12 * 3600, "3", 1)
    with pytest.raises(LimitReached):
        await limits.require(USE)
    assert books.asked == 1
    clock.now_s += REFUSAL_REMEMBERED_S
    with pytest.raises(LimitReached):
        await limits.require(USE)
    assert books.asked == 2
    books.set(spend_per_day=(Decimal(8), Decimal(3)))
    clock.now_s += REFUSAL_REMEMBERED_S
    await limits.require(USE)
    await limits.require(USE)
    assert books.asked == 3


async def test_the_second_counts_from_before_the_books_were_read_however_long_that_took() -> None:
    clock = Clock()
    books = SlowBooks(clock, calls_per_day=(3, 3))
    limits = UsageLimits(books, now_s=clock)
    await limits.passed("calls_per_day", USE)
    with pytest.raises(LimitReached):
        await limits.require(USE)
    assert books.asked == 2, "what was read a second ago is read again"
    books.set(calls_per_day=(4, 3))
    await limits.require(USE)


@pytest.mark.parametrize(
    ("limit", "smaller"),
    [
        ("spend_per_day", USE._replace(charge=Decimal(4))),
        ("key_spend_per_month", USE._replace(charge=Decimal(4))),
        ("ev_open", USE._replace(ev_wei=499)),
        ("key_ev_open", USE._replace(ev_wei=499)),
        ("sessions_open", USE._replace(is_new_session=False)),
        ("key_sessions_open", USE._replace(is_new_session=False)),
        ("sessions_open_per_orchestrator", USE._replace(orchestrator=b"\x12" * 20)),
        ("calls_per_day", USE._replace(key_id=uuid7())),
    ],
)
async def test_memory_refuses_only_what_would_use_as_much(limit: str, smaller: Use) -> None:
    limits = UsageLimits(Books(**{limit: (0, 0)}))
    await limits.passed(limit, USE)
    await limits.require(smaller)
    with pytest.raises(LimitReached):
        await limits.require(USE._replace(charge=Decimal(9), ev_wei=900))


async def test_a_limit_lifted_since_it_refused_is_not_remembered_and_trying_again_at_once_is_right() -> None:
    limits = UsageLimits(Books(calls_per_day=(None, 3)))
    refusal = await limits.passed("calls_per_day", USE)
    assert (refusal.retry_after_s, refusal.facts["allowed"]) == (1, "unlimited")
    await limits.require(USE)


def test_of_several_limits_the_first_in_the_published_order_is_named() -> None:
    none_left = Usage(NOON, NOON.date(), "USD", dict.fromkeys(Limit, Allowance(0, 0)))
    assert first_passed(none_left, USE) is Limit.CALLS_PER_DAY
    assert first_passed(none_left._replace(allowances=dict.fromkeys(Limit, Allowance(None, 0))), USE) is None
