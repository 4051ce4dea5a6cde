"""Usage added up for dashboards (migrations/sql/0001_usage.sql): kept up to date, compared with the books, mended.

Everything is done in transactions of a bounded size, which touch no row that signing waits for. Whoever calls says how
a transaction is begun: a job has one that ends with the job's right to run, a command has its engine's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

Transaction = Callable[[], AbstractAsyncContextManager[AsyncConnection]]
#: Told how far it is: the time that was reached, and the time that is the end.
Progress = Callable[[datetime, datetime], None]

#: Issuances in one transaction: half a second of one core.
ROWS_AT_ONCE_COUNT: Final = 100_000
#: Nobody's clock is set back further than this without somebody looking at it.
BACK_MAX: Final = timedelta(days=1)
#: Before this nothing was issued; what the database begins with.
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

_STEP_FIRST: Final = timedelta(hours=1)
_STEP_MAX: Final = timedelta(days=366)
_QUARTER: Final = timedelta(minutes=15)
#: Commits that were under way at the mark have ended by then, unless one of them waits for something.
_ASKED_AGAIN_COUNT: Final = 20
_ASKED_AGAIN_AFTER_S: Final = 0.1


class RolledUp(NamedTuple):
    """How far it is: every issuance created before `until` is in the sums, `issuances` more than before.

    `is_behind`: there are more that could be. `waits`: a transaction that began before has not ended yet, so nobody can
    know what it will have issued.
    """

    until: datetime
    issuances: int
    is_behind: bool = False
    waits: bool = False


class Difference(NamedTuple):
    """A gateway whose usage is added up to something else than it was charged, and than was released for it, in all."""

    gateway_id: UUID
    counted: Decimal
    charged: Decimal
    counted_wei: int
    released_wei: int


class _Mark(NamedTuple):
    at: datetime
    xid: str


async def roll_up(
    transaction: Transaction,
    *,
    within_s: float | None,
    back_max: timedelta | None = BACK_MAX,
    rows_max: int = ROWS_AT_ONCE_COUNT,
    progress: Progress | None = None,
) -> RolledUp:
    """Adds what was issued since the last time, for about so long; None is up to the end.

    Raises DBAPIError where the clock of the database is further back than `back_max` from what is rolled up.
    While it is behind it rests as long as it works: signing needs the database more.
    """
    began_all_s = time.monotonic()
    mark = await _mark(transaction)
    since = await rolled_up_until(transaction)
    first = since if since > BEGINNING else (await _first(transaction)) or mark.at
    step, issuances = _STEP_FIRST, 0
    while True:
        began_s, wanted = time.monotonic(), since + step if since >= first else first
        until, count = await _add(transaction, mark, wanted, rows_max, back_max) or (None, 0)
        if until is None:
            return RolledUp(since, issuances, is_behind=True, waits=True)
        issuances += count
        if progress is not None:
            progress(until, mark.at)
        is_over = within_s is not None and time.monotonic() - began_all_s > within_s
        if until >= mark.at or until < since or is_over:
            return RolledUp(until, issuances, is_behind=until < mark.at)
        step, since = _next_step(step, count, rows_max, was_cut=until < wanted), until
        await asyncio.sleep(time.monotonic() - began_s)


async def mend(transaction: Transaction, *, back: timedelta) -> int:
    """Corrects the sums so far back from their end on, quarter by quarter, until they are what was charged.

    Returns how many sums were wrong. An issuance comes to be missing where the database's clock was set back by less
    than passed between two roll-ups: it has a time that had been rolled up before.
    """
    until = await rolled_up_until(transaction)
    wrong, end, begin = 0, None, _quarter(until) - _QUARTER
    while True:
        wrong += await correct(transaction, begin, end)
        if begin <= until - back or not await differences(transaction):
            break
        end, begin = begin, begin - _QUARTER
    await _end_correction(transaction)
    return wrong


async def rebuild(
    transaction: Transaction, *, rows_max: int = ROWS_AT_ONCE_COUNT, progress: Progress | None = None
) -> tuple[int, RolledUp]:
    """Makes every sum what the issuances come to, and rolls up what is not yet. Sums that are right stay as they are.

    Returns how many were wrong, and how far it is now. Dashboards go on being answered, by what the sums are then.
    """
    # First of all back to before the clock was wrong, if it was; and nothing is done beyond that.
    rolled_up = await roll_up(transaction, within_s=0, back_max=None, rows_max=rows_max)
    begin, end = BEGINNING, _quarter(rolled_up.until)
    first = await _first(transaction) or end
    wrong, step = 0, _STEP_FIRST
    while begin < end:
        began_s = time.monotonic()
        wanted = min(end, _quarter(begin + step if begin >= _quarter(first) else first))
        upto = max(_quarter(await _reach(transaction, begin, wanted, rows_max)), begin + _QUARTER)
        wrong += await correct(transaction, begin, upto)
        if progress is not None:
            progress(upto, end)
        step, begin = (step * 2 if upto >= wanted else max(step / 2, _QUARTER)), upto
        step = min(step, _STEP_MAX)
        await asyncio.sleep(time.monotonic() - began_s)
    wrong += await correct(transaction, end, None)
    wrong += await _end_correction(transaction)
    return wrong, await roll_up(transaction, within_s=None, rows_max=rows_max, progress=progress)


async def correct(transaction: Transaction, begin: datetime, end: datetime | None) -> int:
    """Makes the sums of these times right; returns how many were wrong. `end` is None for all that comes after."""
    async with transaction() as connection:
        query = text("SELECT correct_usage(:begin, CAST(:end AS timestamptz))")
        return int((await connection.execute(query, {"begin": begin, "end": end})).scalar_one())


async def differences(transaction: Transaction) -> list[Difference]:
    """The gateways whose sums, with what came after, are not what they were charged. None is expected."""
    async with transaction() as connection:
        rows = await connection.execute(text("SELECT * FROM usage_differences() ORDER BY o_gateway"))
        return [
            Difference(gateway_id, counted, charged, int(counted_wei), int(released_wei))
            for gateway_id, counted, charged, counted_wei, released_wei in rows.all()
        ]


async def rolled_up_until(transaction: Transaction) -> datetime:
    async with transaction() as connection:
        found: datetime = (await connection.execute(text("SELECT rolled_up_until FROM usage_progress"))).scalar_one()
        return found.astimezone(UTC)


async def mended_at(transaction: Transaction) -> datetime:
    """When the sums were corrected the last time."""
    async with transaction() as connection:
        found: datetime = (await connection.execute(text("SELECT mended_at FROM usage_progress"))).scalar_one()
        return found.astimezone(UTC)


async def _mark(transaction: Transaction) -> _Mark:
    """What is issued from now on comes after it."""
    async with transaction() as connection:
        row = (await connection.execute(text("SELECT o_until, CAST(o_xid AS text) FROM usage_mark()"))).one()
        return _Mark(row[0].astimezone(UTC), row[1])


async def _add(
    transaction: Transaction, mark: _Mark, to: datetime, rows_max: int, back_max: timedelta | None
) -> tuple[datetime, int] | None:
    """One part. None where transactions of before the mark do not end."""
    query = text(
        "SELECT o_until, o_issuances FROM roll_up_usage("
        ":mark, CAST(CAST(:xid AS text) AS xid8), :to, :rows_max, CAST(:back_max AS interval))"
    )
    parameters = {"mark": mark.at, "xid": mark.xid, "to": to, "rows_max": rows_max, "back_max": back_max}
    for _ in range(_ASKED_AGAIN_COUNT):
        async with transaction() as connection:
            row = (await connection.execute(query, parameters)).one_or_none()
        if row is not None:
            return row[0].astimezone(UTC), int(row[1])
        await asyncio.sleep(_ASKED_AGAIN_AFTER_S)
    return None


async def _first(transaction: Transaction) -> datetime | None:
    async with transaction() as connection:
        found: datetime | None = (await connection.execute(text("SELECT usage_first()"))).scalar_one()
        return found.astimezone(UTC) if found is not None else None


async def _reach(transaction: Transaction, begin: datetime, end: datetime, rows_max: int) -> datetime:
    async with transaction() as connection:
        query = text("SELECT usage_reach(:begin, :end, :rows_max)")
        found: datetime = (
            await connection.execute(query, {"begin": begin, "end": end, "rows_max": rows_max})
        ).scalar_one()
        return found.astimezone(UTC)


async def _end_correction(transaction: Transaction) -> int:
    async with transaction() as connection:
        return int((await connection.execute(text("SELECT correct_usage_ever()"))).scalar_one())


def _next_step(step: timedelta, count: int, rows_max: int, *, was_cut: bool) -> timedelta:
    """Longer where there was little, so that a year without usage is passed in a few transactions."""
    if was_cut:
        return max(step / 2, timedelta(seconds=1))
    return min(step * 2, _STEP_MAX) if count < rows_max // 2 else step


def _quarter(at: datetime) -> datetime:
    """The beginning of its quarter of an hour."""
    return at - (at - BEGINNING) % _QUARTER
