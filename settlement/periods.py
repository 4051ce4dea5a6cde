"""Billing periods: which there are for a customer, which one an instant belongs to, and which are closed.

    opened_at ──────┬────────────┬──────── … ────────┬──────────────┬──▶
         [ first    )[ period    )                    [ other terms  )
                     day          day                 day of a change: a boundary of the terms before it

Periods are half-open, [begin, end), in UTC. They are made of days: boundaries are dates of the customer's calendar, and
only then instants. So a period keeps its name whatever becomes of the rules of its time zone, and nothing lies between
two of them, nor in both: the end of one is the begin of the next, by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from settlement.cadence import Cadence
from settlement.time_zones import day_begins_at, local_day, time_zone

_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)  # past it the calendar itself may end


class Way(StrEnum):
    """How a gateway pays. The names are part of the API."""

    PREPAID = "prepaid"
    AUTOMATIC = "automatic"  # prepaid, topped up by itself
    POSTPAID = "postpaid"
    SUBSCRIPTION = "subscription"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Terms:
    """What changes at a boundary only. `zone` has an IANA name; InvalidRequest for another."""

    cadence: Cadence
    zone: str
    way: Way

    def __post_init__(self) -> None:
        time_zone(self.zone)


@dataclass(frozen=True, slots=True)
class Period:
    """[begin, end), in UTC. `first_day` and `next_day` are dates by the customer's clocks: this one's, the next one's.

    Both ends are stored with whatever is issued for it. ValueError where it is empty.
    """

    first_day: date
    next_day: date
    begin: datetime
    end: datetime
    terms: Terms

    def __post_init__(self) -> None:
        object.__setattr__(self, "begin", _instant(self.begin))
        object.__setattr__(self, "end", _instant(self.end))
        if not (self.first_day < self.next_day and self.begin < self.end):
            raise ValueError(f"period {self.id} ends before it begins: {self.begin} to {self.end}")

    @property
    def id(self) -> str:
        """`2026-11-01`. No two periods of a customer have the same, and none is ever called otherwise."""
        return self.first_day.isoformat()

    @property
    def last_day(self) -> date:
        """The day to print: from `first_day` to `last_day`, both included."""
        return self.next_day - timedelta(days=1)

    def __contains__(self, instant: datetime) -> bool:
        """Whether what happened then belongs here."""
        return self.begin <= instant < self.end

    def is_closed(self, final: datetime) -> bool:
        """Whether nothing in it can change any more: what comes later than `final` is not there yet."""
        return self.end <= final


class Change(NamedTuple):
    """From the boundary `day`, a date by the clocks of the terms before, `terms` hold."""

    day: date
    terms: Terms


class _Stretch(NamedTuple):
    """From `begin`, known as `day`, the same terms hold."""

    day: date
    begin: datetime
    terms: Terms

    @property
    def first_end(self) -> date:
        """Where the first period ends, which began where it had to: from there on they are as long as they should."""
        return self.terms.cadence.next_from(self.day)


@dataclass(frozen=True, slots=True)
class Timeline:
    """All periods of a customer, from when it was opened. ValueError for a change that is not on a boundary."""

    opened_at: datetime
    terms: Terms
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "opened_at", _instant(self.opened_at))
        day, terms = self._first_day, self.terms
        for change in self.changes:
            if not terms.cadence.is_boundary(change.day) or change.day < terms.cadence.next_from(day):
                raise ValueError(f"terms change on {change.day}, which is no boundary of {terms.cadence} from {day}")
            day, terms = change

    def period_at(self, instant: datetime) -> Period:
        """The one that `instant` is in, reckoned from the calendar. ValueError before the customer was opened."""
        instant = _instant(instant)
        if instant < self.opened_at:
            raise ValueError(f"{instant} is before the customer was opened, {self.opened_at}")
        stretch = self._stretch_at(instant)
        cadence, zone = stretch.terms.cadence, stretch.terms.zone
        if instant < day_begins_at(stretch.first_end, zone):
            return _period(stretch.day, stretch.begin, stretch.terms)
        index = cadence.index_of(local_day(instant, zone))
        if day_begins_at(cadence.boundary(index + 1), zone) <= instant:
            index += 1  # clocks were put back over midnight: that day had already begun
        return _period(cadence.boundary(index), day_begins_at(cadence.boundary(index), zone), stretch.terms)

    def first(self) -> Period:
        """The one that begins when the customer was opened."""
        return _period(self._first_day, self.opened_at, self.terms)

    def after(self, period: Period) -> Period:
        """The one that begins where `period` ended, as it was stored: also where the rules of its zone changed since.

        So no issuance is billed twice or never, whatever governments announce, and when.
        """
        return _period(period.next_day, period.end, self.terms_on(period.next_day))

    def terms_on(self, first_day: date) -> Terms:
        """Those of the period that is called so."""
        return next((change.terms for change in reversed(self.changes) if change.day <= first_day), self.terms)

    def changed(self, terms: Terms, *, now: datetime) -> Timeline:
        """With other terms from the end of the period that `now` is in. What was to change later than now, does not.

        Nothing before that end is touched, and terms that hold already take back what was to come.
        """
        period = self.period_at(now)
        begun = tuple(change for change in self.changes if change.day <= period.first_day)
        to_come = () if terms == period.terms else (Change(period.next_day, terms),)
        return replace(self, changes=begun + to_come)

    def closed(self, *, last: Period | None, final: datetime) -> Iterator[Period]:
        """Those after `last`, the newest that was dealt with, in which nothing can change any more; oldest first.

        However late the question is asked, each is given once between two answers.
        """
        period = self.first() if last is None else self.after(last)
        while period.is_closed(final):
            yield period
            period = self.after(period)

    @property
    def _first_day(self) -> date:
        return local_day(self.opened_at, self.terms.zone)

    def _stretch_at(self, instant: datetime) -> _Stretch:
        found = _Stretch(self._first_day, self.opened_at, self.terms)
        for change in self.changes:
            begin = day_begins_at(change.day, found.terms.zone)
            if instant < begin:
                break
            found = _Stretch(change.day, begin, change.terms)
        return found


def _period(first_day: date, begin: datetime, terms: Terms) -> Period:
    next_day = terms.cadence.next_from(first_day)
    return Period(first_day, next_day, begin, day_begins_at(next_day, terms.zone), terms)


def _instant(instant: datetime) -> datetime:
    """In UTC: instants of one zone are compared by its clocks, and those show an hour twice a year two times."""
    if instant.tzinfo is None or not _EARLIEST <= instant < _LATEST:
        raise ValueError(f"{instant} is no instant between the years 2000 and 3000")
    return instant.astimezone(UTC)
