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
from settlement.customers.store import find_customer
from settlement.rounding import from_minor, to_minor
from settlement.statements.statement import Demand, Statement
from settlement.time_zones import local_day

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

_ASKED: Final = text(
    """SELECT count(*) FROM invoice
        WHERE gateway_id = :gateway_id AND stripe_invoice_id IS NOT NULL AND ended_at IS NULL"""
)


class NothingOwed(Conflict):
    """The balance at the end is not below 0, or by less than can be paid."""

    what_next = "Leave out --due: a statement says what is left."


class AskedByStripe(Conflict):
    """An invoice at Stripe asks for the same money."""

    what_next = "`clearinghouse invoices list` has it; only one of the two may ask."


async def demanded(
    connection: AsyncConnection, gateway_id: UUID, statement: Statement, *, pay_to: tuple[str, ...]
) -> Statement:
    """The same statement, asking for what is owed at its end, in the customer's net days.

    NothingOwed, AskedByStripe, and NoCustomer where nobody has said who pays.
    """
    customer = await find_customer(connection, gateway_id)
    if (await connection.execute(_ASKED, {"gateway_id": gateway_id})).scalar_one():
        raise AskedByStripe("an invoice of Stripe is open: to ask twice would be to be paid twice")
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
