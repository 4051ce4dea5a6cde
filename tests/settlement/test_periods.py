"""Periods follow on each other to the microsecond, whatever a customer and the clocks of its zone do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.errors import InvalidRequest
from settlement.cadence import parse_cadence
from settlement.periods import Change, Period, Terms, Timeline, Way
from settlement.time_zones import local_day
from tests.settlement.billing import TERMS, chain, timelines

MOMENT = timedelta(microseconds=1)
AHEAD = st.timedeltas(timedelta(0), timedelta(days=900))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def terms(cadence: str, zone: str = "UTC", way: Way = Way.POSTPAID) -> Terms:
    return Terms(parse_cadence(cadence), zone, way)


def shown(periods: list[Period]) -> list[str]:
    return [f"{period.id} {period.begin:%d %H:%M} {period.end:%d %H:%M}" for period in periods]


@given(timeline=timelines(), ahead=AHEAD)
def test_nothing_lies_between_two_periods_and_nothing_in_both(timeline: Timeline, ahead: timedelta) -> None:
    periods = chain(timeline, timeline.opened_at + ahead)
    assert periods[0].begin == timeline.opened_at
    assert all(earlier.end == later.begin for earlier, later in pairwise(periods))
    assert all(earlier.next_day == later.first_day for earlier, later in pairwise(periods))
    assert all(period.end - period.begin >= timedelta(hours=22) for period in periods)
    assert sorted({period.id for period in periods}) == [period.id for period in periods]


@given(timeline=timelines(), ahead=AHEAD)
def test_an_instant_is_in_the_period_that_going_from_one_to_the_next_leads_to(
    timeline: Timeline, ahead: timedelta
) -> None:
    periods = chain(timeline, timeline.opened_at + ahead)
    assert timeline.period_at(timeline.opened_at + ahead) == periods[-1]
    for period in periods:
        assert timeline.period_at(period.begin) == period
        assert timeline.period_at(period.end - MOMENT) == period
        assert period.begin in period
        assert period.end - MOMENT in period
        assert period.end not in period


@given(timeline=timelines(), ahead=AHEAD, new=TERMS)
def test_a_change_leaves_everything_until_the_end_of_the_period_it_is_made_in(
    timeline: Timeline, ahead: timedelta, new: Terms
) -> None:
    now = timeline.opened_at + ahead
    before = chain(timeline, now)
    changed = timeline.changed(new, now=now)
    after = chain(changed, before[-1].end)
    assert after[: len(before)] == before
    assert after[len(before)].terms == new
    assert all(period.terms == new for period in chain(changed, now + timedelta(days=400))[len(before) :])


@given(timeline=timelines(), ahead=AHEAD, first=TERMS, second=TERMS)
def test_of_two_changes_in_one_period_the_later_counts_and_the_old_terms_take_both_back(
    timeline: Timeline, ahead: timedelta, first: Terms, second: Terms
) -> None:
    now = timeline.opened_at + ahead
    assert timeline.changed(first, now=now).changed(second, now=now) == timeline.changed(second, now=now)
    held = timeline.period_at(now).terms
    unchanged = timeline.changed(first, now=now).changed(held, now=now)
    assert all(change.day <= timeline.period_at(now).first_day for change in unchanged.changes)


@given(timeline=timelines(), looks=st.lists(st.timedeltas(timedelta(0), timedelta(days=90)), max_size=12))
def test_however_often_it_is_asked_each_period_is_closed_once_and_none_is_left_out(
    timeline: Timeline, looks: list[timedelta]
) -> None:
    dealt_with: list[Period] = []
    now = timeline.opened_at
    for wait in looks:
        now += wait
        dealt_with += timeline.closed(last=dealt_with[-1] if dealt_with else None, final=now)
    assert dealt_with == chain(timeline, now)[:-1]


def test_an_anchor_on_the_thirty_first_takes_the_last_day_and_comes_back() -> None:
    timeline = Timeline(at("2023-12-31T00:00Z"), terms("monthly:31"))
    assert [period.id for period in chain(timeline, at("2024-06-01T00:00Z"))] == [
        "2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31"]  # fmt: skip


def test_months_are_those_of_the_customer_and_hours_are_lost_and_found() -> None:
    timeline = Timeline(at("2026-03-01T00:00+01:00"), terms("monthly", "Europe/Berlin"))
    march, april, *_, october, november = chain(timeline, at("2026-11-15T00:00Z"))
    assert shown([march, april, october, november]) == [
        "2026-03-01 28 23:00 31 22:00", "2026-04-01 31 22:00 30 22:00",
        "2026-10-01 30 22:00 31 23:00", "2026-11-01 31 23:00 30 23:00",
    ]  # fmt: skip
    assert march.end - march.begin == timedelta(days=31, hours=-1)
    assert october.end - october.begin == timedelta(days=31, hours=1)
    assert october.last_day == date(2026, 10, 31)


def test_the_last_microsecond_of_a_month_is_not_in_the_next() -> None:
    timeline = Timeline(at("2026-01-01T00:00Z"), terms("monthly", "America/New_York"))
    assert timeline.period_at(at("2026-11-01T03:59:59.999999Z")).id == "2026-10-01"
    assert timeline.period_at(at("2026-11-01T04:00Z")).id == "2026-11-01"


def test_the_hour_that_comes_twice_after_midnight_is_wholly_in_the_new_period() -> None:
    """St. John's, 2010: at 00:01 of the 7th clocks went back to 23:01 of the 6th."""
    timeline = Timeline(at("2010-10-01T00:00Z"), terms("weekly:sun", "America/St_Johns"))
    again_the_sixth = at("2010-11-07T02:45Z")
    assert local_day(again_the_sixth, "America/St_Johns") == date(2010, 11, 6)
    assert timeline.period_at(again_the_sixth).id == "2010-11-07"


def test_another_zone_makes_one_period_longer_or_shorter_and_no_small_one() -> None:
    timeline = Timeline(at("2026-09-01T00:00+02:00"), terms("monthly", "Europe/Berlin"))
    west = timeline.changed(terms("monthly", "America/Los_Angeles"), now=at("2026-10-10T00:00Z"))
    assert shown(chain(west, at("2026-12-15T00:00Z"))[1:]) == [
        "2026-10-01 30 22:00 31 23:00", "2026-11-01 31 23:00 01 08:00", "2026-12-01 01 08:00 01 08:00"]  # fmt: skip
    east = timeline.changed(terms("monthly", "Pacific/Kiritimati"), now=at("2026-10-10T00:00Z"))
    assert shown(chain(east, at("2026-12-15T00:00Z"))[1:]) == [
        "2026-10-01 30 22:00 31 23:00", "2026-11-01 31 23:00 30 10:00", "2026-12-01 30 10:00 31 10:00"]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "ids"),
    [
        ("monthly", "monthly:15", ["2026-10-01", "2026-11-01", "2026-11-15", "2026-12-15"]),  # 14 days by themselves
        ("monthly", "monthly:6", ["2026-10-01", "2026-11-01", "2026-12-06", "2027-01-06"]),  # 5 go with what follows
        ("monthly", "weekly", ["2026-10-01", "2026-11-01", "2026-11-09", "2026-11-16"]),  # a Sunday, and a week
        ("weekly:sun", "monthly", ["2026-10-18", "2026-10-25", "2026-11-01", "2026-12-01"]),  # 7 days by themselves
        ("weekly:mon", "monthly", ["2026-10-19", "2026-10-26", "2026-12-01", "2027-01-01"]),
        ("weekly:wed", "weekly:thu", ["2026-10-14", "2026-10-21", "2026-10-29", "2026-11-05"]),
        ("weekly:wed", "weekly:fri", ["2026-10-14", "2026-10-21", "2026-10-23", "2026-10-30"]),
    ],
)
def test_what_is_left_over_by_a_change_is_billed_with_what_follows_where_it_is_short(
    old: str, new: str, ids: list[str]
) -> None:
    now = at("2026-10-20T00:00Z")
    changed = Timeline(at("2026-01-01T00:00Z"), terms(old)).changed(terms(new), now=now)
    periods = [period for period in chain(changed, at("2027-01-31T00:00Z")) if period.end > now]
    assert [period.id for period in periods][:4] == ids
    assert [str(period.terms.cadence) for period in periods][:2] == list(map(str, map(parse_cadence, (old, new))))


def test_one_who_comes_near_the_end_of_a_month_gets_no_bill_for_three_days() -> None:
    assert Timeline(at("2026-11-27T13:00Z"), terms("monthly")).first().next_day == date(2027, 1, 1)
    assert Timeline(at("2026-11-24T13:00Z"), terms("monthly")).first().next_day == date(2026, 12, 1)


def test_the_way_changes_and_the_periods_stay() -> None:
    timeline = Timeline(at("2026-01-15T12:00Z"), terms("monthly:15"))
    changed = timeline.changed(terms("monthly:15", way=Way.PREPAID), now=at("2026-03-20T00:00Z"))
    before, after = (chain(line, at("2027-01-01T00:00Z")) for line in (timeline, changed))
    assert [(p.begin, p.end) for p in before] == [(p.begin, p.end) for p in after]
    assert [p.id for p in after if p.terms.way is Way.POSTPAID] == ["2026-01-15", "2026-02-15", "2026-03-15"]


def test_new_rules_for_a_zone_leave_no_gap_after_what_was_already_billed() -> None:
    """The period was stored an hour longer than it would be reckoned today; its name is the same."""
    timeline = Timeline(at("2026-01-01T00:00Z"), terms("monthly"))
    march = timeline.period_at(at("2026-03-10T00:00Z"))
    stored = replace(march, end=march.end + timedelta(hours=1))
    april = timeline.after(stored)
    assert (april.begin, april.id) == (stored.end, "2026-04-01")
    assert april.end == at("2026-05-01T00:00Z")


def test_a_period_is_closed_at_its_end_and_not_a_microsecond_before() -> None:
    timeline = Timeline(at("2026-10-01T00:00Z"), terms("monthly"))
    assert list(timeline.closed(last=None, final=at("2026-10-31T23:59:59.999999Z"))) == []
    assert list(timeline.closed(last=None, final=at("2026-11-01T00:00Z"))) == [timeline.first()]


def test_instants_are_compared_as_instants_in_whatever_zone_they_come() -> None:
    """02:30 comes twice in Berlin on 25 October 2026; two of one zone would be compared by their clocks."""
    berlin = ZoneInfo("Europe/Berlin")
    second = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=berlin)
    period = Period(date(2026, 10, 1), date(2026, 10, 25), at("2026-10-01T00:00Z"), second, terms("monthly"))
    assert period.end == at("2026-10-25T01:30Z")
    assert datetime(2026, 10, 25, 2, 45, tzinfo=berlin) in period, "the first 02:45, 45 minutes before"
    timeline = Timeline(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=berlin), terms("weekly"))
    assert timeline.opened_at.tzinfo is UTC
    with pytest.raises(ValueError, match="before the customer"):
        timeline.period_at(datetime(2026, 10, 25, 2, 45, tzinfo=berlin))


@pytest.mark.parametrize("day", ["2026-02-02", "2026-01-01", "2025-12-01"])
def test_terms_change_on_a_boundary_only(day: str) -> None:
    with pytest.raises(ValueError, match="no boundary"):
        Timeline(at("2026-01-01T00:00Z"), terms("monthly"), (Change(date.fromisoformat(day), terms("weekly")),))


def test_two_changes_do_not_follow_on_each_other_within_a_period() -> None:
    first = Change(date(2026, 2, 1), terms("weekly:sun"))
    with pytest.raises(ValueError, match="no boundary"):
        Timeline(at("2026-01-01T00:00Z"), terms("monthly"), (first, Change(date(2026, 2, 1), terms("monthly"))))


def test_a_zone_that_does_not_exist_is_refused_when_it_is_agreed_on() -> None:
    with pytest.raises(InvalidRequest, match="IANA"):
        terms("monthly", "Mars/Olympus")


@pytest.mark.parametrize(
    "instant", [at("2026-01-01T00:00Z").replace(tzinfo=None), at("1999-12-31T23:59Z"), at("3000-01-01T00:00Z")]
)
def test_what_is_no_instant_of_ours_is_an_error(instant: datetime) -> None:
    with pytest.raises(ValueError, match="no instant"):
        Timeline(instant, terms("monthly"))


def test_a_period_does_not_end_before_it_begins() -> None:
    with pytest.raises(ValueError, match="ends before"):
        Period(date(2026, 1, 1), date(2026, 2, 1), at("2026-02-01T00:00Z"), at("2026-02-01T00:00Z"), terms("monthly"))
