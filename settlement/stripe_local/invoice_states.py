"""What an invoice may become, and what is told about it. It never goes back.

draft ──▶ open ──▶ paid
  │        ├─────▶ uncollectible ──▶ paid, void
  ▼        └─────▶ void
deleted
"""

from __future__ import annotations

from typing import Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk
from settlement.stripe_local.errors import StripeError

#: Seconds after a failed attempt until Stripe tries again by itself; then no more.
RETRY_AFTER_S: Final = tuple(days * 24 * 3600 for days in (3, 5, 7))
_VERBS: Final = {"draft": "a draft", "open": "open", "paid": "paid", "uncollectible": "uncollectible", "void": "void"}


def require_status(invoice: Json, *allowed: str, done: str) -> None:
    """Raises StripeError unless the invoice is in one of these states."""
    if invoice["status"] not in allowed:
        wanted = " or ".join(_VERBS[one] for one in allowed)
        text = f"This invoice is {_VERBS[invoice['status']]} and cannot be {done}: only one that is {wanted} can."
        raise StripeError(text, code="invoice_not_editable" if allowed == ("draft",) else None)


def mark(desk: Desk, invoice: Json, status: str, stamp: str) -> None:
    """Puts it into a state, and keeps the time."""
    invoice["status"] = status
    invoice["status_transitions"][stamp] = desk.now_s
    invoice["next_payment_attempt"] = None


def pay_off(desk: Desk, invoice: Json, *, off_stripe: bool = False) -> None:
    """Nothing is left to pay: by a payment, by a receipt that Stripe only hears of, or because nothing was due."""
    received = invoice["amount_remaining"]
    invoice["amount_paid"] += received
    invoice["amount_paid_off_stripe"] += received if off_stripe else 0
    invoice["amount_remaining"] = 0
    invoice["attempted"] = True
    payment = default_payment(desk, invoice)
    if payment is not None:
        payment.update(status="paid", amount_paid=received)
        payment["status_transitions"]["paid_at"] = desk.now_s
        desk.tell("invoice_payment.paid", payment)
    mark(desk, invoice, "paid", "paid_at")
    desk.tell("invoice.updated", invoice)
    desk.tell("invoice.paid", invoice)
    desk.tell("invoice.payment_succeeded", invoice)


def attempt_failed(desk: Desk, invoice: Json) -> None:
    """An attempt to have the money, and no money."""
    failed = invoice["attempt_count"]
    invoice["attempt_count"] += 1
    invoice["attempted"] = True
    tries_again = invoice["auto_advance"] and failed < len(RETRY_AFTER_S)
    invoice["next_payment_attempt"] = desk.now_s + RETRY_AFTER_S[failed] if tries_again else None
    desk.tell("invoice.updated", invoice)
    desk.tell("invoice.payment_failed", invoice)


def default_payment(desk: Desk, invoice: Json) -> Json | None:
    """How an invoice is to be paid, if that is still open."""
    for payment in desk.changes.each("invoice_payment", invoice=invoice["id"]):
        if payment["status"] == "open":
            return desk.get("invoice_payment", payment["id"])
    return None


def close_payment(desk: Desk, payment: Json) -> None:
    """Nobody pays this way any more."""
    payment["status"] = "canceled"
    payment["status_transitions"]["canceled_at"] = desk.now_s
