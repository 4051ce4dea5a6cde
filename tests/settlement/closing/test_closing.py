"""The job: everything that is over is closed, once, with the sums that a plain list of the entries makes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.ledger.money import EXACT
from settlement.cadence import Cadence, Every
from settlement.closing.books import PeriodBooks, closed_period, closed_periods, preview
from settlement.closing.close import PeriodsDiffer, PeriodsUnreadable, SilentClosingObserver, close_due
from settlement.periods import Period, Terms, Timeline, Way
from settlement.schedule import Tick
from settlement.time_zones import day_begins_at
from tests.settlement.billing import TERMS, chain
from tests.settlement.closing.books import NOVEMBER, NOW, OCTOBER, US, Books

SEPTEMBER = datetime(2025, 9, 1, tzinfo=UTC)
BERLIN = Terms(Cadence(Every.MONTH, 31), "Europe/Berlin", Way.POSTPAID)
SILENT = SilentClosingObserver()


async def closed_by(worker: AsyncEngine, *, now: datetime = NOW) -> str:
    return await close_due(Tick(worker, now), SILENT)


async def periods_of(worker: AsyncEngine, gateway_id: UUID) -> list[PeriodBooks]:
    """Oldest first, with lines."""
    async with worker.connect() as connection:
        found = await closed_periods(connection, gateway_id)
        return [await closed_period(connection, gateway_id, begins_at=each.begins_at) for each in reversed(found)]


async def test_months_that_were_missed_are_closed_one_by_one(worker: AsyncEngine, books: Books) -> None:
    acme, idle = books.gateway(SEPTEMBER), books.gateway(SEPTEMBER)
    books.moved(acme, 100, SEPTEMBER)
    books.used(acme, 7, OCTOBER - US)
    books.used(acme, 8, OCTOBER)
    books.used(acme, 9, NOVEMBER)
    assert await closed_by(worker) == "4 periods of 2 gateways closed"
    september, october = await periods_of(worker, acme)
    assert (september.id, september.opening, september.usage, september.closing) == ("2025-09-01", 0, 7, 93)
    assert (october.id, october.opening, october.usage, october.closing) == ("2025-10-01", 93, 8, 85)
    assert september.movements == {"grant": 100}
    assert [(line.app, line.charge, line.tickets_count) for line in october.lines] == [("app", 8, 2)]
    assert [(each.usage, each.closing, each.lines) for each in await periods_of(worker, idle)] == [(0, 0, ())] * 2


async def test_a_second_run_changes_nothing(worker: AsyncEngine, books: Books) -> None:
    acme = books.gateway()
    books.used(acme, 7, OCTOBER)
    await closed_by(worker)
    before = await periods_of(worker, acme)
    assert await closed_by(worker) == "0 periods of 0 gateways closed"
    assert await periods_of(worker, acme) == before


async def test_lines_are_by_what_was_called_and_its_markup(worker: AsyncEngine, books: Books) -> None:
    acme = books.gateway()
    for app, markup_bps in (("a", 0), ("b", 0), ("b", 250), ("b", 250)):
        books.used(acme, Decimal("0.1"), OCTOBER, app=app, markup_bps=markup_bps)
    await closed_by(worker)
    (october,) = await periods_of(worker, acme)
    lines = [(each.app, each.markup_bps, each.calls_count, each.charge, each.ev_wei) for each in october.lines]
    tenth = Decimal("0.1")
    assert lines == [("a", 0, 1, tenth, 1000), ("b", 0, 1, tenth, 1000), ("b", 250, 2, 2 * tenth, 2000)]


async def test_nothing_is_closed_before_the_databases_clock_says_so(worker: AsyncEngine, books: Books) -> None:
    books.gateway(datetime.now(UTC))
    assert await closed_by(worker, now=datetime(2100, 1, 1, tzinfo=UTC)) == "0 periods of 0 gateways closed"


async def test_a_charge_that_has_no_session_is_in_a_line_without_a_name(worker: AsyncEngine, books: Books) -> None:
    acme = books.gateway()
    books.used(acme, 3, OCTOBER)
    books.owner.execute("DELETE FROM session")
    await closed_by(worker)
    (october,) = await periods_of(worker, acme)
    assert [(line.app, line.charge) for line in october.lines] == [("", 3)]


async def test_what_is_sold_by_a_rate_card_has_a_line_for_each_rule_and_its_quantity(
    worker: AsyncEngine, books: Books
) -> None:
    books.owner.execute("SET session_replication_role = replica")  # a card that nobody wrote
    insert = """
        INSERT INTO rate_rule (card, version, ordinal, per, base_per_unit, floor, minimum_charge, counts, meter)
        VALUES ('standard', 3, %s, %s, %s, 'none', 0, false, '') RETURNING id
    """
    ((minutes,),) = books.owner.execute(insert, [0, "minute", 60 * 10**9])
    ((cost,),) = books.owner.execute(insert, [1, "cost", 1])
    books.owner.execute("SET session_replication_role = origin")
    acme = books.gateway()
    for _ in range(2):
        books.used(acme, 3, OCTOBER, rule=minutes, quantity=5 * 10**9)
    books.used(acme, 1, OCTOBER, rule=cost)
    books.used(acme, 1, OCTOBER)
    async with worker.connect() as connection:
        ahead = await preview(connection, acme, NOVEMBER - US)
    await closed_by(worker)
    (october,) = await periods_of(worker, acme)
    lines = [(each.rate_rule, each.quantity, each.unit, each.charge) for each in october.lines]
    sixth = Decimal("0.166666667")
    assert lines == [("", None, None, 1), ("standard@3#0", sixth, "minute", 6), ("standard@3#1", None, None, 1)]
    assert ahead.lines == october.lines


async def test_calls_that_cost_nothing_have_a_line_as_well(worker: AsyncEngine, books: Books) -> None:
    acme = books.gateway()
    books.used(acme, 0, OCTOBER)
    await closed_by(worker)
    (october,) = await periods_of(worker, acme)
    assert [(line.calls_count, line.charge) for line in october.lines] == [(1, 0)]


async def test_books_that_differ_are_said_aloud_with_the_difference_and_keep_nobody_else_from_closing(
    worker: AsyncEngine, books: Books
) -> None:
    acme, other = books.gateway(), books.gateway()
    books.moved(acme, 10, OCTOBER)
    books.owner.execute("UPDATE account SET balance = balance - 0.5 WHERE id = %s", [acme])
    with pytest.raises(PeriodsDiffer, match=r"2025-10-01: its balance less what its entries make it is -0.5; 1 peri"):
        await closed_by(worker)
    assert await periods_of(worker, acme) == []
    assert len(await periods_of(worker, other)) == 1
    books.owner.execute("UPDATE account SET balance = balance + 0.5 WHERE id = %s", [acme])
    with pytest.raises(PeriodsDiffer, match=r"2025-10-01: its balance less what its entries make it is -0.5; 0 peri"):
        await closed_by(worker, now=NOW + timedelta(minutes=1))  # as it was found: a month is not read every minute
    assert await closed_by(worker, now=NOW + timedelta(minutes=3)) == "1 periods of 1 gateways closed"


async def test_books_that_differ_for_long_are_read_once_an_hour(worker: AsyncEngine, books: Books) -> None:
    acme, now, looks = books.gateway(), NOW, list[int]()
    books.owner.execute("UPDATE account SET balance = balance - 0.5 WHERE id = %s", [acme])
    for _ in range(8):
        with pytest.raises(PeriodsDiffer):
            await closed_by(worker, now=now)
        ((next_look,),) = books.owner.execute("SELECT next_look_at FROM billing_difference").fetchall()
        looks.append((next_look - now) // timedelta(minutes=1))
        now = next_look
    assert looks == [2, 4, 8, 16, 32, 60, 60, 60]


async def test_an_entry_whose_time_lies_in_a_period_that_is_closed_is_found_when_the_next_is(
    worker: AsyncEngine, books: Books
) -> None:
    """A clock that was put back."""
    acme = books.gateway(SEPTEMBER)
    await due_and_closed_until(worker, books, acme, OCTOBER)
    books.used(acme, 5, OCTOBER - US)
    with pytest.raises(PeriodsDiffer, match=r"balance less what its entries make it is -5, its usage_total .* is 5"):
        await closed_by(worker)


async def due_and_closed_until(worker: AsyncEngine, books: Books, gateway_id: UUID, until: datetime) -> None:
    await closed_by(worker, now=until)
    assert [each.ends_at for each in await periods_of(worker, gateway_id)] == [until]


async def test_terms_that_make_no_calendar_are_said_aloud_and_keep_nobody_else_from_closing(
    worker: AsyncEngine, books: Books
) -> None:
    acme, other = books.gateway(), books.gateway()
    books.agree(acme, OCTOBER + timedelta(days=3), BERLIN)
    with pytest.raises(PeriodsUnreadable, match="no boundary of monthly:1"):
        await closed_by(worker)
    assert len(await periods_of(worker, other)) == 1


async def test_the_last_day_of_months_by_the_clocks_of_berlin(worker: AsyncEngine, books: Books) -> None:
    """Anchor 31, the end of summer time on 25 October, and a leap day."""
    opened_at = datetime(2024, 1, 31, 12, tzinfo=UTC)
    acme = books.gateway(opened_at)
    books.agree(acme, opened_at, BERLIN)
    leap_day = datetime(2024, 2, 28, 23, tzinfo=UTC)  # midnight in Berlin, in winter
    books.used(acme, 1, leap_day - US)
    books.used(acme, 2, leap_day)
    await closed_by(worker)
    periods = await periods_of(worker, acme)
    names = [each.id for each in periods]
    assert names[:4] == ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"]
    assert names[-1] == "2025-09-30"
    assert [each.usage for each in periods[:3]] == [1, 2, 0]
    assert periods[-1].begins_at == datetime(2025, 9, 29, 22, tzinfo=UTC)
    assert periods[-1].ends_at == datetime(2025, 10, 30, 23, tzinfo=UTC), "clocks were put back meanwhile"


async def test_other_terms_hold_from_the_boundary_and_the_past_keeps_its_own(worker: AsyncEngine, books: Books) -> None:
    acme = books.gateway(SEPTEMBER)
    weekly = Terms(Cadence(Every.WEEK, 1), "America/New_York", Way.POSTPAID)
    books.agree(acme, OCTOBER, weekly)
    await closed_by(worker)
    found = [(each.id, each.way, each.time_zone) for each in await periods_of(worker, acme)]
    assert found[:3] == [
        ("2025-09-01", "prepaid", "UTC"), ("2025-10-01", "postpaid", "America/New_York"),
        ("2025-10-06", "postpaid", "America/New_York"),
    ]  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """`kind` is "usage", or that of a transfer; `amount` is what it does to the balance."""

    at: datetime
    kind: str
    amount: Decimal
    app: str = ""


@dataclass(frozen=True)
class History:
    timeline: Timeline
    entries: list[Entry]

    def __repr__(self) -> str:
        """Short: a long one is refused."""
        terms = [(self.timeline.opened_at, self.timeline.terms), *self.timeline.changes]
        told = [(str(when), str(each.cadence), each.zone) for when, each in terms]
        return f"{told} {[(str(each.at), each.kind[:3], str(each.amount)) for each in self.entries]}"


AMOUNTS = st.decimals(min_value="1e-34", max_value="1e6", places=34)
KINDS = ("grant", "payment", "refund", "dispute", "expiry", "fee", "adjustment", "rounding")


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Up to fourteen months, and entries on the boundaries, a microsecond beside them, and anywhere."""
    timeline = Timeline(NOW - timedelta(seconds=draw(st.integers(60, 420 * 86_400))), draw(TERMS))
    for _ in range(draw(st.integers(0, 2))):
        moment = timeline.opened_at + (NOW - timeline.opened_at) * draw(st.integers(0, 100)) / 100
        timeline = timeline.changed(draw(TERMS), now=moment)
    periods = chain(timeline, NOW)
    times = st.one_of(
        st.builds(
            lambda period, us: period.begin + timedelta(microseconds=us),
            st.sampled_from(periods), st.sampled_from([-1, 0, 1]),
        ),
        st.datetimes(
            timeline.opened_at.replace(tzinfo=None), NOW.replace(tzinfo=None), timezones=st.just(UTC),
        ),
    ).filter(lambda at: timeline.opened_at <= at < NOW)  # fmt: skip
    used = st.builds(Entry, times, st.just("usage"), AMOUNTS.map(Decimal.copy_negate), st.sampled_from("ab"))
    moved = st.builds(Entry, times, st.sampled_from(KINDS), st.one_of(AMOUNTS, AMOUNTS.map(Decimal.copy_negate)))
    return History(timeline, draw(st.lists(st.one_of(used, moved), max_size=25)))


def plain(period: Period, entries: list[Entry]) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
    """Charges by app and movements by kind, of what happened in the period."""
    lines: dict[str, Decimal] = defaultdict(Decimal)
    movements: dict[str, Decimal] = defaultdict(Decimal)
    for entry in entries:
        if period.begin <= entry.at < period.end:
            if entry.kind == "usage":
                lines[entry.app] -= entry.amount
            else:
                movements[entry.kind] += entry.amount
    return lines, movements


def write(books: Books, history: History) -> UUID:
    timeline = history.timeline
    gateway_id = books.gateway(timeline.opened_at)
    begins_at, terms = timeline.opened_at, timeline.terms
    books.agree(gateway_id, begins_at, terms)
    for change in timeline.changes:
        begins_at = day_begins_at(change.day, terms.zone)
        terms = change.terms
        books.agree(gateway_id, begins_at, terms)
    for entry in history.entries:
        if entry.kind == "usage":
            books.used(gateway_id, entry.amount.copy_negate(), entry.at, app=entry.app)
        else:
            books.moved(gateway_id, entry.amount, entry.at, kind=entry.kind)
    return gateway_id


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=histories(), stops=st.lists(st.integers(0, 100), max_size=2))
def test_random_books_are_closed_with_what_a_plain_list_makes_them(
    database: str, books: Books, history: History, stops: list[int]
) -> None:
    """At several times on the way: what is closed at once or one after the other is the same."""
    with books.owner.transaction():
        gateway_id = write(books, history)
    span = NOW - history.timeline.opened_at
    found, ahead = asyncio.run(_closed_at(database, gateway_id, [*(NOW - span * stop / 100 for stop in stops), NOW]))
    expected = [period for period in chain(history.timeline, NOW) if period.end <= NOW]
    assert [(each.begins_at, each.ends_at, each.first_day) for each in found] == [
        (period.begin, period.end, period.first_day) for period in expected
    ]
    with localcontext(EXACT):
        check([*found, ahead], history)


def check(found: list[PeriodBooks], history: History) -> None:
    opening = Decimal(0)
    for books_of_it, period in zip(found, chain(history.timeline, NOW), strict=True):
        lines, movements = plain(period, history.entries)
        assert {line.app: line.charge for line in books_of_it.lines} == lines
        assert books_of_it.movements == movements
        assert books_of_it.opening == opening
        assert books_of_it.usage == sum(lines.values())
        opening += sum(movements.values()) - sum(lines.values())
        assert books_of_it.closing == opening
        assert (books_of_it.way, books_of_it.time_zone) == (period.terms.way, period.terms.zone)


async def _closed_at(database: str, gateway_id: UUID, times: list[datetime]) -> tuple[list[PeriodBooks], PeriodBooks]:
    from settlement.runs import tick_engine

    worker = tick_engine(database)
    try:
        for now in sorted(times):
            async with worker.connect() as connection:
                ahead = await preview(connection, gateway_id, now)
            await closed_by(worker, now=now)
        return await periods_of(worker, gateway_id), ahead
    finally:
        await worker.dispose()
