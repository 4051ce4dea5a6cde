"""Which period a report is over: a calendar month by UTC, or a span. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from clearinghouse.errors import InvalidRequest
from clearinghouse.instants import parse_rfc3339
from settlement.reconciliation.report import Period

_MONTH: Final = re.compile(r"(\d{4})-(\d\d)", re.ASCII)
#: Before the first there is no ether; after the last there may be no calendar.
_FIRST_YEAR: Final = 2015
_LAST_YEAR: Final = 2999
_MONTHS: Final = 12
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def chosen(month: str | None, begin: str | None, end: str | None, *, now: datetime) -> Period:
    """The last whole month where nothing is given. InvalidRequest for what is no period, or has not begun by now."""
    if month is not None and (begin is not None or end is not None):
        raise InvalidRequest("give --month, or --from and --to")
    if (begin is None) != (end is None):
        raise InvalidRequest("--from and --to need each other")
    period = _span(begin, end) if begin is not None and end is not None else _month(month, now)
    if period.ends_at <= period.begins_at:
        raise InvalidRequest("a period ends after it begins")
    if period.begins_at >= now:
        raise InvalidRequest("the period has not begun yet")
    return period


def _month(text: str | None, now: datetime) -> Period:
    if text is None:
        ends_at = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return Period((ends_at - timedelta(days=1)).replace(day=1), ends_at)
    found = _MONTH.fullmatch(text)
    year, month = (int(found[1]), int(found[2])) if found is not None else (0, 0)
    if not (_FIRST_YEAR <= year <= _LAST_YEAR and 1 <= month <= _MONTHS):
        raise InvalidRequest(f"a month is written 2026-10, not {text[:64]!r}")
    begins_at = datetime(year, month, 1, tzinfo=UTC)
    return Period(begins_at, (begins_at + timedelta(days=32)).replace(day=1))


def _span(begin: str, end: str) -> Period:
    """A day is meant as a whole, also the last one; an instant is the end itself."""
    return Period(instant(begin, is_end=False), instant(end, is_end=True))


def instant(text: str, *, is_end: bool = False) -> datetime:
    """A day by UTC, where it begins or, `is_end`, where it ends; or an instant. InvalidRequest otherwise."""
    if _DAY.fullmatch(text) is None:
        return parse_rfc3339(text)
    try:
        day = date.fromisoformat(text) + timedelta(days=1 if is_end else 0)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{text} is not in the calendar") from None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
