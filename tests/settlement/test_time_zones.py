"""Days begin when the clocks of a zone say so, by rules that are the same in every process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.errors import InvalidRequest
from settlement.time_zones import day_begins_at, local_day, time_zone, time_zone_names
from tests.settlement.billing import DAYS, ZONES

MOMENT = timedelta(microseconds=1)


@given(day=st.one_of(DAYS, st.dates(date(2009, 1, 1), date(2013, 1, 1))), zone=st.sampled_from(ZONES))
def test_a_day_begins_at_the_first_microsecond_that_bears_its_date(day: date, zone: str) -> None:
    begins_at = day_begins_at(day, zone)
    assert begins_at.tzinfo is UTC
    assert local_day(begins_at - MOMENT, zone) < day <= local_day(begins_at, zone)


@given(day=DAYS, zone=st.sampled_from(sorted(time_zone_names())))
def test_so_it_does_in_every_zone_there_is(day: date, zone: str) -> None:
    begins_at = day_begins_at(day, zone)
    assert local_day(begins_at - MOMENT, zone) < day <= local_day(begins_at, zone)


@pytest.mark.parametrize(
    ("day", "zone", "begins_at"),
    [
        ("2026-11-01", "UTC", "2026-11-01T00:00Z"),
        ("2026-03-29", "Europe/Berlin", "2026-03-28T23:00Z"),  # that night clocks go forward, after midnight
        ("2026-03-30", "Europe/Berlin", "2026-03-29T22:00Z"),
        ("2024-04-26", "Africa/Cairo", "2024-04-25T22:00Z"),  # no midnight: 23:59:59 is followed by 01:00
        (
            "2024-11-01",
            "Africa/Cairo",
            "2024-10-31T22:00Z",
        ),  # at 24:00 back to 23:00: the day is later
        ("2025-11-02", "America/Havana", "2025-11-02T04:00Z"),  # two midnights, at 00:00 and after 00:59:59: the first
        ("2010-11-07", "America/St_Johns", "2010-11-07T02:30Z"),  # a minute into the day, back to the day before
        ("2011-12-30", "Pacific/Apia", "2011-12-30T10:00Z"),  # left out
        ("2011-12-31", "Pacific/Apia", "2011-12-30T10:00Z"),
        ("2026-07-01", "Asia/Kathmandu", "2026-06-30T18:15Z"),
    ],
)
def test_midnights_that_are_missing_or_come_twice(day: str, zone: str, begins_at: str) -> None:
    assert day_begins_at(date.fromisoformat(day), zone) == datetime.fromisoformat(begins_at)


def test_a_gap_that_opens_before_midnight_ends_the_day_when_it_opens() -> None:
    """Toronto, 1919: at 23:30 clocks were put to 00:30, so the next day began half an hour early."""
    assert day_begins_at(date(1919, 3, 31), "America/Toronto") == datetime(1919, 3, 31, 4, 30, tzinfo=UTC)
    assert local_day(datetime(1919, 3, 31, 4, 29, 59, tzinfo=UTC), "America/Toronto") == date(1919, 3, 30)


@pytest.mark.parametrize("name", ["CEST", "Berlin", "", "/etc/passwd", "../zones", "Factory", "right/UTC", "localtime"])
def test_only_names_of_iana_are_zones(name: str) -> None:
    with pytest.raises(InvalidRequest, match="IANA name"):
        time_zone(name)


def test_a_name_in_other_letters_is_refused_with_the_right_one() -> None:
    with pytest.raises(InvalidRequest, match="did you mean Europe/Berlin"):
        time_zone("europe/berlin")


def test_every_name_can_be_read() -> None:
    assert len(time_zone_names()) > 500
    assert {time_zone(name).key for name in time_zone_names()} == time_zone_names()


def test_the_rules_of_the_system_are_not_asked(tmp_path: Path) -> None:
    """A machine whose Berlin is where Tokyo is, and which believes to be in Tokyo itself."""
    (tmp_path / "Europe").mkdir()
    with resources.as_file(resources.files("tzdata") / "zoneinfo" / "Asia" / "Tokyo") as tokyo:
        shutil.copy(tokyo, tmp_path / "Europe" / "Berlin")
    code = (
        "import datetime, zoneinfo; from settlement.time_zones import day_begins_at\n"
        "print(datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')).utcoffset())\n"
        "print(day_begins_at(datetime.date(2026, 1, 1), 'Europe/Berlin').isoformat())"
    )
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(root), "PYTHONTZPATH": str(tmp_path), "TZ": "Asia/Tokyo"},
    ).stdout.split()  # fmt: skip
    assert answer == ["9:00:00", "2025-12-31T23:00:00+00:00"]
