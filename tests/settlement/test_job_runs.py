"""When a job is due, and when it is late: pure functions of times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.job_runs import Outcome, Run, Times, late

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DAILY = Times(86_400, 3 * 3600)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def run(due_at: datetime, *, ended: bool = True, started_at: datetime | None = None) -> Run:
    begun = started_at or due_at
    end = begun + timedelta(seconds=1) if ended else None
    return Run(1, "job", due_at, begun, end, Outcome.OK if ended else None, None, None, None, "host:1", by_hand=False)


def test_a_daily_job_with_an_offset_is_due_at_that_time_of_the_day() -> None:
    assert DAILY.due_at(NOON) == datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
    assert DAILY.next_at(NOON) == datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
    assert DAILY.due_at(datetime(2026, 11, 21, 3, 0, tzinfo=UTC)) == datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
    assert DAILY.due_at(datetime(2026, 11, 21, 2, 59, 59, tzinfo=UTC)) == datetime(2026, 11, 20, 3, 0, tzinfo=UTC)


@given(now=instants, every_s=st.integers(1, 10**7), share=st.integers(0, 10**7))
def test_whoever_asks_and_whenever_the_times_are_the_same(now: datetime, every_s: int, share: int) -> None:
    times = Times(every_s, share % every_s)
    due_at, next_at = times.due_at(now), times.next_at(now)
    assert due_at <= now < next_at == due_at + timedelta(seconds=every_s)
    assert times.due_at(due_at) == times.due_at(next_at - timedelta(microseconds=1)) == due_at
    assert times.next_at(due_at) == next_at
    assert (due_at.timestamp() - times.offset_s) % every_s == 0


@pytest.mark.parametrize(
    ("times", "after_s"),
    [(Times(15), 15 + 15 + 60), (Times(300), 300 + 300 + 60), (Times(3600), 3600 + 660), (DAILY, 86_400 + 660)],
)
def test_a_job_that_does_not_begin_is_late_soon_after_it_was_due_however_rare_it_is(times: Times, after_s: int) -> None:
    due_at = times.due_at(NOON)
    last = run(due_at)
    assert late(times, due_at, last, due_at + timedelta(seconds=after_s)) is None
    said = late(times, due_at, last, due_at + timedelta(seconds=after_s + 1))
    assert said is not None
    assert said.startswith("was due at ")


def test_a_job_that_never_ran_is_late_only_from_when_it_was_registered() -> None:
    assert late(DAILY, NOON, None, NOON + timedelta(hours=15)) is None
    assert late(DAILY, NOON, None, NOON + timedelta(hours=15, minutes=12)) == "was due at 2026-11-22T03:00:00.000000Z"


def test_a_long_run_is_not_late_until_the_next_is_due_and_one_that_does_not_end_is() -> None:
    verify = run(DAILY.due_at(NOON), ended=False)
    assert late(DAILY, NOON, verify, verify.started_at + timedelta(hours=23)) is None
    assert late(DAILY, NOON, verify, verify.started_at + timedelta(hours=25)) == (
        "has been running since 2026-11-21T03:00:00.000000Z"
    )
    quick = run(NOON, ended=False)
    assert late(Times(15), NOON, quick, NOON + timedelta(minutes=10)) is None
    assert late(Times(15), NOON, quick, NOON + timedelta(minutes=12)) is not None


def test_a_run_for_a_time_that_is_yet_to_come_is_told_of() -> None:
    ahead = run(NOON + timedelta(days=365))
    assert late(DAILY, NOON, ahead, NOON) == (
        "last ran for 2027-11-21T12:00:00.000000Z, which is yet to come: a clock is wrong"
    )
    assert late(Times(60), NOON, run(NOON + timedelta(minutes=1)), NOON) is None


def test_after_a_long_downtime_a_job_is_late_at_once() -> None:
    assert late(Times(60), NOON - timedelta(days=9), run(NOON - timedelta(days=2)), NOON) is not None
