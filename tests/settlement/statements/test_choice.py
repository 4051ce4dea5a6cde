"""Which time is meant by a name, and what is said where there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.errors import InvalidRequest
from settlement.cadence import Cadence, Every
from settlement.periods import Terms, Timeline, Way
from settlement.statements.choice import chosen_period, chosen_span
from tests.settlement.billing import chain, timelines

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MONTHLY = Timeline(datetime(2026, 8, 20, 9, tzinfo=UTC), Terms(Cadence(Every.MONTH, 1), "Europe/Berlin", Way.PREPAID))
WEEKLY = Timeline(MONTHLY.opened_at, Terms(Cadence(Every.WEEK, 1), "Europe/Berlin", Way.POSTPAID))


@given(timelines(), st.data())
def test_every_period_that_has_begun_is_found_by_its_name_and_no_other(timeline: Timeline, data: st.DataObject) -> None:
    now = timeline.opened_at + timedelta(days=data.draw(st.integers(0, 400)))
    begun = chain(timeline, now)
    for period in begun:
        found = chosen_period(period.id, timeline, now=now)
        assert (found.name, found.span.begin, found.span.end) == (period.id, period.begin, period.end)
        in_month = [other for other in begun if other.id[:7] == period.id[:7]]
        if len(in_month) == 1:
            assert chosen_period(period.id[:7], timeline, now=now) == found
        else:
            with pytest.raises(InvalidRequest, match="several periods begin in"):
                chosen_period(period.id[:7], timeline, now=now)
    assert chosen_period("current", timeline, now=now).name == begun[-1].id
    if len(begun) > 1:
        assert chosen_period("last", timeline, now=now).name == begun[-2].id
    else:
        with pytest.raises(InvalidRequest, match="no period has ended yet"):
            chosen_period("last", timeline, now=now)


def test_a_month_is_one_of_the_gateways_clocks() -> None:
    october = chosen_period("2026-10", MONTHLY, now=NOW)
    assert october.name == "2026-10-01"
    assert october.span.begin == datetime(2026, 9, 30, 22, tzinfo=UTC)
    assert october.span.end == datetime(2026, 10, 31, 23, tzinfo=UTC), "clocks were put back in between"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("2026-12", "no period of this gateway begins in 2026-12: the current one is 2026-11-01, until 2026-12-01"),
        ("2026-07", "the first is 2026-08-20"),
        ("1999-12-31", "between the years 2000 and 2999"),
        ("2026-10-02", "no period of this gateway begins in 2026-10-02"),
        ("2026-13", "not in the calendar"),
        ("2026-02-30", "not in the calendar"),
        ("2026-00", "not in the calendar"),
        ("October", "a period is named 2026-10, 2026-10-05, last or current"),
        ("", "a period is named"),
    ],
)
def test_what_is_no_period_is_explained(name: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        chosen_period(name, MONTHLY, now=NOW)


def test_of_several_weeks_in_a_month_one_is_to_be_named() -> None:
    with pytest.raises(InvalidRequest, match="name one of 2026-10-05, 2026-10-12, 2026-10-19, 2026-10-26"):
        chosen_period("2026-10", WEEKLY, now=NOW)


def test_days_are_those_of_the_gateways_clocks_and_instants_are_instants() -> None:
    span = chosen_span("2026-10-25", "2026-10-25", MONTHLY, now=NOW).span
    assert span.end - span.begin == timedelta(hours=25)
    by_instants = chosen_span("2026-10-24T22:00:00Z", "2026-10-26T00:00:00+01:00", MONTHLY, now=NOW)
    assert by_instants.span == span


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        ("2026-10-05T12:00:00Z", "2026-10-05T14:00:00+02:00", "no time at all"),
        ("2026-10-06", "2026-10-05", "no time at all"),
        ("2026-10-05", "tomorrow", "a time is written"),
        ("2026-10-05T12:00:00", "2026-10-06", "with its zone"),
        ("2026-12-05", "2026-12-06", "has not begun"),
        ("0001-01-01", "2026-10-06", "years 2000 and 2999"),
        ("2026-10-06", "9999-12-31", "years 2000 and 2999"),
    ],
)
def test_what_is_no_span_is_explained(begin: str, end: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        chosen_span(begin, end, MONTHLY, now=NOW)
