"""The job `billing-periods`: every period that is over is sealed and closed, and what does not add up is said aloud."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.ledger.money import show_amount
from settlement.closing.differing import Difference, note_differing, resting
from settlement.closing.due import Due, Unreadable, cohorts, due_periods
from settlement.closing.sealing import seal
from settlement.schedule import Job, JobFailed, Tick

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

JOB_NAME: Final = "billing-periods"
EVERY_S: Final = 60
#: A period that is over for longer and not closed is overdue.
OVERDUE_AFTER: Final = timedelta(minutes=10)
#: Far more than ten thousand gateways with a million calls need.
_STATEMENT_TIMEOUT: Final = "30min"
_DESCRIBED_MAX_COUNT: Final = 3


class PeriodsDiffer(JobFailed):
    """What a gateway has is not what its entries make it: its period stays open, and somebody has to look at once."""


class PeriodsUnreadable(JobFailed):
    """The terms of a gateway make no calendar: nothing of it is closed until they are put right."""


class Point(StrEnum):
    """How far a run has got."""

    SEALED = "sealed"
    #: Written, but not committed yet.
    WRITTEN = "written"
    CLOSED = "closed"


class ClosingObserver(Protocol):
    """Hears how far a run has got, and how many gateways have a period at its end that is overdue."""

    def reached(self, point: Point) -> None: ...

    def ended(self, overdue_count: int) -> None: ...


class SilentClosingObserver:
    """Hears nothing."""

    def reached(self, point: Point) -> None: ...

    def ended(self, overdue_count: int) -> None: ...


class Outcome(StrEnum):
    """What became of a gateway's periods; the words of close_periods (migrations/sql/0001_periods.sql)."""

    CLOSED = "closed"
    #: Another process was faster, or there is a gap before them.
    NOT_NEXT = "not_next"
    NOT_SEALED = "not_sealed"
    DIFFERS = "differs"


class Closed(NamedTuple):
    """What became of the periods of a gateway. The differences are what its account says less what its entries make
    it: of its balance, and of all it ever used."""

    due: Due
    outcome: Outcome
    difference: Decimal
    usage_difference: Decimal


@dataclass
class _Round:
    """What a run came to."""

    closed: list[Closed] = field(default_factory=list)
    unsealed: list[Due] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)

    def of(self, outcome: Outcome) -> list[Closed]:
        return [each for each in self.closed if each.outcome is outcome]

    def overdue_count(self, now: datetime) -> int:
        """Gateways, those without a calendar among them: theirs is not known."""
        left = [*self.unsealed, *(each.due for each in self.closed if each.outcome is not Outcome.CLOSED)]
        return sum(each.periods[0].end <= now - OVERDUE_AFTER for each in left) + len(self.unreadable)

    def said(self) -> str:
        closed = self.of(Outcome.CLOSED)
        words = [f"{sum(len(each.due.periods) for each in closed)} periods of {len(closed)} gateways closed"]
        if self.unsealed:
            words.append(f"{len(self.unsealed)} gateways are busy: they come next time")
        return "; ".join(words)


def closing_job(observer: ClosingObserver | None = None) -> Job:
    """Every minute: a period is closed within one of its end."""
    hearing = observer or SilentClosingObserver()

    async def tick(tick: Tick) -> str:
        return await close_due(tick, hearing)

    return Job(JOB_NAME, EVERY_S, tick)


async def close_due(tick: Tick, observer: ClosingObserver) -> str:
    """Closes all that is over. Returns what it did, in one line.

    What cannot be closed does not keep the others from it; then PeriodsDiffer or PeriodsUnreadable is raised, in this
    order, with the gateways and by how much. RunLost as Tick.transaction has it: what was closed until then, is.
    """
    done = _Round()
    over, done.unreadable = await due_periods(tick.engine, tick.now)
    rests = await resting(tick, over)
    done.closed = [Closed(each, Outcome.DIFFERS, *rests[each.gateway_id]) for each in over if each.gateway_id in rests]
    due = [each for each in over if each.gateway_id not in rests]
    sealed = await seal(tick.engine, due)
    observer.reached(Point.SEALED)
    ready = {each.gateway_id for each in sealed}
    done.unsealed = [each for each in due if each.gateway_id not in ready]
    for cohort in cohorts(sealed):
        async with tick.transaction() as connection:
            closed = await close(connection, cohort)
            differing = [
                (each.due, Difference(each.difference, each.usage_difference))
                for each in closed
                if each.outcome is Outcome.DIFFERS
            ]
            await note_differing(connection, differing, tick.now)
            observer.reached(Point.WRITTEN)
        done.closed += closed
        observer.reached(Point.CLOSED)
    observer.ended(done.overdue_count(tick.now))
    _require_all(done)
    return done.said()


async def close(connection: AsyncConnection, due: Sequence[Due]) -> list[Closed]:
    """Closes the periods of these gateways, in the caller's transaction. Takes no lock that signing waits for."""
    await connection.execute(
        text("SELECT set_config('statement_timeout', :value, true)"), {"value": _STATEMENT_TIMEOUT}
    )
    rows = await connection.execute(text(_CLOSE), _columns(due))
    by_id = {each.gateway_id: each for each in due}
    return [
        Closed(by_id[row.o_gateway], Outcome(row.o_outcome), row.o_difference, row.o_usage_difference) for row in rows
    ]


_CLOSE: Final = """
    SELECT o_gateway, o_outcome, coalesce(o_difference, 0) AS o_difference,
           coalesce(o_usage_difference, 0) AS o_usage_difference
      FROM close_periods(
           CAST(:gateway AS uuid[]), CAST(:begin AS timestamptz[]), CAST(:end AS timestamptz[]),
           CAST(:first_day AS date[]), CAST(:next_day AS date[]), CAST(:way AS text[]), CAST(:zone AS text[]))
     ORDER BY o_gateway
"""


def _columns(due: Iterable[Due]) -> dict[str, list[Any]]:
    rows = [(each.gateway_id, period) for each in due for period in each.periods]
    return {
        "gateway": [gateway_id for gateway_id, _ in rows],
        "begin": [period.begin for _, period in rows],
        "end": [period.end for _, period in rows],
        "first_day": [period.first_day for _, period in rows],
        "next_day": [period.next_day for _, period in rows],
        "way": [period.terms.way.value for _, period in rows],
        "zone": [period.terms.zone for _, period in rows],
    }


def _require_all(done: _Round) -> None:
    """Raises PeriodsDiffer or PeriodsUnreadable."""
    if differing := done.of(Outcome.DIFFERS):
        raise PeriodsDiffer(f"{_count(differing)}: {_described(map(described, differing))}; {done.said()}")
    if done.unreadable:
        reasons = (f"{_name(each.gateway_id)}: {each.reason}" for each in done.unreadable)
        raise PeriodsUnreadable(f"{_count(done.unreadable)}: {_described(reasons)}; {done.said()}")


def described(closed: Closed) -> str:
    """Of one that differs, by how much."""
    parts = [
        f"its {name} less what its entries make it is {show_amount(difference)}"
        for name, difference in (("balance", closed.difference), ("usage_total", closed.usage_difference))
        if difference
    ]
    return f"{_name(closed.due.gateway_id)} from {closed.due.periods[0].id}: {', '.join(parts)}"


def _described(reasons: Iterable[str]) -> str:
    return "; ".join(list(reasons)[:_DESCRIBED_MAX_COUNT])


def _count(found: Sequence[object]) -> str:
    return f"{len(found)} gateway{'s' if len(found) != 1 else ''} not closed"


def _name(gateway_id: UUID) -> str:
    return ids.show("gw", gateway_id)
