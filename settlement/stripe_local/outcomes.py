"""What follows from a payment or a saved card, for the invoice or the Checkout session that it was made for."""

from __future__ import annotations

from settlement.stripe_local.checkout import came_to_nothing, complete
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk
from settlement.stripe_local.invoice_states import attempt_failed, pay_off


def payment_succeeded(desk: Desk, intent: Json) -> None:
    """The money is there."""
    if "_invoice" in intent:
        pay_off(desk, desk.get("invoice", intent["_invoice"]))
    if "_session" in intent:
        complete(desk, desk.get("checkout.session", intent["_session"]), intent)


def payment_under_way(desk: Desk, intent: Json) -> None:
    """The customer has agreed to a debit, and the bank has not answered: a page is done, and an invoice stays open."""
    if "_invoice" in intent:
        desk.get("invoice", intent["_invoice"])["next_payment_attempt"] = None
    if "_session" in intent:
        complete(desk, desk.get("checkout.session", intent["_session"]), intent)


def payment_failed(desk: Desk, intent: Json) -> None:
    """An attempt was refused. A session that is open stays so: its customer may take another card."""
    if "_invoice" in intent:
        attempt_failed(desk, desk.get("invoice", intent["_invoice"]))
    if "_session" in intent:
        came_to_nothing(desk, desk.get("checkout.session", intent["_session"]))


def card_saved(desk: Desk, intent: Json) -> None:
    """A setup intent has its card."""
    if "_session" in intent:
        complete(desk, desk.get("checkout.session", intent["_session"]), intent)
