from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from clearinghouse.errors import InvalidRequest
from clearinghouse.instants import parse_rfc3339, parse_span, rfc3339


def test_instants_are_shown_in_utc_with_six_decimals() -> None:
    berlin = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2026, 4, 7, 22, 0, 0, 5, berlin)) == "2026-04-07T20:00:00.000005Z"
    assert rfc3339(datetime(2026, 4, 7, 20, tzinfo=UTC)) == "2026-04-07T20:00:00.000000Z"


def test_an_instant_without_a_zone_is_not_shown() -> None:
    with pytest.raises(ValueError, match="time zone"):
        rfc3339(datetime(2026, 4, 7))  # noqa: DTZ001


@pytest.mark.parametrize("text", ["2026-04-07T20:00:00Z", "2026-04-07t20:00:00.000z", "2026-04-07T22:00:00+02:00"])
def test_any_offset_is_read(text: str) -> None:
    assert parse_rfc3339(text) == datetime(2026, 4, 7, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "2026-04-07", "2026-04-07T20:00:00", "tomorrow", "2026-13-07T20:00:00Z", "0001-01-01T00:00:00+12:00"]
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_rfc3339(text)


def test_spans_are_a_number_and_a_unit() -> None:
    assert parse_span("90s") == timedelta(seconds=90)
    assert parse_span("30d") == timedelta(days=30)
    assert parse_span("2w") == timedelta(weeks=2)
    for text in ("", "30", "d", "-1d", "0d", "1.5h", "1y", "999999w"):
        with pytest.raises(InvalidRequest):
            parse_span(text)
