"""Strategies for what is billed: cadences, zones whose midnights are special, customers that change their terms."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import strategies as st

from settlement.cadence import Cadence, Every
from settlement.periods import Period, Terms, Timeline, Way

#: Clocks put forward at midnight (Cairo, Beirut, Santiago, Asuncion, Sao_Paulo, Havana, Azores), put back to before it
#: (Cairo, Beirut, Santiago, and by a minute past it St_Johns), a day left out (Apia, Tokelau), the earliest and the
#: latest there are, odd offsets, half an hour of summer time, two hours of it.
ZONES = (
    "UTC", "Africa/Cairo", "Asia/Beirut", "America/Santiago", "America/Asuncion", "America/Sao_Paulo", "America/Havana",
    "Atlantic/Azores", "America/St_Johns", "Pacific/Apia", "Pacific/Fakaofo", "Pacific/Kiritimati", "Etc/GMT+12",
    "Asia/Kathmandu", "Australia/Lord_Howe", "Antarctica/Troll", "Africa/Casablanca", "Europe/Berlin",
    "America/New_York", "America/Los_Angeles", "Asia/Tehran", "Europe/Dublin", "Asia/Gaza",
)  # fmt: skip

CADENCES = st.one_of(
    st.builds(Cadence, st.just(Every.WEEK), st.integers(1, 7)),
    st.builds(Cadence, st.just(Every.MONTH), st.one_of(st.integers(1, 31), st.integers(28, 31))),
)
DAYS = st.dates(date(2000, 3, 1), date(2105, 12, 31))
#: Around 2011 two zones left out a day, and in several clocks went back over midnight.
INSTANTS = st.builds(
    datetime.combine,
    st.one_of(st.dates(date(2010, 1, 1), date(2012, 12, 31)), st.dates(date(2000, 6, 1), date(2060, 1, 1))),
    st.times(timezones=st.just(UTC)),
)
TERMS = st.builds(Terms, CADENCES, st.sampled_from(ZONES), st.sampled_from(Way))


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """A customer that changed its terms up to four times, in the middle of periods, at their ends or just before."""
    timeline = Timeline(draw(INSTANTS), draw(TERMS))
    now = timeline.opened_at
    for _ in range(draw(st.integers(0, 4))):
        now += timedelta(days=draw(st.integers(0, 120)), microseconds=draw(st.integers(0, 86_400_000_000)))
        period = timeline.period_at(now)
        now = draw(st.sampled_from([now, period.begin, period.end, period.end - timedelta(microseconds=1)]))
        timeline = timeline.changed(draw(TERMS), now=now)
    return timeline


def chain(timeline: Timeline, until: datetime) -> list[Period]:
    """The obvious way: one period after the other, from the first to the one that `until` is in."""
    periods = [timeline.first()]
    while periods[-1].end <= until:
        periods.append(timeline.after(periods[-1]))
    return periods
