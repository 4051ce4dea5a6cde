"""Which period a report is over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from clearinghouse.errors import InvalidRequest
from settlement.reconciliation.months import chosen

NOW = datetime(2026, 3, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "begins_at", "ends_at"),
    [
        ((None, None, None), "2026-02-01T00:00", "2026-03-01T00:00"),
        (("2025-12", None, None), "2025-12-01T00:00", "2026-01-01T00:00"),
        ((None, "2026-02-03", "2026-02-28"), "2026-02-03T00:00", "2026-03-01T00:00"),
        ((None, "2026-02-03T01:00:00+01:00", "2026-02-03T12:00:00Z"), "2026-02-03T00:00", "2026-02-03T12:00"),
    ],
)
def test_a_day_is_a_whole_one_and_nothing_is_the_last_month(
    given: tuple[str | None, str | None, str | None], begins_at: str, ends_at: str
) -> None:
    period = chosen(*given, now=NOW)
    assert [f"{at:%Y-%m-%dT%H:%M}" for at in period] == [begins_at, ends_at]


@pytest.mark.parametrize(
    "given",
    [
        ("2026-13", None, None), ("0000-01", None, None), ("2026-04", None, None),
        ("2026-02", "2026-02-03", "2026-02-04"), (None, "2026-02-03", None), (None, "2026-02-04", "2026-02-02"),
        (None, "2026-02-30", "2026-03-01"), (None, "2026-02-03", "9999-12-31"),
    ],
)  # fmt: skip
def test_what_is_no_period_is_refused(given: tuple[str | None, str | None, str | None]) -> None:
    with pytest.raises(InvalidRequest):
        chosen(*given, now=NOW)
