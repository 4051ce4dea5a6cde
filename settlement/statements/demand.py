"""A statement as an invoice: what is owed at its end, until when, and how it is paid.

For gateways that pay by bank transfer and without Stripe. Nothing is stored: what is owed is what the books say, and
a payment that is booked makes it less. Fractions of what can be paid stay in the books, for the next one.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from clearinghouse.errors import Conflict
from clearinghouse.ledger.money import show_amount
from settlement.customers.details import MANUAL
from settlement.customers.store import find_customer
from settlement.invoices.documents import amount_in
from settlement.invoices.requests import period_words, shown_id
from settlement.invoices.store import IN_THE_MAKING, Invoice, asking_for_balance
from settlement.rounding import from_minor, to_minor
from settlement.statements.statement import Demand, Statement
from settlement.time_zones import local_day

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.customers.details import Customer

#: Ways with invoices, of terms that held at the end or have begun since.
_INVOICED: Final = text(
    """SELECT EXISTS (
           SELECT FROM billing_terms AS held
            WHERE gateway_id = :gateway_id AND way IN ('postpaid', 'subscription') AND begins_at <= clock_timestamp()
              AND NOT EXISTS (SELECT FROM billing_terms AS later
                               WHERE later.gateway_id = held.gateway_id AND later.begins_at > held.begins_at
                                 AND later.begins_at < :end))"""
)
#: The period that `end` is in, or ends with: planning holds all of it against `manual_until`, and not a part of it.
_WAS_MANUAL: Final = text(
    """SELECT EXISTS (SELECT FROM billing_period
                       WHERE gateway_id = :gateway_id AND begins_at < :end AND ends_at >= :end
                         AND ends_at <= CAST(:manual_until AS timestamptz))"""
)


class NothingOwed(Conflict):
    """The balance at the end is not below 0, or by less than can be paid."""

    what_next = "Leave out --due: a statement says what is left."


class AskedByStripe(Conflict):
    """An invoice at Stripe asks for the same money, or is about to."""

    what_next = (
        "Only one of the two may ask. Leave out --due, or take that invoice back first: `clearinghouse invoices void`."
    )


class PaidAtStripe(Conflict):
    """An invoice at Stripe has asked for the same money, and was paid, credited, or both."""

    what_next = "Leave out --due. What is owed since then is on the statement of a later period."


class StripeWillAsk(Conflict):
    """The gateway's periods are asked for by invoices of Stripe, and this one will be, or be carried to the next."""

    what_next = "Have it asked without Stripe first: `clearinghouse customers set GATEWAY --collection manual`."


async def demanded(
    connection: AsyncConnection, gateway_id: UUID, statement: Statement, *, pay_to: tuple[str, ...]
) -> Statement:
    """The same statement, asking for what is owed at its end, in the customer's net days.

    Whether Stripe is in use is not asked: whoever runs this need not have the key that a worker has.

    NothingOwed, AskedByStripe, PaidAtStripe, StripeWillAsk, and NoCustomer where nobody has said who pays.
    """
    customer, end = await find_customer(connection, gateway_id), statement.period.end
    await _require_not_asked(connection, gateway_id, end)
    if not await _is_manual(connection, customer, end):
        await _require_no_invoices(connection, customer, end)
    owed_minor = to_minor(statement.closing.copy_negate(), statement.currency)
    if owed_minor <= 0:
        raise NothingOwed(f"the balance at the end is {show_amount(statement.closing)} {statement.currency.code}")
    owed = from_minor(owed_minor, statement.currency)
    issued_on = local_day(statement.issued_at, statement.period.zone)
    return replace(
        statement,
        demand=Demand(
            items=(("Owed at the end of the period", owed),),
            amount=owed,
            due_on=issued_on + timedelta(days=customer.net_days),
            pay_to=pay_to,
            purchase_order=customer.po_number,
        ),
    )


async def _is_manual(connection: AsyncConnection, customer: Customer, end: datetime) -> bool:
    """What was owed at `end` is not for Stripe to ask for: now, or since the period was over, and closed, by then."""
    if customer.collection == MANUAL:
        return True
    values = {"gateway_id": customer.gateway_id, "end": end, "manual_until": customer.manual_until}
    was_manual: bool = (await connection.execute(_WAS_MANUAL, values)).scalar_one()
    return was_manual


async def _require_no_invoices(connection: AsyncConnection, customer: Customer, end: datetime) -> None:
    """Raises StripeWillAsk where the way then, or any since, is one with invoices."""
    values = {"gateway_id": customer.gateway_id, "end": end}
    if (await connection.execute(_INVOICED, values)).scalar_one():
        raise StripeWillAsk(f"invoices of Stripe ask {customer.name} for what it owes ({customer.collection})")


async def _require_not_asked(connection: AsyncConnection, gateway_id: UUID, end: datetime) -> None:
    """Neither in part nor by a later one, whatever became of it. Raises AskedByStripe, PaidAtStripe."""
    asking = await asking_for_balance(connection, gateway_id, end)
    if not asking:
        return
    first, refusal = asking[0], PaidAtStripe if asking[0].state == "paid" else AskedByStripe
    carries = " It asks for what was owed before, too." if first.begins_at >= end else ""
    others = f" And {len(asking) - 1} more: `clearinghouse invoices list`." if len(asking) > 1 else ""
    raise refusal(f"invoice {_named(first)} of Stripe {_state_words(first)}.{carries}{others}")


def _named(invoice: Invoice) -> str:
    number = f"{invoice.number} ({shown_id(invoice)})" if invoice.number else shown_id(invoice)
    return f"{number} for {period_words(invoice)}"


def _state_words(invoice: Invoice) -> str:
    """What became of it, with amounts as they are in the books: without tax, which Stripe adds."""
    paid, credited, asked = (
        amount_in(invoice, minor) for minor in (invoice.booked_minor, invoice.credited_minor, invoice.total_minor)
    )
    if invoice.state in IN_THE_MAKING:
        return f"is {invoice.state}, and will ask for {asked}"
    parts = f"{paid} were paid" + (f" and {credited} credited" if invoice.credited_minor else "")
    if invoice.state == "paid":
        return f"is paid: {parts}" + (", and another took its place" if invoice.replaced_at is not None else "")
    so_far = f": {parts}" if invoice.booked_minor or invoice.credited_minor else ""
    if invoice.state == "uncollectible":
        return f"is uncollectible, may still be paid, and asks for {asked}{so_far}"
    return f"is {invoice.state}, and asks for {asked}{so_far}"
