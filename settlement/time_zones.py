"""Time zones by their IANA names, and the instant at which a day begins in one of them.

The rules come from the package tzdata and never from the system: every process has the ones its lock names, and new
ones arrive when somebody decides so, not in the middle of an invoice run.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

from clearinghouse.errors import InvalidRequest

_SECOND = timedelta(seconds=1)


@cache
def time_zone_names() -> frozenset[str]:
    """All names that can be used, old ones included."""
    names = resources.files("tzdata").joinpath("zones").read_text(encoding="ascii").split()
    return frozenset(names) - {"Factory"}  # that one says that nobody has set the clock


@cache
def time_zone(name: str) -> ZoneInfo:
    """Raises InvalidRequest for a name that IANA does not know: an abbreviation, or one of another spelling."""
    if name not in time_zone_names():
        alike = min((known for known in time_zone_names() if known.lower() == name.lower()), default=None)
        hint = f" (did you mean {alike}?)" if alike else ""
        raise InvalidRequest(f"a time zone has an IANA name, such as Europe/Berlin or UTC, not {name[:64]!r}{hint}")
    *folders, file = name.split("/")
    with resources.files(".".join(["tzdata", "zoneinfo", *folders])).joinpath(file).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


def local_day(instant: datetime, zone: str) -> date:
    """The date that the clocks of the zone show."""
    return instant.astimezone(time_zone(zone)).date()


def day_begins_at(day: date, zone: str) -> datetime:
    """The first instant, in UTC, at which the clocks of the zone show `day` or, where it was left out, a later one.

    That is midnight. Where clocks are put forward over midnight it is when they are; where they are put back over it,
    the first of the two midnights.
    """
    rules = time_zone(zone)
    midnight = datetime.combine(day, time(), rules)  # fold=0: the first of two, or the offset from before a gap
    begins_at = midnight.astimezone(UTC)
    if begins_at.astimezone(rules).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return begins_at
    # There is no midnight. Reckoned with the offset that held before, it is too late; with the one after, too early.
    return _first_of_day(day, rules, midnight.replace(fold=1).astimezone(UTC) - _SECOND, begins_at)


def _first_of_day(day: date, rules: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """By halving: on the day before at `before`, not any more at `after`. Rules change at whole seconds."""
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if middle.astimezone(rules).date() < day:
            before = middle
        else:
            after = middle
    return after
