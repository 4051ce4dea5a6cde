"""What is done when Stripe has news of an invoice: it is asked for, and our row and the books follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.invoices.arrived import arrive
from settlement.invoices.edited import follow_edited, settle_edited
from settlement.invoices.entries import Disagrees
from settlement.invoices.seen import seen
from settlement.invoices.store import NOT_FINAL, find_at_stripe
from settlement.stripe_link.client import StripeRefused
from settlement.stripe_link.desk import Desk, Park

_GONE: Final = "resource_missing"


async def heard_of_invoice(desk: Desk, stripe_id: str) -> str:
    """Handler of invoices. Raises Park where Stripe's differs from what we asked for: a person has to look."""
    async with desk.engine.connect() as connection:
        ours = await find_at_stripe(connection, stripe_id)
    if ours is None:
        return "not one of ours, or not yet: whoever makes it goes on"
    asked_at = await desk.now()
    try:
        found = seen(await desk.link.call(desk.link.client.v1.invoices.retrieve_async, stripe_id), asked_at)
    except StripeRefused as refused:
        if refused.code != _GONE:
            raise
        if ours.state == "void":
            return "nothing to do"
        raise Park(f"{stripe_id} is gone from Stripe: `clearinghouse invoices void` lets it go here, too") from refused
    try:
        invoice = await arrive(desk, found)
    except Disagrees as reason:
        raise Park(await settle_edited(desk, found) or str(reason)) from reason
    assert invoice is not None, "no row is ever removed"
    if invoice.state == "void" and found.status == "paid":
        await follow_edited(desk, found)
    return f"it is {invoice.state}" if invoice.state != ours.state else "nothing to do"


async def heard_of_credit_note(desk: Desk, note_id: str) -> str:
    """Handler of credit notes: they are looked at with their invoice."""
    found = await desk.link.call(desk.link.client.v1.credit_notes.retrieve_async, note_id)
    return await heard_of_invoice(desk, found.invoice if isinstance(found.invoice, str) else found.invoice.id)


async def invoices_not_final(connection: AsyncConnection, after: str, count_max: int) -> Sequence[str]:
    """Of which Stripe may know more than we do."""
    query = text("""SELECT stripe_invoice_id FROM invoice
                     WHERE state = ANY(:states) AND stripe_invoice_id COLLATE "C" > :after
                     ORDER BY stripe_invoice_id COLLATE "C" LIMIT :count""")
    values = {"states": list(NOT_FINAL), "after": after, "count": count_max}
    return (await connection.execute(query, values)).scalars().all()
