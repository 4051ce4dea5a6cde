"""Changes of the way a gateway is billed: where a period ends and never before, planned, replaced and taken back.

    … ──[ terms that hold )──┬──[ the change )── …      deciding: agreed.py, settlement/periods.py
                             boundary                   holding: apply_due_terms, in the commit itself

What the database refuses it refuses to everybody: terms that have begun do not change (migrations/sql/0001_terms.sql).
In role clearinghouse_admin, in the caller's transaction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from clearinghouse.errors import Conflict, InvalidRequest
from clearinghouse.instants import parse_rfc3339, rfc3339
from settlement.customers.agreed import agree
from settlement.customers.calendar import reckon
from settlement.customers.terms import DEFAULT_TERMS, Terms, all_terms, terms_row
from settlement.timelines import timeline_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.identity.gateways import Gateway
    from settlement.periods import Period, Timeline

#: So many periods ahead a change can be planned: four years of weeks.
_AHEAD_COUNT: Final = 210
#: What begins at once holds at once; for all who are due, as a service does every second.
_APPLY: Final = "SELECT apply_all_due_terms()"
_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The terms that hold, the period that runs, and what is to come, oldest first."""

    now: Terms
    period: Period
    to_come: tuple[Terms, ...]


async def schedule(connection: AsyncConnection, gateway: Gateway) -> Schedule:
    """As of the database's clock."""
    at = await _now(connection)
    period = (await timeline_of(connection, gateway.id)).period_at(at)
    agreed = await all_terms(connection, gateway.id)
    begun = [terms for terms in agreed if _begins_at(terms) <= at]
    return Schedule(begun[-1] if begun else DEFAULT_TERMS, period, tuple(agreed[len(begun) :]))


async def change_terms(
    connection: AsyncConnection, gateway: Gateway, given: Mapping[str, str], *, begins: str, actor: str
) -> Schedule:
    """From `begins` on, which is `next`, a period's first day or its month, or `start`, other terms hold.

    They are made of the ones before, as `agree` does. Whatever was to begin then or later is replaced; if nothing would
    change, it is only taken back. `start`: from the gateway's creation, while nothing was signed for it.
    InvalidRequest, or Conflict where that has begun meanwhile.
    """
    await _lock(connection, gateway)
    at = await _now(connection)
    if begins == "start":
        begins_at, before = gateway.created_at, DEFAULT_TERMS
    else:
        begins_at = _boundary(await timeline_of(connection, gateway.id), at, begins)
        before = await _terms_before(connection, gateway, begins_at)
    terms = agree(before, given, currency=gateway.currency, begins_at=begins_at)
    remove = "DELETE FROM billing_terms WHERE gateway_id = :gateway_id AND begins_at >= :begins_at"
    await _changed(connection, remove, {"gateway_id": gateway.id, "begins_at": begins_at})
    if replace(terms, begins_at=None) != replace(before, begins_at=None):
        await _insert(connection, gateway, terms, actor)
    await reckon(connection, gateway.id, await _now(connection))
    await connection.execute(text(_APPLY))
    return await schedule(connection, gateway)


async def cancel_changes(connection: AsyncConnection, gateway: Gateway) -> Schedule:
    """Takes back all that is still to come. Conflict where there is nothing."""
    await _lock(connection, gateway)
    remove = "DELETE FROM billing_terms WHERE gateway_id = :gateway_id AND begins_at > clock_timestamp()"
    if not await _changed(connection, remove, {"gateway_id": gateway.id}):
        raise Conflict(f"nothing is to change for {gateway.name}")
    await reckon(connection, gateway.id, await _now(connection))
    return await schedule(connection, gateway)


def parse_end(words: str) -> datetime | None:
    """Of free terms, as it is typed: RFC 3339, or `never`. InvalidRequest for what is neither."""
    return None if words == "never" else parse_rfc3339(words)


async def set_end_of_free_terms(connection: AsyncConnection, gateway: Gateway, ends_at: datetime | None) -> Schedule:
    """Moves the end of the free terms that hold to another instant to come, or takes it away."""
    await _lock(connection, gateway)
    held = (await schedule(connection, gateway)).now
    if held.way != "free":
        raise Conflict(f"{gateway.name} is not billed as free: {held.way} terms have no end")
    if ends_at is not None and ends_at <= await _now(connection):
        raise Conflict(
            f"that is past: free terms end at an instant that is to come, or never; not at {rfc3339(ends_at)}"
        )
    move = "UPDATE billing_terms SET ends_at = :ends_at WHERE gateway_id = :gateway_id AND begins_at = :begins_at"
    await _changed(connection, move, {"gateway_id": gateway.id, "ends_at": ends_at, "begins_at": held.begins_at})
    await connection.execute(text(_APPLY))
    return await schedule(connection, gateway)


def _boundary(timeline: Timeline, at: datetime, begins: str) -> datetime:
    """The begin of the period that is called so, which is still to come."""
    period = timeline.period_at(at)
    if begins == "next":
        return period.end
    if _MONTH.fullmatch(begins) is None and _date(begins) is None:
        raise InvalidRequest(f"terms begin at next, in a month (2026-12) or on a day (2026-12-15), not {begins[:64]!r}")
    before, coming = period, timeline.after(period)
    for _ in range(_AHEAD_COUNT):
        if coming.id.startswith(begins):
            return coming.begin
        if coming.id > begins:
            break
        before, coming = coming, timeline.after(coming)
    first = timeline.after(period)
    if before is period:
        raise InvalidRequest(f"no period that is to come begins on {begins}: the next one begins on {first.id}")
    raise InvalidRequest(f"no period begins on {begins}: one does on {before.id}, and the next on {coming.id}")


def _date(words: str) -> date | None:
    try:
        return date.fromisoformat(words) if len(words) == len("2026-12-15") else None
    except ValueError:
        return None


async def _terms_before(connection: AsyncConnection, gateway: Gateway, begins_at: datetime) -> Terms:
    """Those that end there."""
    earlier = [terms for terms in await all_terms(connection, gateway.id) if _begins_at(terms) < begins_at]
    return earlier[-1] if earlier else DEFAULT_TERMS


async def _insert(connection: AsyncConnection, gateway: Gateway, terms: Terms, actor: str) -> None:
    values = {"gateway_id": gateway.id, "created_by": actor, **terms_row(terms)}
    insert = f"INSERT INTO billing_terms ({', '.join(values)}) VALUES (:{', :'.join(values)})"  # noqa: S608
    await _changed(connection, insert, values)


async def _changed(connection: AsyncConnection, query: str, values: Mapping[str, object]) -> int:
    """How many rows. Conflict where the database says that they are past."""
    try:
        async with connection.begin_nested():
            return (await connection.execute(text(query), values)).rowcount
    except DBAPIError as error:
        if isinstance(error.orig, InsufficientPrivilege) and "have begun" in str(error.orig):
            raise Conflict(
                "that is past: terms that have begun do not change, nor do any begin where payments were signed"
            ) from error
        raise


async def _lock(connection: AsyncConnection, gateway: Gateway) -> None:
    """One change at a time, and none while payments of the gateway are committed."""
    await connection.execute(text("SELECT FROM account WHERE id = :id FOR NO KEY UPDATE"), {"id": gateway.id})


async def _now(connection: AsyncConnection) -> datetime:
    """As commits see it, not when the transaction began: it may have waited."""
    now: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return now.astimezone(UTC)


def _begins_at(terms: Terms) -> datetime:
    assert terms.begins_at is not None, "what was agreed on begins at some time"
    return terms.begins_at
