"""All of Stripe's pages of one payment. There is one, unless a second was made while nobody could know of the first.

A payment goes by the page that its row names, which is the one that the gateway has the link of. Money may come by any.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import stripe

from settlement.payments.fetched import fetch, id_of
from settlement.payments.looked_up import found_sessions
from settlement.payments.record import Payment
from settlement.stripe_link.desk import Desk

#: Of the intent of a page that is done: no money comes by it, unless somebody pays it in the dashboard after all.
REFUSED: Final = frozenset(("canceled", "requires_payment_method"))


class Page(NamedTuple):
    """`intent` is None of a page that is still open."""

    session: stripe.checkout.Session
    intent: stripe.PaymentIntent | None


async def other_page(desk: Desk, payment: Payment, known_id: str) -> Page | None:
    """Another page than the one of this id, or of this intent, that has brought money or still may: one that
    has, if there is one. None where no other will.
    """
    waiting: Page | None = None
    for page in await found_sessions(desk, payment):
        intent_id = id_of(page.payment_intent)
        if known_id in {page.id, intent_id} or page.status == "expired":
            continue
        if page.status == "open":
            waiting = Page(page, None)
        elif intent_id is not None:
            intent = await fetch(desk, desk.link.client.v1.payment_intents.retrieve_async, intent_id)
            if intent.status == "succeeded":
                return Page(page, intent)
            if intent.status not in REFUSED:
                waiting = Page(page, intent)
    return waiting
