"""Payments of invoices that go back: how much of them had come into the books, which know nothing of taxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text

from settlement.invoices.edited import paid_edited_minor
from settlement.invoices.handler import heard_of_invoice
from settlement.invoices.notes import notes_on
from settlement.invoices.seen import Note, seen
from settlement.invoices.store import find_at_stripe
from settlement.payments.fetched import fetch, id_of
from settlement.stripe_link.desk import Desk, Park


class Settled(NamedTuple):
    """What was paid of an invoice: with its tax, and without, as it is in the books. In minor units."""

    invoice_id: UUID
    gateway_id: UUID
    gross_minor: int
    net_minor: int
    notes: Sequence[Note]

    def noted_minor(self, refund_id: str) -> int | None:
        """What of a refund is no tax, as the credit notes say that it was made for. None without one."""
        noted = [minor for note in self.notes if (minor := note.net_of_refund(refund_id)) is not None]
        return sum(noted) if noted else None


async def invoice_paid_by(desk: Desk, intent_id: str) -> Settled | None:
    """Which invoice of ours, and our row and the books are brought up to it: whatever else a customer pays for at
    Stripe never came into the books. Parks where they do not have what was paid.
    """
    client = desk.link.client.v1
    paid: Any = {"payment": {"type": "payment_intent", "payment_intent": intent_id}}
    found = await desk.link.call(client.invoice_payments.list_async, params=paid)
    query = text("SELECT stripe_invoice_id FROM invoice WHERE stripe_invoice_id = ANY(:ids) LIMIT 1")
    async with desk.engine.connect() as connection:
        values = {"ids": [id_of(one.invoice) for one in found.data]}
        stripe_id = (await connection.execute(query, values)).scalar_one_or_none()
    return await _settled(desk, stripe_id) if stripe_id is not None else None


async def _settled(desk: Desk, stripe_id: str) -> Settled:
    raw = await fetch(desk, desk.link.client.v1.invoices.retrieve_async, stripe_id)
    reason = "it is not paid"
    try:
        await heard_of_invoice(desk, stripe_id)
    except Park as parked:  # it may be something else that is wrong with it: its own event says so
        reason = str(parked)
    there = seen(raw)
    async with desk.engine.connect() as connection:
        ours = await find_at_stripe(connection, stripe_id)
        assert ours is not None, "no row is ever removed"
        edited_minor = await paid_edited_minor(connection, ours)
    net_minor = edited_minor or min(ours.booked_minor, there.settled_minor(ours))
    if not net_minor:
        raise Park(f"what was paid of {stripe_id} is not in the books: {reason}")
    asked_minor = raw.total - (raw.pre_payment_credit_notes_amount or 0)
    gross_minor = max(net_minor, asked_minor if there.status == "paid" else there.paid_minor)
    notes = await notes_on(desk, there) if gross_minor != net_minor else []
    return Settled(ours.id, ours.gateway_id, gross_minor, net_minor, notes)
