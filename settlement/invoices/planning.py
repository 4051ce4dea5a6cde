"""From closed periods to our rows: what is due is derived from the books, each period once, oldest first.

A period whose invoice is not planned yet keeps the later ones of its gateway waiting: what they carry follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import bindparam

from clearinghouse import ids
from clearinghouse.errors import Refusal
from clearinghouse.ledger.money import show_amount
from settlement.currencies import account_currency, currency
from settlement.customers.details import MANUAL, Collection
from settlement.invoices.defaults import InvoiceDefaults
from settlement.invoices.owed import Books, Line, Owed, not_by_stripe, owed_for, owed_in_advance
from settlement.invoices.store import CHOSEN, Choice, Invoice, Kind, find
from settlement.invoices.usage_lines import Usage


class NoPayer(Refusal):
    """Something is owed, and nobody is known who could be asked for it."""

    code, http_status = "no_customer", 409
    what_next = "Say who pays for the gateway: `clearinghouse customers set`."


@dataclass(frozen=True, slots=True)
class Due:
    """A closed period, or one of a subscription, that has no invoice yet."""

    gateway_id: UUID
    gateway_name: str
    kind: Kind
    begins_at: datetime
    ends_at: datetime
    first_day: date
    next_day: date
    currency: str


@dataclass(frozen=True, slots=True)
class Manner:
    """How a gateway is asked; the footer is everybody's. `payment_settings` as Stripe takes them; None: it chooses."""

    collection: Collection = "send_invoice"
    net_days: int = 0
    is_taxed: bool = False
    po_number: str = ""
    footer: str = ""
    memo: str = ""
    payment_settings: dict[str, Any] | None = None


async def all_due(connection: AsyncConnection, choice: Choice) -> list[Due]:
    """Closed periods without an invoice, also those before the chosen ones of a gateway, which come first; and those of
    subscriptions whose fee was charged. By gateway, in their order."""
    usage = await connection.execute(text(_DUE_USAGE), choice.values)
    fees = await connection.execute(text(_DUE_FEES), choice.values)
    due = [Due(**row) for row in (*usage.mappings(), *fees.mappings())]
    return sorted(due, key=lambda each: (each.gateway_name, each.begins_at, each.kind))


async def plan(connection: AsyncConnection, due: Due, *, defaults: InvoiceDefaults) -> Invoice | None:
    """Our row for it. None where it has one by now, or must wait for an earlier one. Raises as `plan_usage` does.

    The caller's transaction has the gateway's turn: `its_turn`.
    """
    planner = plan_usage if due.kind == "usage" else plan_fee
    return await planner(connection, due, defaults=defaults)


async def plan_fee(connection: AsyncConnection, due: Due, *, defaults: InvoiceDefaults) -> Invoice | None:
    """Our row for a subscription's period, which the fee in the books then belongs to. None where it has one."""
    if await _next_revision(connection, due):
        return None
    return await _insert_fee(connection, due, defaults, asked_at=due.begins_at)


async def plan_usage(connection: AsyncConnection, due: Due, *, defaults: InvoiceDefaults) -> Invoice | None:
    """Our row for a period. None where it has one by now, or an earlier one has none: in its order, each once.

    Raises NoPayer, InvalidRequest for a currency that nobody is billed in, and DoesNotAddUp.
    """
    values = {"gateway_id": due.gateway_id, "begins_at": due.begins_at}
    if (await connection.execute(text(_IS_NEXT), values)).scalar_one() is not True:
        return None
    owed = owed_for(await _books(connection, due), account_currency(due.currency))
    manner = await manner_of(connection, due, owed, defaults, asked_at=due.ends_at)
    return await insert(connection, due, _asked_so(due, owed, manner), manner)


async def plan_revision(
    connection: AsyncConnection, replaced: Invoice, *, defaults: InvoiceDefaults, memo: str = ""
) -> Invoice:
    """The row that takes the place of a void one, or of one that was credited in whole because its period was rated
    anew; from the books as they are now, which no other invoice may carry.

    It is at Stripe, as that one was, also where the gateway is asked without Stripe by now: a credit of Stripe's for
    the one pays the other."""
    due = Due(
        replaced.gateway_id, replaced.gateway_name, replaced.kind, replaced.begins_at, replaced.ends_at,
        replaced.first_day, replaced.next_day, replaced.currency,
    )  # fmt: skip
    if due.kind == "subscription":
        return await _insert_fee(connection, due, defaults)
    owed = owed_for(await _books(connection, due), currency(due.currency))
    manner = await manner_of(connection, due, owed, defaults)
    if manner.collection == MANUAL:
        settings = defaults.payment_settings(replaced.collection, due.currency)
        manner = replace(manner, collection=replaced.collection, payment_settings=settings)
    return await insert(connection, due, owed, replace(manner, memo=memo))


async def owed_beside(connection: AsyncConnection, gateway_id: UUID, begins_at: datetime) -> str:
    """Why an invoice in place of this period's would ask for more, or less, than the period: something of it or of an
    earlier one is owed again since (its invoice is void), or was carried, and a later invoice may ask for it as well.
    Empty where it would not."""
    query = """SELECT unbilled(gateway_id, ends_at, closing) FROM billing_period
                WHERE gateway_id = :gateway_id AND begins_at = :begins_at"""
    owed = (await connection.execute(text(query), {"gateway_id": gateway_id, "begins_at": begins_at})).scalar_one()
    return f"{show_amount(owed)} is owed beside the period, which another invoice may ask for" if owed else ""


async def manner_of(
    connection: AsyncConnection, due: Due, owed: Owed, defaults: InvoiceDefaults, *, asked_at: datetime | None = None
) -> Manner:
    """As it is agreed on with the gateway now; what could be asked for from `asked_at` on, and was asked for without
    Stripe until later, stays so. Raises NoPayer where something is asked for, and nobody is known.

    Until the transaction ends nobody agrees on another: what is being planned for Stripe is seen by whoever asks
    without it, or is not for Stripe."""
    query = """SELECT CASE WHEN manual_until >= CAST(:asked_at AS timestamptz) THEN 'manual' ELSE collection END
                          AS collection, net_days, is_taxed, po_number
                 FROM customer WHERE gateway_id = :gateway_id FOR SHARE"""
    values = {"gateway_id": due.gateway_id, "asked_at": asked_at}
    row = (await connection.execute(text(query), values)).mappings().one_or_none()
    if row is not None:
        settings = defaults.payment_settings(row["collection"], due.currency)
        return Manner(**row, footer=defaults.footer, payment_settings=settings)
    if owed.state == "planned":
        raise NoPayer(f"{due.gateway_name} owes for the period from {due.first_day}, and has no customer")
    return Manner()


def _asked_so(due: Due, owed: Owed, manner: Manner) -> Owed:
    """Raises InvalidRequest for a currency that Stripe bills nobody in, where it would have to."""
    if manner.collection == MANUAL:
        return not_by_stripe(owed)
    if owed.state == "planned":
        currency(due.currency)  # an account may be in what nobody is billed in, as long as it owes nothing
    return owed


async def _insert_fee(
    connection: AsyncConnection, due: Due, defaults: InvoiceDefaults, *, asked_at: datetime | None = None
) -> Invoice:
    values = {"gateway_id": due.gateway_id, "begins_at": due.begins_at}
    fee, included, fee_id = (await connection.execute(text(_FEE), values)).one()
    owed = owed_in_advance(fee, included or None, account_currency(due.currency))
    manner = await manner_of(connection, due, owed, defaults, asked_at=asked_at)
    made = await insert(connection, due, _asked_so(due, owed, manner), manner)
    own = text("INSERT INTO invoice_entry (transfer_id, invoice_id) VALUES (:fee_id, :invoice_id)")
    await connection.execute(own, {"fee_id": fee_id, "invoice_id": made.id})
    return made


async def insert(connection: AsyncConnection, due: Due, owed: Owed, manner: Manner) -> Invoice:
    """The row and its lines. Raises IntegrityError (invoice_one) where the period has an invoice that is not void."""
    invoice_id = ids.uuid7()
    values: dict[str, Any] = {
        "id": invoice_id, "gateway_id": due.gateway_id, "kind": due.kind, "begins_at": due.begins_at,
        "ends_at": due.ends_at, "first_day": due.first_day, "next_day": due.next_day,
        "revision": await _next_revision(connection, due), "currency": due.currency,
        "decimals": account_currency(due.currency).decimals, "exact": owed.exact, "total_minor": owed.total_minor,
        "state": owed.state, **asdict(manner),
    }  # fmt: skip
    names = ", ".join(values)
    marks = ", ".join(f":{name}" for name in values)
    query = text(f"INSERT INTO invoice ({names}) VALUES ({marks})")  # noqa: S608
    settings_type = JSONB(none_as_null=True)
    await connection.execute(query.bindparams(bindparam("payment_settings", type_=settings_type)), values)
    if owed.lines:
        lines = [_line_values(invoice_id, position, line) for position, line in enumerate(owed.lines, 1)]
        await connection.execute(_INSERT_LINE, lines)
    made = await find(connection, invoice_id)
    assert made is not None, "it was just made"
    return made


async def one_at_a_time(connection: AsyncConnection, gateway_id: UUID) -> None:
    """Until the transaction ends, nobody else plans for this gateway: what is owed depends on what was asked for."""
    query = "SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"
    await connection.execute(text(query), {"name": _turn_of(gateway_id)})


async def its_turn(connection: AsyncConnection, gateway_id: UUID) -> bool:
    """As `one_at_a_time`, and without waiting: False where somebody else has the turn, such as a long re-rating."""
    query = "SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))"
    is_ours: bool = (await connection.execute(text(query), {"name": _turn_of(gateway_id)})).scalar_one()
    return is_ours


def _turn_of(gateway_id: UUID) -> str:
    return f"invoices of {gateway_id}"


async def books_between(
    connection: AsyncConnection,
    gateway_id: UUID,
    *,
    begins_at: datetime,
    ends_at: datetime,
    opening: Decimal,
    closing: Decimal,
    usage: tuple[Usage, ...],
) -> Books:
    """What an invoice would say of that time: of its entries only those that no invoice has."""
    values = {
        "gateway_id": gateway_id, "begins_at": begins_at, "ends_at": ends_at, "opening": opening, "closing": closing,
    }  # fmt: skip
    before, owed = (await connection.execute(text(_UNBILLED), values)).one()
    rows = await connection.execute(text(_ENTERED), values)
    entered: dict[str, Decimal] = {row.kind: row.amount for row in rows}
    return Books(before, usage, entered, owed)


async def _books(connection: AsyncConnection, due: Due) -> Books:
    values = {"gateway_id": due.gateway_id, "begins_at": due.begins_at}
    opening, closing = (await connection.execute(text(_BALANCES), values)).one()
    usage = [usage_of(row) for row in (await connection.execute(text(_USAGE), values)).mappings()]
    return await books_between(
        connection, due.gateway_id, begins_at=due.begins_at, ends_at=due.ends_at, opening=opening, closing=closing,
        usage=tuple(usage),
    )  # fmt: skip


def usage_of(row: Mapping[Any, Any]) -> Usage:
    """A row of billing_line, whatever a rate card says of it besides."""
    return Usage(
        app=row["app"], pipeline=row["pipeline"], model=row["model"], markup_bps=row["markup_bps"],
        calls_count=row["calls_count"], tickets_count=row["tickets_count"], ev_wei=int(row["ev_wei"]),
        charge=row["charge"], rate_rule=row.get("rate_rule"), quantity=row.get("quantity"), unit=row.get("unit"),
    )  # fmt: skip


async def _next_revision(connection: AsyncConnection, due: Due) -> int:
    query = """SELECT coalesce(max(revision) + 1, 0) FROM invoice
                WHERE gateway_id = :gateway_id AND kind = :kind AND begins_at = :begins_at"""
    values = {"gateway_id": due.gateway_id, "kind": due.kind, "begins_at": due.begins_at}
    return int((await connection.execute(text(query), values)).scalar_one())


def _line_values(invoice_id: UUID, position: int, line: Line) -> dict[str, Any]:
    return {
        "invoice_id": invoice_id, "position": position, "kind": line.kind, "description": line.description,
        "exact": line.exact, "amount_minor": line.amount_minor, "facts": dict(line.facts),
    }  # fmt: skip


_INSERT_LINE: Final = text("""
    INSERT INTO invoice_line (invoice_id, position, kind, description, exact, amount_minor, facts)
    VALUES (:invoice_id, :position, :kind, :description, :exact, :amount_minor, :facts)
""").bindparams(bindparam("facts", type_=JSONB))
#: Periods of a gateway that an invoice asks for, and none does yet. They are planned in their order (`_IS_NEXT`): so
#: these are those after the last that has one, two looks into an index, however many months there were. OFFSET 0 keeps
#: each gateway's look its own; joined as a whole, all periods that there ever were would be read.
_UNASKED: Final = """
    gateway CROSS JOIN LATERAL (
        SELECT coalesce(max(begins_at), '-infinity') AS at FROM invoice
         WHERE invoice.gateway_id = gateway.id AND kind = 'usage') AS last_asked
    CROSS JOIN LATERAL (
        SELECT * FROM billing_period WHERE billing_period.gateway_id = gateway.id AND begins_at > last_asked.at
           AND way IN ('postpaid', 'subscription') OFFSET 0) AS period
"""
_DUE_USAGE: Final = f"""
    WITH unasked AS (
        SELECT gateway.name AS gateway_name, period.* FROM {_UNASKED}
         WHERE CAST(:gateway_id AS uuid) IS NULL OR gateway.id = :gateway_id),
    chosen AS (SELECT gateway_id, max(begins_at) AS last FROM unasked WHERE {CHOSEN} GROUP BY gateway_id)
    SELECT gateway_id, gateway_name, 'usage' AS kind, begins_at, ends_at, first_day, next_day, currency
      FROM unasked JOIN chosen USING (gateway_id) WHERE begins_at <= last ORDER BY gateway_name, begins_at
"""  # noqa: S608 - our words
_IS_NEXT: Final = f"SELECT :begins_at = min(begins_at) FROM {_UNASKED} WHERE gateway.id = :gateway_id"  # noqa: S608
_BALANCES: Final = (
    "SELECT opening, closing FROM billing_period WHERE gateway_id = :gateway_id AND begins_at = :begins_at"
)
_DUE_FEES: Final = f"""
    SELECT period.gateway_id, gateway.name AS gateway_name, 'subscription' AS kind, period.begins_at, period.ends_at,
           period.first_day, period.next_day, account.currency
      FROM (SELECT * FROM subscription_period WHERE fee_id IS NOT NULL AND {CHOSEN}) AS period
      JOIN gateway ON gateway.id = period.gateway_id JOIN account ON account.id = period.gateway_id
     WHERE NOT EXISTS (
           SELECT FROM invoice WHERE invoice.gateway_id = period.gateway_id AND invoice.kind = 'subscription'
              AND invoice.begins_at = period.begins_at)
"""  # noqa: S608 - our words
_FEE: Final = """
    SELECT fee, included, fee_id FROM subscription_period WHERE gateway_id = :gateway_id AND begins_at = :begins_at
"""
#: As they were closed, unless an invoice of theirs gave way to one by corrected rates.
_USAGE: Final = """
    WITH anew AS (
        SELECT id FROM rerating WHERE gateway_id = :gateway_id AND begins_at = :begins_at AND state = 'done'
           AND invoice_id IS NOT NULL AND difference <> 0 ORDER BY as_of DESC LIMIT 1)
    SELECT app, pipeline, model, markup_bps, calls_count, tickets_count, ev_wei, charge, rate_rule, quantity, unit
      FROM billing_line WHERE gateway_id = :gateway_id AND begins_at = :begins_at AND NOT EXISTS (SELECT FROM anew)
     UNION ALL
    SELECT app, pipeline, model, markup_bps, calls_count, tickets_count, ev_wei, charge, rate_rule, quantity, unit
      FROM rerated_line WHERE rerating_id = (SELECT id FROM anew)
     ORDER BY charge DESC, app, pipeline, model, markup_bps, rate_rule
"""
_UNBILLED: Final = """
    SELECT unbilled(:gateway_id, :begins_at, :opening), unbilled(:gateway_id, :ends_at, :closing)
"""
_ENTERED: Final = """
    SELECT kind, sum(amount) AS amount FROM account_entry
     WHERE gateway_id = :gateway_id AND effective_at >= :begins_at AND effective_at < :ends_at AND NOT is_invoiced
       AND NOT is_rerated
     GROUP BY kind ORDER BY kind
"""
