"""Invoices that somebody changed at Stripe before they were issued, and that were paid like that.

Nobody asks a customer again who has paid, and what we asked for is not what was paid. So our invoice is taken back,
what it asked for is owed again, and what was paid is credit: the next one asks for the difference, whichever way it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ledger.money import show_amount
from clearinghouse.ledger.transfers import book
from settlement.invoices.arrived import take_back
from settlement.invoices.entries import ACTOR, amount_of, minor_booked
from settlement.invoices.notes import given_back, notes_on
from settlement.invoices.requests import shown_id
from settlement.invoices.seen import Note, Seen
from settlement.invoices.store import IN_THE_MAKING, Invoice, locked
from settlement.stripe_link.desk import Desk


async def settle_edited(desk: Desk, found: Seen) -> str | None:
    """What was done, and what an operator may do; None where it is no such invoice, or nobody can say what was paid."""
    if found.status != "paid":
        return None
    notes = await notes_on(desk, found)
    if any(note.kind == "mixed" for note in notes):
        return None
    async with desk.transaction() as connection:
        invoice = await locked(connection, found.id)
        if invoice is None or invoice.state not in IN_THE_MAKING:
            return None
        if (invoice.currency, invoice.stripe_customer_id) != (found.currency, found.customer_id):
            return None
        return await _settled(connection, invoice, found, notes)


async def follow_edited(desk: Desk, found: Seen) -> None:
    """Credit notes on one that is void here and paid at Stripe: what they give back is no debt, and not here either."""
    notes = await notes_on(desk, found)
    async with desk.transaction() as connection:
        invoice = await locked(connection, found.id)
        if notes and invoice is not None and await paid_edited_minor(connection, invoice):
            await given_back(connection, invoice, notes)


async def paid_edited_minor(connection: AsyncConnection, invoice: Invoice) -> int:
    """What of it was booked here; 0 where it was not."""
    return await minor_booked(connection, invoice, f"payment:{_key(invoice)}")


async def _settled(connection: AsyncConnection, invoice: Invoice, found: Seen, notes: Sequence[Note]) -> str:
    paid_minor = _paid_minor(found, notes)
    paid, asked = amount_of(invoice, paid_minor), amount_of(invoice, invoice.total_minor)
    name = found.number or shown_id(invoice)
    if paid_minor:
        reason = f"invoice {name} was edited at Stripe, and paid"
        await book(connection, invoice.gateway_id, "payment", paid, key=_key(invoice), reason=reason, actor=ACTOR)
    said = (
        f"invoice {name} was edited at Stripe before it was issued, and paid: {_shown(paid, invoice)} without tax, "
        f"where {shown_id(invoice)} asked for {_shown(asked, invoice)}. What was paid is in the books; "
        f"{shown_id(invoice)} is void, and the next invoice asks for the difference. If that was meant to be let off, "
        "`clearinghouse credit grant` it; if it was meant to be paid in addition, `clearinghouse credit withdraw` it"
    )
    invoice = await take_back(
        connection, invoice, why=said, remaining_minor=0, ended_at=found.ended_at or found.created_at,
        number=found.number, hosted_url=found.hosted_url, pdf_url=found.pdf_url, tax_minor=found.tax_minor,
    )  # fmt: skip
    if paid_minor:
        await given_back(connection, invoice, notes)
    return said


def _paid_minor(found: Seen, notes: Sequence[Note]) -> int:
    """Without tax, and without what credit notes took off before it was paid."""
    less_minor = sum(note.net_minor for note in notes if note.kind == "less_due" and not note.is_void)
    return max(0, found.total_minor - found.tax_minor - less_minor)


def _key(invoice: Invoice) -> str:
    return f"invoice:{invoice.id}:edited"


def _shown(amount: Decimal, invoice: Invoice) -> str:
    return f"{show_amount(amount)} {invoice.currency}"
