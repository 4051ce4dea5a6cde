"""Which span of time a statement or an export is over, as people name it.

2026-10       the billing period that begins in that month
2026-10-05    the one that begins on that day
last          the newest that has ended
current       the one that is now
from … to …   days by the gateway's clocks, both included, or instants, of which the second is not
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from clearinghouse.errors import InvalidRequest
from clearinghouse.instants import parse_rfc3339
from settlement.statements.statement import Span
from settlement.time_zones import day_begins_at

if TYPE_CHECKING:
    from settlement.periods import Period, Timeline

LAST: Final = "last"
CURRENT: Final = "current"

_MONTH: Final = re.compile(r"(\d{4})-(\d\d)", re.ASCII)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_YEAR_MIN: Final = 2000
_YEAR_MAX: Final = 2999
#: Clocks of a zone and UTC differ by less.
_DAY_LONG: Final = timedelta(days=1)


class Chosen(NamedTuple):
    """`name` is unique among a gateway's statements: that of its period, or its two ends."""

    name: str
    span: Span


def chosen_period(name: str, timeline: Timeline, *, now: datetime) -> Chosen:
    """Raises InvalidRequest for what is no name of a period, of several, or of one that has not begun."""
    if name == CURRENT:
        return _chosen(timeline.period_at(now))
    if name == LAST:
        return _chosen(_last(timeline, now))
    if _DAY.fullmatch(name):
        found = [period for period in _begun_on(timeline, _day(name), 1, now) if period.id == name]
    elif month := _MONTH.fullmatch(name):
        found = _begun_on(timeline, _day(f"{name}-01"), monthrange(int(month[1]), int(month[2]))[1], now)
    else:
        raise InvalidRequest(f"a period is named 2026-10, 2026-10-05, {LAST} or {CURRENT}, not {name[:64]!r}")
    if len(found) > 1:
        several = ", ".join(period.id for period in found)
        raise InvalidRequest(f"several periods begin in {name}: name one of {several}")
    if not found:
        raise InvalidRequest(f"no period of this gateway begins in {name}: {_nearest(timeline, now)}")
    return _chosen(found[0])


def chosen_span(begin: str, end: str, timeline: Timeline, *, now: datetime) -> Chosen:
    """InvalidRequest for what is neither a day nor an instant, ends before it begins, or has not begun."""
    zone = timeline.period_at(max(now, timeline.opened_at)).terms.zone
    first, last = _instant(begin, zone), _instant(end, zone, days_on=1)
    if first >= last:
        raise InvalidRequest(f"from {begin} to {end} is no time at all: the end comes later")
    if first >= now:
        raise InvalidRequest(f"{begin} has not begun: there is nothing in the books of it")
    return Chosen(f"{begin}-{end}", Span(first, last, zone))


def _chosen(period: Period) -> Chosen:
    return Chosen(period.id, Span(period.begin, period.end, period.terms.zone))


def _last(timeline: Timeline, now: datetime) -> Period:
    current = timeline.period_at(now)
    if current.begin == timeline.opened_at:
        raise InvalidRequest(f"no period has ended yet: the first is {current.id}, until {current.next_day}")
    return timeline.period_at(current.begin - timedelta(microseconds=1))


def _begun_on(timeline: Timeline, first_day: date, days: int, now: datetime) -> list[Period]:
    """All periods that begin on one of these days and have begun."""
    begin = datetime.combine(first_day, datetime.min.time(), UTC) - _DAY_LONG
    last_day = first_day + timedelta(days=days)
    if begin + timedelta(days=days) + 2 * _DAY_LONG < timeline.opened_at:
        return []
    period = timeline.period_at(max(begin, timeline.opened_at))
    found = []
    while period.first_day < last_day and period.begin <= now:
        if period.first_day >= first_day:
            found.append(period)
        period = timeline.after(period)
    return found


def _nearest(timeline: Timeline, now: datetime) -> str:
    current = timeline.period_at(now)
    return f"the current one is {current.id}, until {current.next_day}; the first is {timeline.first().id}"


def _instant(text: str, zone: str, *, days_on: int = 0) -> datetime:
    if _DAY.fullmatch(text):
        return day_begins_at(_day(text) + timedelta(days=days_on), zone)
    instant = parse_rfc3339(text)
    _require_near(instant.year, text)
    return instant


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(f"{text} is not in the calendar") from error
    _require_near(day.year, text)
    return day


def _require_near(year: int, text: str) -> None:
    """Far enough within the calendar that a day more or less is in it, too."""
    if not _YEAR_MIN <= year <= _YEAR_MAX:
        raise InvalidRequest(f"{text} is not between the years {_YEAR_MIN} and {_YEAR_MAX}")
