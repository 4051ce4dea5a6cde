"""Points in time and spans of time, as people and JSON write them: RFC 3339 in UTC, and `30d`, `12h`, `90m`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from clearinghouse.errors import InvalidRequest

_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)  # fmt: skip
_SPAN: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN_MAX: Final = timedelta(days=36_525)  # a century: beyond it dates may leave the calendar


def rfc3339(instant: datetime) -> str:
    """`2026-04-07T20:00:00.123456Z`: UTC, always six decimals, so that strings sort as the instants do."""
    if instant.tzinfo is None:
        raise ValueError("an instant without a time zone is not an instant")
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> datetime:
    """The reverse, for any offset. InvalidRequest where the zone is missing: local time would be a guess."""
    if _RFC_3339.fullmatch(text) is None:
        raise InvalidRequest(f"a time is written 2026-04-07T20:00:00Z, with its zone, not {text[:64]!r}")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{text} is not in the calendar") from error


def parse_span(text: str) -> timedelta:
    """`90s`, `30m`, `12h`, `30d`, `2w`: more than nothing, at most a century. InvalidRequest otherwise."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"a span of time is written 90s, 30m, 12h, 30d or 2w, not {text[:64]!r}")
    span = timedelta(seconds=int(found[1]) * _UNIT_S[found[2]])
    if not timedelta(0) < span <= _SPAN_MAX:
        raise InvalidRequest(f"{text} must be more than nothing and at most 100 years")
    return span
