"""Money that goes back: asked for by an operator, or made at Stripe by whoever else. Booked once Stripe has it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import stripe
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from clearinghouse.ids import show, uuid7
from settlement.customers.details import GATEWAY_KEY
from settlement.payments import store
from settlement.payments.amounts import amount_of, exact_minor
from settlement.payments.fetched import fetch, id_of, named_in
from settlement.payments.intents import settle
from settlement.payments.invoiced import Settled, invoice_paid_by
from settlement.payments.looked_up import found_refund
from settlement.payments.record import ACTOR, PAYMENT_KEY, REFUND_KEY, Payment, Refund
from settlement.stripe_link.client import StripeAway, StripeRefused
from settlement.stripe_link.desk import Desk, Park

KEY_VALID: Final = timedelta(hours=20)
_STATES: Final = {
    "pending": "pending", "requires_action": "pending", "succeeded": "succeeded", "failed": "failed",
    "canceled": "canceled",
}  # fmt: skip


class Owner(NamedTuple):
    """Whose a charge is: of a `payment`, or of an `invoice`. `is_transfer`: it was paid from a cash balance."""

    gateway_id: UUID
    payment: Payment | None
    is_transfer: bool
    invoice: Settled | None = None

    def values(self) -> dict[str, Any]:
        """For what the database is told of money that went back."""
        return {
            "gateway": self.gateway_id,
            "payment": self.payment.id if self.payment is not None else None,
            "invoice": self.invoice.invoice_id if self.invoice is not None else None,
            "gross": self.invoice.gross_minor if self.invoice is not None else None,
            "net": self.invoice.net_minor if self.invoice is not None else None,
        }


async def ask_refund(desk: Desk, refund: Refund) -> str:
    """Asks Stripe for a refund of ours, once however often it is tried. Raises StripeAway where nobody knows."""
    assert refund.payment_id is not None, "operators refund payments"
    async with desk.transaction() as connection:
        refund = await store.note_refund_asked(connection, refund, renews=False)
        payment = await store.find_payment(connection, refund.payment_id)  # type: ignore[arg-type] # as asserted
    assert payment is not None, "request_refund has seen it"
    assert payment.stripe_charge_id is not None, "request_refund has seen that it was paid through Stripe"
    if refund.attempts_count > 1:
        if (there := await found_refund(desk, refund, payment.stripe_charge_id)) is not None:
            return await note(desk, there)
        if refund.asked_at is not None and await desk.now() - refund.asked_at > KEY_VALID:
            refund = await _renewed(desk, refund)
    try:
        return await note(desk, await _made(desk, refund, payment.stripe_charge_id))
    except StripeAway as away:
        if not away.key_is_spent:
            raise
        if (there := await found_refund(desk, refund, payment.stripe_charge_id)) is None:
            await _renewed(desk, refund)
            raise
        return await note(desk, there)
    except StripeRefused as refused:
        async with desk.transaction() as connection:
            await store.refuse_refund(connection, refund, f"Stripe refused it: {refused.message}")
        return f"{refund.shown_id} is failed: {refused.message}"


async def _made(desk: Desk, refund: Refund, charge_id: str) -> stripe.Refund:
    params: dict[str, Any] = {
        "charge": charge_id, "amount": exact_minor(refund.amount, refund.currency),
        "metadata": {REFUND_KEY: refund.shown_id, GATEWAY_KEY: show("gw", refund.gateway_id)},
    }  # fmt: skip
    return await desk.link.call(
        desk.link.client.v1.refunds.create_async, params=params, idempotency_key=refund.idempotency_key
    )


async def _renewed(desk: Desk, refund: Refund) -> Refund:
    async with desk.transaction() as connection:
        return await store.note_refund_asked(connection, refund, renews=True)


async def refund_changed(desk: Desk, refund_id: str) -> str:
    """Handler of refunds."""
    return await note(desk, await fetch(desk, desk.link.client.v1.refunds.retrieve_async, refund_id))


async def note(desk: Desk, made: stripe.Refund) -> str:
    """Brings our row to what Stripe says of its refund; makes one where somebody else refunded."""
    state = _STATES.get(made.status or "")
    charge_id = id_of(made.charge)
    if charge_id is None and made.payment_intent is None:
        return "of a cash balance: it was no credit yet"
    if state is None or charge_id is None:
        raise Park(f"{made.id} is {made.status} of charge {charge_id}: what that means is not known here")
    owner = await owner_of(desk, charge_id)
    if owner is None:
        return "not of a gateway's payment"
    ours = named_in(made, REFUND_KEY)
    values: dict[str, Any] = {
        **owner.values(), "id": ours or uuid7(), "stripe": made.id,
        "noted": owner.invoice.noted_minor(made.id) if owner.invoice is not None else None,
        "amount": amount_of(made.amount, made.currency), "currency": made.currency.upper(), "state": state,
        "is_transfer": owner.is_transfer, "reason": f"refunded at Stripe: {made.reason or made.id}",
        "entry": uuid7(), "actor": ACTOR,
    }  # fmt: skip
    changed = await noted(desk, _NOTE, values)
    return f"refund {made.id} is {state}" if changed else "nothing new"


_NOTE: Final = """
    SELECT note_refund(:id, :stripe, :gateway, :payment, :amount, :currency, :state, :is_transfer, :reason, :entry,
                       :actor, :invoice, :gross, :net, :noted)
"""


async def noted(desk: Desk, query: str, values: dict[str, Any]) -> bool:
    """Parks where the database says that it is another thing than it was."""
    try:
        async with desk.transaction() as connection:
            return bool((await connection.execute(text(query), values)).scalar_one())
    except DBAPIError as error:
        diagnosis = getattr(error.orig, "diag", None)
        if diagnosis is None or diagnosis.constraint_name not in {"refund_differs", "dispute_differs"}:
            raise
        raise Park(str(diagnosis.message_primary)) from error


async def owner_of(desk: Desk, charge_id: str) -> Owner | None:
    """Whose money a charge was; None where it is no customer's of ours, or is not in the books.

    What was paid is booked first: what goes back must have come. One that was paid twice is booked once, and the
    other one goes back without an entry.
    """
    charge = await fetch(desk, desk.link.client.v1.charges.retrieve_async, charge_id)
    intent_id = id_of(charge.payment_intent)
    details = charge.payment_method_details
    is_transfer = details is not None and details.type == "customer_balance"
    intent = None
    if intent_id is not None:
        intent = await fetch(desk, desk.link.client.v1.payment_intents.retrieve_async, intent_id)
    payment_id = named_in(intent, PAYMENT_KEY) if intent is not None else None
    async with desk.engine.connect() as connection:
        payment = await store.find_payment(connection, payment_id) if payment_id is not None else None
    if payment is None or intent is None:
        settled = await invoice_paid_by(desk, intent_id) if intent_id is not None else None
        return Owner(settled.gateway_id, None, is_transfer, settled) if settled is not None else None
    if payment.state != "succeeded":
        await settle(desk, payment, intent)
    async with desk.engine.connect() as connection:
        booked = await store.find_by_intent(connection, intent.id)
    return Owner(booked.gateway_id, booked, is_transfer) if booked is not None and booked.state == "succeeded" else None
