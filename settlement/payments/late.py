"""A page that is done before its money is there: debits of a bank account, which the bank answers days later.

    checkout.session.completed, unpaid ─▶ processing ─▶ async_payment_succeeded: the intent's money is booked, once
                                                     └▶ async_payment_failed: failed, with the bank's reason

Only what Stripe says now counts, of the page and of its intent: an event may be late, repeated or lost.
"""

from __future__ import annotations

from typing import Final

import stripe

from settlement.payments import store
from settlement.payments.declines import words_of_refused_debit
from settlement.payments.fetched import fetch, id_of
from settlement.payments.intents import failure_of, require_same, settle, settle_other
from settlement.payments.record import Payment
from settlement.payments.telling import tell_refused_late
from settlement.stripe_link.desk import Desk, Park

_PROCESSING: Final = (
    "You are done at Stripe's page, and your bank has not answered yet, which can take days. The credit is there as "
    "soon as it has paid: nothing more is to be done."
)


async def settle_late(desk: Desk, payment: Payment, session: stripe.checkout.Session) -> str:
    """Of a page that is complete and not paid: `payment` forward to what its intent says. One line of what was done."""
    intent_id = id_of(session.payment_intent)
    if intent_id is None:
        raise Park(f"{session.id} is complete, and has no payment intent that could be paid")
    intent = await fetch(desk, desk.link.client.v1.payment_intents.retrieve_async, intent_id)
    if payment.ended_at is not None or intent.status in {"succeeded", "canceled"}:
        return await settle(desk, payment, intent)
    require_same(payment, intent)
    if intent.status == "requires_payment_method":  # nobody can enter another one: the page is done
        return await settle_other(desk, payment, session.id) or await _refused(desk, payment, intent)
    async with desk.transaction() as connection:
        is_new = await store.processing(
            connection, payment, session_id=session.id, intent_id=intent.id, said=_PROCESSING
        )
    return f"{payment.shown_id} {'is' if is_new else 'was'} processing: its intent is {intent.status}"


async def _refused(desk: Desk, payment: Payment, intent: stripe.PaymentIntent) -> str:
    """Stripe cancels no intent of a page. Whoever pays it after all, in the dashboard, is credited after all."""
    failure = failure_of(intent) or "refused_by_bank"
    said = words_of_refused_debit(failure)
    async with desk.transaction() as connection:
        if await store.ended(connection, payment, "failed", intent_id=intent.id, failure=failure, said=said):
            await tell_refused_late(connection, payment, failure, said)
    return f"{payment.shown_id} is failed: {failure}"
