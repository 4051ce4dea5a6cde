"""What the books say of a period: of one that was closed, for ever; of one that goes on, until now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.errors import NotFound
from clearinghouse.ledger.money import EXACT
from settlement.closing.due import Calendar, calendar_of

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.periods import Period

LISTED_MAX_COUNT: Final = 1000


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What calls of one kind cost in a period, exactly, in the account's currency. Fees are the orchestrators'."""

    app: str
    pipeline: str
    model: str
    markup_bps: int
    calls_count: int
    tickets_count: int
    ev_wei: int
    fee_wei: int
    charge: Decimal
    #: By a rate card: `card@version#ordinal`; "" by the markup.
    rate_rule: str = ""
    #: Of what is sold, in `unit`, to 9 decimals; None where that is cost.
    quantity: Decimal | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class PeriodBooks:
    """closing = opening + movements - usage, exactly. `closed_at` None: it is not closed, and not even over perhaps.

    [begins_at, ends_at) is the whole period. `movements` are by kind of transfer, above 0 what entered the account.
    `usage` is the sum of the lines' charges; `lines` is empty where only an overview was asked for.
    """

    gateway_id: UUID
    begins_at: datetime
    ends_at: datetime
    first_day: date
    next_day: date
    way: str
    time_zone: str
    currency: str
    opening: Decimal
    movements: dict[str, Decimal]
    usage: Decimal
    closing: Decimal
    calls_count: int
    ev_wei: int
    closed_at: datetime | None
    lines: tuple[UsageLine, ...] = ()

    @property
    def id(self) -> str:
        """`2026-11-01`: the day it begins, by the gateway's calendar."""
        return self.first_day.isoformat()


_PERIODS: Final = """
    SELECT period.*, moved.kinds, moved.amounts
      FROM billing_period AS period
      LEFT JOIN LATERAL (
           SELECT array_agg(kind ORDER BY kind) AS kinds, array_agg(amount::numeric ORDER BY kind) AS amounts
             FROM billing_movement AS moved
            WHERE moved.gateway_id = period.gateway_id AND moved.begins_at = period.begins_at) AS moved ON true
"""
_LINES: Final = """
    SELECT app, pipeline, model, markup_bps, calls_count, tickets_count, ev_wei, fee_wei, charge,
           rate_rule, quantity, unit
      FROM billing_line WHERE gateway_id = :gateway_id AND begins_at = :begins_at
     ORDER BY app, pipeline, model, markup_bps, rate_rule
"""


async def closed_periods(
    connection: AsyncConnection, gateway_id: UUID | None = None, *, limit: int = LISTED_MAX_COUNT
) -> list[PeriodBooks]:
    """Of one gateway or of all, without lines; those that ended last first."""
    where = "WHERE CAST(:gateway_id AS uuid) IS NULL OR gateway_id = :gateway_id"
    query = text(f"{_PERIODS} {where} ORDER BY ends_at DESC, gateway_id LIMIT :limit")
    rows = await connection.execute(query, {"gateway_id": gateway_id, "limit": min(limit, LISTED_MAX_COUNT)})
    return [_books(row) for row in rows]


async def closed_here(connection: AsyncConnection, gateway_ids: Sequence[UUID]) -> list[PeriodBooks]:
    """Those of the gateways that the caller's transaction closed, without lines, by their ends."""
    query = text(f"{_PERIODS} WHERE gateway_id = ANY (:ids) AND closed_at >= now() ORDER BY ends_at, gateway_id")
    return [_books(row) for row in await connection.execute(query, {"ids": list(gateway_ids)})]


async def closed_period(
    connection: AsyncConnection,
    gateway_id: UUID,
    *,
    begins_at: datetime | None = None,
    first_day: date | None = None,
    until: datetime | None = None,
) -> PeriodBooks:
    """With its lines: the one that begins then, or is called so, or that `until` is in; the newest where none is given.

    NotFound where no such period was closed.
    """
    wanted = """
        WHERE gateway_id = :gateway_id AND (CAST(:begins_at AS timestamptz) IS NULL OR begins_at = :begins_at)
          AND (CAST(:first_day AS date) IS NULL OR first_day = :first_day)
          AND (CAST(:until AS timestamptz) IS NULL OR begins_at <= :until) ORDER BY begins_at DESC LIMIT 1
    """
    values = {"gateway_id": gateway_id, "begins_at": begins_at, "first_day": first_day, "until": until}
    row = (await connection.execute(text(f"{_PERIODS} {wanted}"), values)).first()
    if row is None:
        which = f"from {first_day or begins_at} " if first_day or begins_at else ""
        raise NotFound(f"no period {which}of {ids.show('gw', gateway_id)} is closed")
    found = await connection.execute(text(_LINES), {"gateway_id": gateway_id, "begins_at": row.begins_at})
    return replace(_books(row), lines=tuple(_line(each) for each in found))


async def preview(connection: AsyncConnection, gateway_id: UUID, at: datetime) -> PeriodBooks:
    """The period that `at` is in, with all that has a time before `at`; as it was closed, where it is.

    Nothing is written. Once it is over, these are the numbers that it is closed with: entries of this very moment may
    still be on their way. ValueError before the gateway was created.
    """
    calendar = await calendar_of(connection, gateway_id)
    if at < calendar.timeline.opened_at:
        raise ValueError(f"{at} is before {ids.show('gw', gateway_id)} was created, {calendar.timeline.opened_at}")
    if calendar.closed is not None and at < calendar.closed.end:
        return await closed_period(connection, gateway_id, until=at)
    periods = [calendar.open_from()]
    while periods[-1].end <= at:
        periods.append(calendar.timeline.after(periods[-1]))
    return await _reckoned(connection, calendar, periods, at)


async def _reckoned(
    connection: AsyncConnection, calendar: Calendar, periods: Sequence[Period], at: datetime
) -> PeriodBooks:
    """The last of the periods, until `at`; they follow the newest that was closed."""
    values = {
        "gateways": [calendar.gateway_id] * len(periods),
        "begins": [period.begin for period in periods],
        "ends": [*(period.end for period in periods[:-1]), at],
    }
    entries = [row for row in await connection.execute(text(_ENTRIES), values) if row.begins_at is not None]
    period = periods[-1]
    of_it = [entry for entry in entries if entry.begins_at == period.begin]
    with localcontext(EXACT):
        lines = [_line(entry, charge=-entry.amount) for entry in of_it if entry.kind == "usage"]
        earlier = (entry.amount for entry in entries if entry.begins_at < period.begin)
        return PeriodBooks(
            gateway_id=calendar.gateway_id, begins_at=period.begin, ends_at=period.end, first_day=period.first_day,
            next_day=period.next_day, way=period.terms.way.value, time_zone=period.terms.zone,
            currency=calendar.currency, opening=_sum([calendar.closing, *earlier]),
            movements={entry.kind: entry.amount for entry in of_it if entry.kind != "usage"},
            usage=_sum(line.charge for line in lines),
            closing=_sum([calendar.closing, *(entry.amount for entry in entries)]),
            calls_count=sum(line.calls_count for line in lines), ev_wei=sum(line.ev_wei for line in lines),
            closed_at=None, lines=tuple(lines),
        )  # fmt: skip


_ENTRIES: Final = """
    SELECT o_begins_at AS begins_at, o_kind AS kind, o_app AS app, o_pipeline AS pipeline, o_model AS model,
           o_markup_bps AS markup_bps, o_calls_count AS calls_count, o_tickets_count AS tickets_count,
           o_ev_wei AS ev_wei, o_fee_wei AS fee_wei, o_amount AS amount,
           o_rate_rule AS rate_rule, o_quantity AS quantity, o_unit AS unit
      FROM period_entries(CAST(:gateways AS uuid[]), CAST(:begins AS timestamptz[]), CAST(:ends AS timestamptz[]))
     ORDER BY begins_at, kind, app, pipeline, model, markup_bps, rate_rule
"""


def _books(row: Row[Any]) -> PeriodBooks:
    return PeriodBooks(
        gateway_id=row.gateway_id, begins_at=row.begins_at.astimezone(UTC), ends_at=row.ends_at.astimezone(UTC),
        first_day=row.first_day, next_day=row.next_day, way=row.way, time_zone=row.time_zone, currency=row.currency,
        opening=row.opening, movements=dict(zip(row.kinds or (), row.amounts or (), strict=True)), usage=row.usage,
        closing=row.closing, calls_count=row.calls_count, ev_wei=int(row.ev_wei),
        closed_at=row.closed_at.astimezone(UTC),
    )  # fmt: skip


def _line(row: Row[Any], *, charge: Decimal | None = None) -> UsageLine:
    return UsageLine(
        app=row.app, pipeline=row.pipeline, model=row.model, markup_bps=row.markup_bps, calls_count=row.calls_count,
        tickets_count=row.tickets_count, ev_wei=int(row.ev_wei), fee_wei=int(row.fee_wei),
        charge=row.charge if charge is None else charge, rate_rule=row.rate_rule, quantity=row.quantity, unit=row.unit,
    )  # fmt: skip


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    """In the context that is set: exact."""
    return sum(amounts, Decimal(0))
