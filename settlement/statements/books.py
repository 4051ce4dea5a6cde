"""A statement from the books: the balance at both ends, what came and went, and what was used in between.

    balance now ── all entries since the end ──▶ closing
                ── all entries since the begin ─▶ opening        opening + movements - usage = closing, or no statement

Changes nothing, and reads in one snapshot. A span that has ended is waited for until nothing in it can change any more,
so that the same one comes out whenever it is asked for. In role clearinghouse_admin: accounts are locked for that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.database.connect import snapshot
from clearinghouse.issuances import BETWEEN, between
from clearinghouse.ledger.money import show_amount
from settlement.currencies import account_currency
from settlement.rounding import DoesNotAddUp, quotient
from settlement.statements.choice import Chosen
from settlement.statements.statement import Movement, Party, Span, Statement, UsageLine
from settlement.timelines import timeline_of
from settlement.units import TICKET, UNITS

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from settlement.periods import Timeline

#: A third of a minute is no decimal. What is shown of it is not what is charged by.
_QUANTITY_DECIMALS: Final = 12

_BALANCES: Final = text(
    """WITH usage AS (
           SELECT coalesce(sum(charge), 0) AS since_begin,
                  coalesce(sum(charge) FILTER (WHERE created_at >= :end), 0) AS since_end
             FROM issuance WHERE gateway_id = :gateway_id AND id >= :first_id AND created_at >= :begin),
       moved AS (
           SELECT coalesce(sum(amount), 0) AS since_begin,
                  coalesce(sum(amount) FILTER (WHERE created_at >= :end), 0) AS since_end
             FROM (SELECT amount, created_at FROM transfer WHERE destination = :gateway_id
                   UNION ALL SELECT -amount, created_at FROM transfer WHERE source = :gateway_id) AS posted
            WHERE created_at >= :begin)
       SELECT account.currency, gateway.name,
              balance + usage.since_begin - moved.since_begin AS opening,
              balance + usage.since_end - moved.since_end AS closing
         FROM account JOIN gateway ON gateway.id = account.id CROSS JOIN usage CROSS JOIN moved
        WHERE account.id = :gateway_id"""
)
_MOVEMENTS: Final = text(
    """SELECT id, kind, CASE WHEN destination = :gateway_id THEN amount ELSE -amount END AS amount, reason, created_at
         FROM transfer
        WHERE (source = :gateway_id OR destination = :gateway_id) AND created_at >= :begin AND created_at < :end"""
)
# By session first: there are far fewer than issuances, and they have the names. A call without one, which
# `ledger verify` would find, is a call, too, as in the period that was closed.
_LINES: Final = text(
    f"""SELECT coalesce(app, '') AS app, coalesce(session.pipeline, '') AS pipeline,
               coalesce(session.model, '') AS model, card, version, per, base_per_unit, sum(calls)::bigint AS calls,
               sum(tickets) AS tickets, sum(quantity) AS quantity, sum(ev_wei) AS ev_wei, sum(charge) AS charge
          FROM (SELECT session_id, rate_rule, count(*) AS calls, sum(num_tickets) AS tickets,
                       sum(quantity) AS quantity, sum(ev_wei) AS ev_wei, sum(charge) AS charge
                  FROM issuance WHERE gateway_id = :gateway_id {BETWEEN} GROUP BY session_id, rate_rule) AS used
          LEFT JOIN session ON session.id = used.session_id
          LEFT JOIN rate_rule ON rate_rule.id = used.rate_rule
         GROUP BY app, session.pipeline, session.model, rate_rule.id"""  # noqa: S608
)
_CLOSED: Final = text(
    """SELECT begins_at, ends_at, time_zone, opening, usage, closing FROM billing_period
        WHERE gateway_id = :gateway_id AND first_day::text = :name"""
)
_LOCK: Final = text("SELECT id FROM account WHERE id = :gateway_id FOR NO KEY UPDATE")
_CUSTOMER: Final = text("SELECT * FROM customer WHERE gateway_id = :gateway_id")


@dataclass(frozen=True, slots=True)
class Account:
    """A statement, and whether nothing in it can change any more. One that can ends where the books end now."""

    statement: Statement
    is_final: bool


async def statement_of(
    engine: AsyncEngine, gateway_id: UUID, choose: Callable[[Timeline, datetime], Chosen], *, issuer: Party
) -> Account:
    """The gateway's statement over the span that `choose` finds on its timeline, given the time.

    NotFound without the gateway, whatever `choose` raises, and settlement.rounding.DoesNotAddUp where the books are
    not in order.
    """
    chosen, settled_until = await settled(engine, gateway_id, choose)
    is_final = chosen.span.end <= settled_until
    span = chosen.span if is_final else replace(chosen.span, end=max(settled_until, chosen.span.begin))
    async with snapshot(engine) as connection:
        return Account(await read_statement(connection, gateway_id, chosen.name, span, issuer=issuer), is_final)


async def settled(
    engine: AsyncEngine, gateway_id: UUID, choose: Callable[[Timeline, datetime], Chosen]
) -> tuple[Chosen, datetime]:
    """The span, and the instant before which the gateway's entries are all committed."""
    async with engine.begin() as connection:
        timeline = await timeline_of(connection, gateway_id)
        # Every entry gets its time under this lock: those of an earlier one are committed, for ever.
        await connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        await connection.execute(_LOCK, {"gateway_id": gateway_id})
        until: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
        chosen = choose(timeline, until)
        closed = await _closed(connection, gateway_id, chosen.name)
    if closed is not None:  # where it was closed it begins and ends, whatever has become of the rules of its time zone
        chosen = Chosen(chosen.name, Span(closed["begins_at"], closed["ends_at"], closed["time_zone"]))
    return chosen, until


async def read_statement(
    connection: AsyncConnection, gateway_id: UUID, name: str, span: Span, *, issuer: Party
) -> Statement:
    """In the caller's snapshot, which must have begun when nothing before `span.end` was still being booked."""
    parameters = between(gateway_id, span.begin, span.end)
    book = (await connection.execute(_BALANCES, parameters)).mappings().one()
    customer = (await connection.execute(_CUSTOMER, parameters)).mappings().one_or_none()
    movements = (await connection.execute(_MOVEMENTS, parameters)).mappings()
    lines = (await connection.execute(_LINES, parameters)).mappings()
    statement = Statement(
        number=f"{book['name']}-{name}",
        issuer=issuer,
        customer=Party(book["name"]) if customer is None else _party(customer),
        period=span,
        issued_at=span.end,
        currency=account_currency(book["currency"]),
        opening=book["opening"],
        movements=tuple(map(_movement, movements)),
        lines=tuple(map(_line, lines)),
        closing=book["closing"],
        locale="en" if customer is None else customer["locale"],
    )
    _require_as_closed(statement, await _closed(connection, gateway_id, name))
    return statement


async def _closed(connection: AsyncConnection, gateway_id: UUID, name: str) -> Any:
    """The period of that name as it was closed, if it was."""
    found = await connection.execute(_CLOSED, {"gateway_id": gateway_id, "name": name})
    return found.mappings().one_or_none()


def _require_as_closed(statement: Statement, closed: Any) -> None:
    """Invoices stand on what a period was closed with: a statement that says otherwise must not leave the house."""
    if closed is None:
        return
    found = (statement.opening, statement.usage, statement.closing)
    stored = (closed["opening"], closed["usage"], closed["closing"])
    if found != stored:
        shown, expected = (", ".join(map(show_amount, amounts)) for amounts in (found, stored))
        raise DoesNotAddUp(f"{statement.number} has opening, usage and closing {shown}, but was closed with {expected}")


def _movement(row: Any) -> Movement:
    return Movement(row["created_at"], row["kind"], row["amount"], ids.show("tr", row["id"]), row["reason"])


def _line(row: Any) -> UsageLine:
    quantity, unit = row["tickets"], TICKET.many  # of calls that are charged by what their tickets cost
    if row["quantity"] is not None and row["per"] in UNITS:
        quantity, unit = quotient(row["quantity"], row["base_per_unit"], _QUANTITY_DECIMALS), UNITS[row["per"]].many
    rate = "" if row["card"] is None else f"{row['card']} {row['version']}"
    return UsageLine(
        app=row["app"],
        pipeline=row["pipeline"],
        model=row["model"],
        rate=rate,
        quantity=quantity,
        unit=unit,
        calls=row["calls"],
        ev_wei=int(row["ev_wei"]),
        amount=row["charge"],
    )


def _party(customer: Any) -> Party:
    place = " ".join(filter(None, (customer["postal_code"], customer["city"])))
    lines = (
        customer["line1"], customer["line2"], place, customer["state"], customer["country"], customer["email"],
        customer["tax_id"],
    )  # fmt: skip
    return Party(customer["name"], tuple(filter(None, lines)))
