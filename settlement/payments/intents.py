"""What a payment intent means for the payment it was made for: the one place where money is found to have come."""

from __future__ import annotations

import stripe

from clearinghouse.ids import show
from settlement.payments import store
from settlement.payments.cards import save_card
from settlement.payments.declines import words_of_decline
from settlement.payments.fetched import fetch, id_of, named_in
from settlement.payments.pages import other_page
from settlement.payments.record import PAYMENT_KEY, Payment
from settlement.payments.telling import tell_failed
from settlement.stripe_link.client import StripeRefused
from settlement.stripe_link.desk import Desk, Park

#: Paid at once or not at all: nobody sits before a page who could try another card.
_AT_ONCE = frozenset(("card", "automatic"))
_REFUSED = frozenset(("requires_payment_method", "requires_action"))


async def intent_changed(desk: Desk, intent_id: str) -> str:
    """Handler of payment intents. Invoices have some, too: those belong to the invoice."""
    intent = await fetch(desk, desk.link.client.v1.payment_intents.retrieve_async, intent_id)
    payment_id = named_in(intent, PAYMENT_KEY)
    if payment_id is None:
        return "not of a payment of ours"
    async with desk.engine.connect() as connection:
        payment = await store.find_payment(connection, payment_id)
    if payment is None:
        raise Park(f"{intent_id} says that it is of {show('pay', payment_id)}, which is not in these books")
    return await settle(desk, payment, intent)


async def settle(desk: Desk, payment: Payment, intent: stripe.PaymentIntent) -> str:
    """Brings the payment forward to what its intent says. One line of what was done."""
    require_same(payment, intent)
    if intent.status == "succeeded":
        return await _succeeded(desk, payment, intent)
    if payment.ended_at is not None:
        return f"{payment.shown_id} was {payment.state}, and its intent is {intent.status}"
    if intent.status == "canceled":
        return await _canceled(desk, payment, intent)
    if payment.method in _AT_ONCE and intent.status in _REFUSED:
        return await _refused(desk, payment, intent)
    if payment.method == "bank_transfer" and payment.state == "requested":
        return f"{payment.shown_id}: its intent is there; where to transfer to, the clerk says who asks for it again"
    async with desk.transaction() as connection:
        now = await store.opened(connection, payment, intent_id=intent.id)
    return f"{payment.shown_id} is {now.state}: its intent is {intent.status}"


def require_same(payment: Payment, intent: stripe.PaymentIntent) -> None:
    """Parks where Stripe's object is not what was asked for: another amount, currency or customer."""
    asked = (payment.amount_minor, payment.currency, payment.stripe_customer_id)
    there = (intent.amount, intent.currency.upper(), id_of(intent.customer))
    if asked != there:
        raise Park(f"{intent.id} is of {there}, and {payment.shown_id} was asked for as {asked}")
    if intent.status == "succeeded" and intent.amount_received != payment.amount_minor:
        raise Park(f"{intent.id} received {intent.amount_received} of {payment.amount_minor} minor units")


async def _succeeded(desk: Desk, payment: Payment, intent: stripe.PaymentIntent) -> str:
    async with desk.transaction() as connection:
        how = await store.confirmed(connection, payment, intent_id=intent.id, charge_id=id_of(intent.latest_charge))
    if how == "other":
        if await _went_back(desk, intent):
            return f"{payment.shown_id} was paid twice, and {intent.id} was refunded"
        raise Park(
            f"{payment.shown_id} was paid twice: by {payment.stripe_intent_id}, and again by {intent.id}. Only the "
            "first is in the books: refund the second at Stripe"
        )
    if payment.saves_card and (method_id := id_of(intent.payment_method)) is not None:
        await save_card(desk, payment.gateway_id, method_id, only_if_none=how == "known")
    return f"{payment.shown_id}: {'the money is booked' if how == 'booked' else 'it was booked before'}"


async def _went_back(desk: Desk, intent: stripe.PaymentIntent) -> bool:
    charge_id = id_of(intent.latest_charge)
    return charge_id is not None and (await fetch(desk, desk.link.client.v1.charges.retrieve_async, charge_id)).refunded


async def _canceled(desk: Desk, payment: Payment, intent: stripe.PaymentIntent) -> str:
    """As abandoned we cancel ourselves: what nobody pays any more, and charges that were refused."""
    if payment.method == "checkout" and (other := await settle_other(desk, payment, intent.id)) is not None:
        return other
    if intent.cancellation_reason != "abandoned":
        return await _ended(desk, payment, intent.id, "canceled")
    if payment.method in _AT_ONCE:  # and whoever canceled it did not live to say why
        return await _ended(desk, payment, intent.id, "failed", _why(intent))
    return await _ended(desk, payment, intent.id, "expired")


async def settle_other(desk: Desk, payment: Payment, known_id: str) -> str | None:
    """Before a payment of a page ends without money: what was done of another page of it, by which money has come or
    may come. `known_id` is the page's that has come to nothing, or its intent's. None where it may end.
    """
    if (found := await other_page(desk, payment, known_id)) is None:
        return None
    page, intent = found
    if intent is not None and intent.status == "succeeded":
        return await settle(desk, payment, intent)
    return f"{known_id} came to nothing, and {payment.shown_id} has another page that may be paid: {page.id}"


async def _refused(desk: Desk, payment: Payment, intent: stripe.PaymentIntent) -> str:
    """A saved card that was declined, or that its holder would have to consent with.

    The intent goes first: whoever could pay it later, by Stripe's e-mail or in the dashboard, would pay beside the next
    charge.
    """
    if await cancel(desk, intent.id):
        return await _ended(desk, payment, intent.id, "failed", _why(intent))
    now = await fetch(desk, desk.link.client.v1.payment_intents.retrieve_async, intent.id)
    if now.status in _REFUSED:
        raise Park(f"{intent.id} is {now.status}, and cannot be canceled")
    return await settle(desk, payment, now)


def _why(intent: stripe.PaymentIntent) -> str:
    """The code of what became of a charge at once that did not succeed."""
    return "authentication_required" if intent.status == "requires_action" else failure_of(intent) or "declined"


def failure_of(intent: stripe.PaymentIntent) -> str | None:
    """The code of its last failed attempt; None without one. What does not apply, such as `decline_code`, is absent."""
    error = intent.last_payment_error
    told = error.to_dict() if error is not None else {}
    return told.get("decline_code") or told.get("code")


async def _ended(desk: Desk, payment: Payment, intent_id: str, state: str, failure: str | None = None) -> str:
    said = words_of_decline(failure) if failure is not None else ""
    async with desk.transaction() as connection:
        changed = await store.ended(connection, payment, state, intent_id=intent_id, failure=failure, said=said)
        if changed and failure is not None:
            await tell_failed(connection, payment, failure, said)
    return f"{payment.shown_id} is {state}" + (f": {failure}" if failure else "")


async def cancel(desk: Desk, intent_id: str) -> bool:
    """Whether nobody can pay it any more. False where somebody has, or is about to."""
    try:
        await desk.link.call(
            desk.link.client.v1.payment_intents.cancel_async, intent_id, params={"cancellation_reason": "abandoned"}
        )
    except StripeRefused as refused:
        if refused.code != "payment_intent_unexpected_state":
            raise Park(f"{intent_id} cannot be canceled: {refused.message}") from refused
        return False
    return True
