"""What a customer does at Stripe's pages, and what a customer's bank does: for pages.py, and for tests by /_control."""

from __future__ import annotations

from settlement.stripe_local.amendments import OLD_NAME
from settlement.stripe_local.cash import TRANSFER
from settlement.stripe_local.checkout import complete
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, with_metadata
from settlement.stripe_local.disputes import dispute_charge
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.invoice_paying import collect, intent_of
from settlement.stripe_local.invoice_states import require_status
from settlement.stripe_local.payment_intents import authenticate, confirm_with, new_intent, set_method, set_types
from settlement.stripe_local.payment_methods import from_data, named
from settlement.stripe_local.setup_intents import authenticate_setup, choose, confirm_setup, new_setup

_INTENT_FIELDS = (
    "description",
    "receipt_email",
    "setup_future_usage",
    "statement_descriptor",
)


def pay_session(desk: Desk, session_id: str, card: str = "pm_card_visa") -> Json:
    """Pays a Checkout session with a test card, a bank's test account or by transfer, or saves the card: the intent.

    Raises StripeError (402) where that is refused; the session stays open.
    """
    session = desk.get("checkout.session", session_id)
    if session["status"] != "open":
        raise StripeError(f"This Checkout Session is {session['status']}.")
    return _save_card(desk, session, card) if session["mode"] == "setup" else _pay(desk, session, card)


def _pay(desk: Desk, session: Json, card: str) -> Json:
    intent = new_intent(desk, session["amount_total"], session["currency"], session["customer"])
    wanted = session["_intent"]
    intent.update({name: wanted[name] for name in _INTENT_FIELDS if name in wanted})
    with_metadata(intent, wanted.get("metadata"))
    intent["_session"] = session["id"]
    intent["_saves_card"] = session["_saves_card"]
    desk.tell("payment_intent.created", intent)
    set_types(intent, session[OLD_NAME])
    set_method(intent, from_data(desk, {"type": TRANSFER}) if card == TRANSFER else named(desk, card))
    confirm_with(desk, intent)
    if card == TRANSFER and session["status"] == "open":
        complete(desk, session, intent)
    return intent


def _save_card(desk: Desk, session: Json, card: str) -> Json:
    intent = new_setup(desk, session["customer"])
    intent["description"] = session["_intent"].get("description")
    with_metadata(intent, session["_intent"].get("metadata"))
    intent["_session"] = session["id"]
    desk.tell("setup_intent.created", intent)
    choose(intent, named(desk, card))
    confirm_setup(desk, intent)
    return intent


def consent(desk: Desk, intent_id: str, *, succeeds: bool) -> Json:
    """What the customer answers in the bank's window: the intent that asked."""
    found = desk.changes.get(intent_id)
    if found is not None and found["object"] == "setup_intent":
        return authenticate_setup(desk, intent_id, succeeds=succeeds)
    return authenticate(desk, intent_id, succeeds=succeeds)


def pay_invoice(desk: Desk, invoice_id: str, card: str = "pm_card_visa") -> Json:
    """Pays an invoice at its own page: the payment intent. Raises StripeError (402) where the card is refused."""
    invoice = desk.get("invoice", invoice_id)
    require_status(invoice, "open", "uncollectible", done="paid")
    intent = intent_of(desk, invoice)
    collect(desk, invoice, card)
    return intent


def dispute(desk: Desk, charge_id: str, reason: str = "fraudulent") -> Json:
    """The cardholder's bank takes the money back."""
    return dispute_charge(desk, desk.get("charge", charge_id), reason)
