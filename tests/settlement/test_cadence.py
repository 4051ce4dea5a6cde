"""Boundaries as days of the calendar, against a twin that walks through it day by day."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given

from clearinghouse.errors import InvalidRequest
from settlement.cadence import Cadence, Every, parse_cadence
from tests.settlement.billing import CADENCES, DAYS


def is_boundary_by_hand(cadence: Cadence, day: date) -> bool:
    if cadence.every is Every.WEEK:
        return day.isoweekday() == cadence.anchor
    is_last = (day + timedelta(days=1)).day == 1
    return day.day == cadence.anchor or (is_last and day.day < cadence.anchor)


@given(cadence=CADENCES, day=DAYS)
def test_boundaries_are_those_of_the_calendar_on_the_wall(cadence: Cadence, day: date) -> None:
    span = [day + timedelta(days=n) for n in range(-40, 41)]
    by_hand = [d for d in span if is_boundary_by_hand(cadence, d)]
    assert [d for d in span if cadence.is_boundary(d)] == by_hand
    assert cadence.boundary(cadence.index_of(day)) == max(d for d in by_hand if d <= day)
    assert cadence.boundary(cadence.index_of(day) + 1) == min(d for d in by_hand if d > day)


@given(cadence=CADENCES, day=DAYS)
def test_the_period_from_a_boundary_is_whole_and_from_elsewhere_neither_tiny_nor_endless(
    cadence: Cadence, day: date
) -> None:
    shortest, whole = (2, 7) if cadence.every is Every.WEEK else (7, 31)
    end = cadence.next_from(day)
    assert cadence.is_boundary(end)
    assert shortest <= (end - day).days < shortest + whole
    if cadence.is_boundary(day):
        assert cadence.index_of(end) == cadence.index_of(day) + 1
    between = [day + timedelta(days=n) for n in range(shortest, (end - day).days)]
    assert not any(map(cadence.is_boundary, between))


def test_the_thirty_first_comes_back_after_a_shorter_month() -> None:
    cadence = Cadence(Every.MONTH, 31)
    first = cadence.index_of(date(2024, 1, 31))
    assert [cadence.boundary(first + n).isoformat() for n in range(5)] == [
        "2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31"]  # fmt: skip
    assert cadence.boundary(cadence.index_of(date(2100, 3, 1))) == date(2100, 2, 28), "no leap day in 2100"
    assert cadence.boundary(cadence.index_of(date(2000, 3, 1))) == date(2000, 2, 29), "but in 2000"


@given(CADENCES)
def test_what_is_written_is_read_as_the_same(cadence: Cadence) -> None:
    assert parse_cadence(str(cadence)) == cadence


def test_the_short_forms_begin_on_monday_and_on_the_first() -> None:
    assert str(parse_cadence("weekly")) == "weekly:mon"
    assert str(parse_cadence("monthly")) == "monthly:1"
    assert str(parse_cadence("weekly:thu")) == "weekly:thu"


@pytest.mark.parametrize(
    "text", ["", "daily", "weekly:", "weekly:1", "weekly:Thu", "monthly:", "monthly:0", "monthly:32", "monthly:01",
             "monthly:٣", "monthly:1:2", "Monthly", " monthly", "monthly:-1"],
)  # fmt: skip
def test_another_spelling_is_refused_with_those_that_are_read(text: str) -> None:
    with pytest.raises(InvalidRequest, match="weekly:mon to weekly:sun"):
        parse_cadence(text)


@pytest.mark.parametrize(
    ("every", "anchor"), [(Every.WEEK, 0), (Every.WEEK, 8), (Every.MONTH, 32), (Every.MONTH, True)]
)
def test_there_is_no_period_anchored_on_a_day_that_does_not_exist(every: Every, anchor: int) -> None:
    with pytest.raises(ValueError, match="anchored"):
        Cadence(every, anchor)
