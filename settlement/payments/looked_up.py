"""What is there at Stripe already for a payment or a refund of ours: looked for before it is asked for again.

By lists and not by searches: a search may be a minute behind, and what it has not seen yet would be made twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import stripe

from settlement.payments.fetched import named_in
from settlement.payments.record import PAYMENT_KEY, REFUND_KEY, Payment, Refund
from settlement.stripe_link.desk import Desk

#: Before our row there can be nothing; Stripe's clock may be behind ours.
_CLOCKS_DIFFER_S: Final = 3600


async def found_session(desk: Desk, payment: Payment) -> stripe.checkout.Session | None:
    """The first that was made."""
    found = await found_sessions(desk, payment)
    return found[0] if found else None


async def found_sessions(desk: Desk, payment: Payment) -> list[stripe.checkout.Session]:
    """In the order in which they were made."""
    pages = [one async for one in _made_since(desk, desk.link.client.v1.checkout.sessions.list_async, payment)]
    return pages[::-1]


async def found_intent(desk: Desk, payment: Payment) -> stripe.PaymentIntent | None:
    """The one that has succeeded, or the first that was made."""
    found: stripe.PaymentIntent | None = None
    async for one in _made_since(desk, desk.link.client.v1.payment_intents.list_async, payment):
        if found is None or found.status != "succeeded":
            found = one
    return found


async def found_refund(desk: Desk, refund: Refund, charge_id: str) -> stripe.Refund | None:
    async for one in desk.link.each(desk.link.client.v1.refunds.list_async, params={"charge": charge_id}):
        if named_in(one, REFUND_KEY) == refund.id:
            return one  # type: ignore[no-any-return] # a list of them
    return None


async def _made_since(
    desk: Desk, function: Callable[..., Awaitable[stripe.ListObject[Any]]], payment: Payment
) -> AsyncIterator[Any]:
    """Newest first."""
    since = int(payment.created_at.timestamp()) - _CLOCKS_DIFFER_S
    params = {"customer": payment.stripe_customer_id, "created": {"gte": since}}
    async for one in desk.link.each(function, params=params):
        if named_in(one, PAYMENT_KEY) == payment.id:
            yield one
