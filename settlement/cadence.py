"""How often a period ends, in days of the calendar: no clocks and no time zones here.

    weekly:mon … weekly:sun      a boundary on that day of every week
    monthly:1 … monthly:31       one on that day of every month, or on its last where it has fewer

A boundary is reckoned from the anchor and never from the one before, so that 31 January, 28 February is followed by
31 March.
"""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

from clearinghouse.errors import InvalidRequest

_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Every(StrEnum):
    """The lengths there are."""

    WEEK = "weekly"
    MONTH = "monthly"


#: The largest anchor: Sunday, and the last day of the longest month.
_ANCHOR_MAX: Final = {Every.WEEK: 7, Every.MONTH: 31}
#: What is left over where periods begin or change, and is shorter than this, is billed together with what follows: a
#: quarter of a period. At least two days, so that two time zones, 26 h apart at most, cannot make it vanish.
_SHORTEST_DAYS: Final = {Every.WEEK: 2, Every.MONTH: 7}


@dataclass(frozen=True, slots=True)
class Cadence:
    """`anchor` is a day of the week, 1 for Monday, or of the month. ValueError where there is no such day."""

    every: Every
    anchor: int

    def __post_init__(self) -> None:
        if type(self.anchor) is not int or not 1 <= self.anchor <= _ANCHOR_MAX[self.every]:
            raise ValueError(f"{self.every} periods are anchored on a day from 1 to {_ANCHOR_MAX[self.every]}")

    def __str__(self) -> str:
        """As `parse_cadence` reads it."""
        return f"{self.every}:{_WEEKDAYS[self.anchor - 1] if self.every is Every.WEEK else self.anchor}"

    def index_of(self, day: date) -> int:
        """The number of the last boundary that is not after `day`. Boundaries are numbered without a gap."""
        if self.every is Every.WEEK:
            return (day.toordinal() - self.anchor) // 7  # ordinal 1, 1 January of the year 1, is a Monday
        index = day.year * 12 + day.month - 1
        return index if self.boundary(index) <= day else index - 1

    def boundary(self, index: int) -> date:
        """The reverse. ValueError outside of the calendar."""
        if self.every is Every.WEEK:
            return date.fromordinal(index * 7 + self.anchor)
        year, month = index // 12, index % 12 + 1
        return date(year, month, min(self.anchor, monthrange(year, month)[1]))

    def is_boundary(self, day: date) -> bool:
        """Whether a period of this cadence can begin on `day`."""
        return self.boundary(self.index_of(day)) == day

    def next_from(self, day: date) -> date:
        """Where a period that begins on `day`, which need not be a boundary, ends: on a boundary, not too near."""
        return self.boundary(self.index_of(day + timedelta(days=_SHORTEST_DAYS[self.every] - 1)) + 1)


def parse_cadence(text: str) -> Cadence:
    """`weekly:thu`, `monthly:15`; `weekly` is from Monday, `monthly` from the first. InvalidRequest otherwise."""
    every, colon, anchor = text.partition(":")
    if every == Every.WEEK and (not colon or anchor in _WEEKDAYS):
        return Cadence(Every.WEEK, _WEEKDAYS.index(anchor) + 1 if colon else 1)
    if every == Every.MONTH and (not colon or anchor in _DAYS_OF_MONTH):
        return Cadence(Every.MONTH, int(anchor) if colon else 1)
    raise InvalidRequest(
        f"a period is weekly, weekly:mon to weekly:sun, monthly, or monthly:1 to monthly:31, not {text[:64]!r}"
    )


_DAYS_OF_MONTH: Final = frozenset(map(str, range(1, _ANCHOR_MAX[Every.MONTH] + 1)))
