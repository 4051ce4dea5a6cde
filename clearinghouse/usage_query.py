"""What a gateway used, by day, application, pipeline, model and job type: what a dashboard asks.

The sums of usage_bucket, and what was issued since they were made, of one snapshot: an answer is never behind, and is
what the issuances sum to. Days are those of a time zone, as its clocks had them: one may have 23 or 25 hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.errors import DatabaseUnavailable, InvalidRequest
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

#: What may be told apart, in the order in which answers are sorted.
BY: Final = ("day", "app", "pipeline", "model", "job_type")
BY_DEFAULT: Final = ("day", "app")
DAYS_DEFAULT_COUNT: Final = 30
DAYS_MAX_COUNT: Final = 400
GROUPS_MAX_COUNT: Final = 10_000
TIME_ZONE_MAX_CHARS: Final = 64

_DAY_S: Final = 86_400
_QUARTER_S: Final = 900
#: What was issued since is found by its time; a plan for any time, or for a table that was small, would read all of it.
_PLANNED_FOR_THESE_TIMES: Final = """
    SELECT set_config('enable_seqscan', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true),
           set_config('jit', 'off', true)
"""
_TRIES_COUNT: Final = 10
_SUMS: Final = ("issuances", "tickets", "ev_wei", "fee_wei", "charge")


@dataclass(frozen=True, slots=True)
class Question:
    """Usage of the days from `first` to `last`, both included, of a time zone, told apart by some of BY, in order."""

    first: date
    last: date
    time_zone: str
    by: tuple[str, ...]


class Sums(NamedTuple):
    """`charge` is in the currency beside it."""

    issuances: int
    tickets: int
    ev_wei: int
    fee_wei: int
    charge: Decimal


class Group(NamedTuple):
    """What was used by one of those that are told apart; None stands where it is not told apart by that."""

    day: date | None
    app: str | None
    pipeline: str | None
    model: str | None
    job_type: str | None
    currency: str
    sums: Sums


@dataclass(frozen=True, slots=True)
class Answer:
    """`totals` are of all groups, by currency; `rolled_up_until` tells how much was read from sums."""

    question: Question
    begins_at: datetime
    ends_at: datetime
    groups: tuple[Group, ...]
    totals: tuple[tuple[str, Sums], ...]
    rolled_up_until: datetime


def question(
    *,
    now: datetime,
    time_zone: str,
    first: str | None = None,
    last: str | None = None,
    days_count: int | None = None,
    by: Sequence[str] = BY_DEFAULT,
) -> Question:
    """What was asked, by its words. Without `first` it is `days_count` days up to `last`, which is today if not given.

    InvalidRequest says which word is wrong.
    """
    zone = zone_of(time_zone)
    end = _date("to", last) if last is not None else now.astimezone(zone).date()
    if first is not None and days_count is not None:
        raise InvalidRequest("give the first day or how many days, not both")
    count = DAYS_DEFAULT_COUNT if days_count is None else days_count
    if not 1 <= count <= DAYS_MAX_COUNT:
        raise InvalidRequest(f"the number of days must be 1 to {DAYS_MAX_COUNT}, not {count}")
    if end < date(1970, 1, 1) + timedelta(days=DAYS_MAX_COUNT) or end.year > 9990:
        raise InvalidRequest(f"there is no usage around {end}")
    begin = _date("from", first) if first is not None else end - timedelta(days=count - 1)
    if begin > end:
        raise InvalidRequest(f"the first day, {begin}, is after the last, {end}")
    if (end - begin).days >= DAYS_MAX_COUNT:
        raise InvalidRequest(f"{begin} to {end} are more than {DAYS_MAX_COUNT} days")
    return Question(begin, end, time_zone, _by(by))


async def time_zone_of(connection: AsyncConnection, gateway_id: UUID) -> str:
    """The one in which the gateway is billed; UTC where nothing was agreed."""
    query = text(
        "SELECT time_zone FROM billing_terms WHERE gateway_id = :id AND begins_at <= now()"
        " ORDER BY begins_at DESC LIMIT 1"
    )
    found: str | None = (await connection.execute(query, {"id": gateway_id})).scalar_one_or_none()
    return found or "UTC"


def zone_of(name: str) -> ZoneInfo:
    """InvalidRequest for what is not the name of a time zone."""
    if len(name) <= TIME_ZONE_MAX_CHARS and name.isascii() and name.isprintable():
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones
            pass
    raise InvalidRequest(f"there is no time zone {name[:TIME_ZONE_MAX_CHARS]!a}; one is written Europe/Berlin or UTC")


async def usage_of(connection: AsyncConnection, gateway_id: UUID, asked: Question) -> Answer:
    """The answer, in one statement, so of one instant.

    InvalidRequest where it would have too many groups; DatabaseUnavailable where sums change faster than they are read.
    """
    edges = day_edges(asked)
    span, divided = _buckets(asked, edges)
    parameters = {
        "gateway_id": gateway_id, "span": span, "divided": divided, "edges": edges, "begins_at": edges[0],
        "ends_at": edges[-1], "rows_max": GROUPS_MAX_COUNT + 2,
    }  # fmt: skip
    await connection.execute(text(_PLANNED_FOR_THESE_TIMES))
    for _ in range(_TRIES_COUNT):
        # Known beforehand, for the plan; that it holds is seen by the statement itself, in the instant it is of.
        until: datetime = (await connection.execute(text("SELECT rolled_up_until FROM usage_progress"))).scalar_one()
        rows = (await connection.execute(text(_query(asked.by)), parameters | {"since": until})).all()
        if rows[0].rolled_up_until == until:
            return _answer(asked, edges, rows, until)
    raise DatabaseUnavailable("Usage is being added up at this moment.", retry_after_s=1)


def _answer(asked: Question, edges: Sequence[datetime], rows: Sequence[Any], until: datetime) -> Answer:
    found = [row for row in rows if row.currency is not None]
    totals = tuple((row.currency, _sums(row)) for row in found if row.is_total)
    groups = tuple(_group(row, asked) for row in found if not row.is_total)
    if len(groups) > GROUPS_MAX_COUNT or len(rows) > GROUPS_MAX_COUNT + 1:
        raise InvalidRequest(
            f"there are more than {GROUPS_MAX_COUNT} groups: ask for fewer days, or tell apart by less than "
            f"{', '.join(asked.by)}"
        )
    return Answer(asked, edges[0], edges[-1], groups, totals, until.astimezone(UTC))


def day_edges(asked: Question) -> list[datetime]:
    """Where each day begins, and where the last one ends: one more than there are days.

    A day begins when the clock first shows its midnight, or, where that is skipped, when it skips it (PEP 495, fold 0).
    """
    zone = zone_of(asked.time_zone)
    days = (asked.last - asked.first).days + 1
    return [
        datetime.combine(asked.first + timedelta(days=number), time(), zone).astimezone(UTC)
        for number in range(days + 1)
    ]


def usage_document(gateway_id: UUID, answer: Answer) -> dict[str, Any]:
    """As GET /v1/usage and `clearinghouse usage show --json` have it: amounts and wei are decimal strings."""
    return {
        "gateway_id": ids.show("gw", gateway_id),
        "from": answer.question.first.isoformat(),
        "to": answer.question.last.isoformat(),
        "time_zone": answer.question.time_zone,
        "begins_at": rfc3339(answer.begins_at),
        "ends_at": rfc3339(answer.ends_at),
        "by": list(answer.question.by),
        "items": [_group_document(group) for group in answer.groups],
        "totals": [{"currency": currency, **_sums_document(sums)} for currency, sums in answer.totals],
        "rolled_up_until": rfc3339(answer.rolled_up_until),
    }


def _group_document(group: Group) -> dict[str, Any]:
    return {
        "day": group.day.isoformat() if group.day is not None else None,
        "app": group.app, "pipeline": group.pipeline, "model": group.model, "job_type": group.job_type,
        "currency": group.currency, **_sums_document(group.sums),
    }  # fmt: skip


def _sums_document(sums: Sums) -> dict[str, Any]:
    return {
        "issuances": sums.issuances, "tickets": sums.tickets, "ev_wei": str(sums.ev_wei),
        "fee_wei": str(sums.fee_wei), "charge": show_amount(sums.charge),
    }  # fmt: skip


def _date(name: str, written: str) -> date:
    try:
        if len(written) == len("2026-04-07"):
            return date.fromisoformat(written)
    except ValueError:
        pass
    raise InvalidRequest(f"{name} is a day, written 2026-04-07, not {written[:40]!a}")


def _by(wanted: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in BY:
            raise InvalidRequest(f"usage cannot be told apart by {name[:40]!a}: only by {', '.join(BY)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise InvalidRequest(f"tell usage apart by one or more of {', '.join(BY)}, each once")
    return tuple(name for name in BY if name in wanted)


def _buckets(asked: Question, edges: Sequence[datetime]) -> tuple[str, list[datetime]]:
    """The coarsest buckets that the days are made of, and those that an edge divides: quarters stand for these.

    Where days are not told apart only the first edge and the last one matter.
    """
    relevant = edges if "day" in asked.by else (edges[0], edges[-1])
    if any(edge.timestamp() % _QUARTER_S for edge in relevant):
        raise InvalidRequest(f"days of {asked.time_zone} did not begin with a quarter of an hour then: ask in UTC")
    if not any(edge.timestamp() % _DAY_S for edge in relevant):
        return "day", []
    return "hour", sorted({edge.replace(minute=0) for edge in relevant if edge.minute})


def _query(by: Sequence[str]) -> str:
    """`by` is out of BY: nothing of a caller's comes into the statement."""
    names = ", ".join(by)
    labels = ", ".join(name for name in BY if name != "day")
    known = ", ".join(f"coalesce({name}, '') AS {name}" for name in BY if name != "day")  # as the sums have it
    sums = ", ".join(f"sum({name}) AS {name}" for name in _SUMS)
    day = "width_bucket({}, CAST(:edges AS timestamptz[]))" if "day" in by else "CAST(NULL AS integer) /* {} */"
    return f"""
        WITH part AS (
            SELECT day, {labels}, currency, {", ".join(_SUMS)}
              FROM (SELECT kind_id, {day.format("begins_at")} AS day, currency, {sums}
                      FROM (SELECT * FROM usage_bucket
                             WHERE gateway_id = :gateway_id AND span = :span
                               AND begins_at >= :begins_at AND begins_at < :ends_at
                               AND begins_at <> ALL (CAST(:divided AS timestamptz[]))
                            UNION ALL
                            SELECT quarter.*
                              FROM unnest(CAST(:divided AS timestamptz[])) AS hour (at)
                             CROSS JOIN LATERAL (  -- OFFSET 0: one look-up for each
                                   SELECT * FROM usage_bucket
                                    WHERE gateway_id = :gateway_id AND span = 'quarter'
                                      AND begins_at >= greatest(hour.at, :begins_at)
                                      AND begins_at < least(hour.at + interval '1 hour', :ends_at) OFFSET 0
                                   ) AS quarter) AS bucket
                     GROUP BY 1, 2, 3) AS rolled_up
              JOIN usage_kind AS kind ON kind.id = rolled_up.kind_id
            UNION ALL
            SELECT day, {known}, currency, {", ".join(_SUMS)}
              FROM (SELECT session_id, {day.format("created_at")} AS day, currency, count(*) AS issuances,
                           sum(num_tickets) AS tickets, sum(ev_wei) AS ev_wei, sum(fee_wei) AS fee_wei,
                           sum(charge) AS charge
                      FROM issuance
                     WHERE gateway_id = :gateway_id AND created_at >= :begins_at AND created_at >= :since
                       AND created_at < :ends_at
                     GROUP BY 1, 2, 3) AS since
              LEFT JOIN LATERAL (SELECT * FROM session WHERE id = since.session_id OFFSET 0) AS session ON true),
        summed AS (
            SELECT {names}, currency, {sums}, GROUPING({names}) > 0 AS is_total
              FROM part GROUP BY GROUPING SETS ((currency, {names}), (currency))
             ORDER BY is_total DESC, {names}, currency LIMIT :rows_max)
        SELECT progress.rolled_up_until, summed.*
          FROM usage_progress AS progress LEFT JOIN summed ON true
         ORDER BY is_total DESC, {names}, currency
    """  # noqa: S608


def _group(row: Any, asked: Question) -> Group:
    day = asked.first + timedelta(days=row.day - 1) if "day" in asked.by else None
    app, pipeline, model, job_type = (getattr(row, name) if name in asked.by else None for name in BY[1:])
    return Group(day, app, pipeline, model, job_type, row.currency, _sums(row))


def _sums(row: Any) -> Sums:
    return Sums(int(row.issuances), int(row.tickets), int(row.ev_wei), int(row.fee_wei), row.charge)
