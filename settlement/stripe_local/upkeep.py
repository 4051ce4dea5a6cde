"""What happens at Stripe because time passes."""

from __future__ import annotations

import asyncio
from typing import Final

from settlement.stripe_local.checkout import run_out
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.frame import LocalStripe
from settlement.stripe_local.invoice_paying import collect
from settlement.stripe_local.invoice_states import attempt_failed
from settlement.stripe_local.invoices import finalized
from settlement.stripe_local.payment_intents import answer_debit
from settlement.stripe_local.payouts import pay_out
from settlement.stripe_local.refunds import fail

_EVERY_S: Final = 1


def keep_up(stripe: LocalStripe) -> None:
    """Does whatever is due by now on Stripe's clock."""
    desk = stripe.desk()
    for session_id in _due(desk, "checkout.session", "expires_at", "open"):
        run_out(desk, desk.get("checkout.session", session_id))
    for invoice_id in _due(desk, "invoice", "automatically_finalizes_at", "draft"):
        finalized(desk, desk.get("invoice", invoice_id))
    for invoice_id in _due(desk, "invoice", "next_payment_attempt", "open"):
        _attempt(desk, desk.get("invoice", invoice_id))
    for intent_id in _due(desk, "payment_intent", "_answered_at", "processing"):
        answer_debit(desk, desk.get("payment_intent", intent_id))
    for refund_id in [
        one["id"] for one in desk.changes.each("refund") if one["_fails"] and one["created"] < desk.now_s
    ]:
        fail(desk, desk.get("refund", refund_id))
    pay_out(desk)
    stripe.write(desk)


async def kept_up(stripe: LocalStripe) -> None:
    """Keeps up until it is cancelled."""
    while True:
        keep_up(stripe)
        await asyncio.sleep(_EVERY_S)


def _due(desk: Desk, kind: str, field: str, status: str) -> list[str]:
    return [
        one["id"]
        for one in desk.changes.each(kind)
        if one["status"] == status and one[field] is not None and one[field] <= desk.now_s
    ]


def _attempt(desk: Desk, invoice: Json) -> None:
    """Tries to have an invoice's money. A refusal is told by events, and leaves the time of the next attempt."""
    before = invoice["attempt_count"]
    try:
        collect(desk, invoice)
    except StripeError:
        if invoice["attempt_count"] == before:  # there was no card to be refused
            attempt_failed(desk, invoice)
