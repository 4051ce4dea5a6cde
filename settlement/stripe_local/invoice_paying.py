"""Having an invoice's money: by the customer's card, or as a receipt of money that came another way."""

from __future__ import annotations

from typing import Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.invoice_states import attempt_failed, default_payment, pay_off, require_status
from settlement.stripe_local.invoices import cancel_payment, finalized
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.payment_intents import await_transfer, confirm_with, public, set_method
from settlement.stripe_local.payment_methods import named


def pay(desk: Desk, params: Params, invoice_id: str) -> Json:
    """POST /v1/invoices/{invoice}/pay."""
    invoice = desk.get("invoice", invoice_id)
    if invoice["status"] == "paid":
        raise StripeError("Invoice is already paid")
    require_status(invoice, "draft", "open", "uncollectible", done="paid")
    if invoice["status"] == "draft":  # as Stripe does, which its own command line relies on
        finalized(desk, invoice)
    params.get("off_session")  # whether the customer is there makes no difference to a test card
    if invoice["status"] == "paid":
        return invoice  # nothing was due
    if params.get("paid_out_of_band"):
        cancel_payment(desk, invoice)
        pay_off(desk, invoice, off_stripe=True)
    else:
        collect(desk, invoice, params.get("payment_method"))
    return invoice


def collect(desk: Desk, invoice: Json, method_id: str | None = None) -> None:
    """Charges the invoice's card, or the customer's. Raises StripeError (402) where that is refused."""
    customer = desk.get("customer", invoice["customer"])
    found = method_id or invoice["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    if found is None:
        text = (
            "There is no default_payment_method set on this Customer or Invoice. Please set a default payment method "
            "prior to paying the Invoice, or name one."
        )
        raise StripeError(text, code="resource_missing", param="payment_method")
    intent = intent_of(desk, invoice)
    if intent["status"] == "requires_action":  # another card is taken instead of the one that asked
        intent.update(status="requires_payment_method", next_action=None)
    set_method(intent, named(desk, found))
    confirm_with(desk, intent)
    if intent["status"] == "requires_action":
        attempt_failed(desk, invoice)
        desk.tell("invoice.payment_action_required", invoice)
        text = (
            "This payment requires additional user action before it can be completed successfully. Payment can be "
            "completed using the PaymentIntent associated with the invoice."
        )
        code = "invoice_payment_intent_requires_action"
        raise StripeError(
            text, status=402, kind="card_error", code=code, keeps_changes=True, payment_intent=public(intent)
        )


def intent_of(desk: Desk, invoice: Json) -> Json:
    """The intent that collects an invoice which is not paid yet."""
    payment = default_payment(desk, invoice)
    if payment is None:
        raise StripeError("There is nothing to pay on this invoice.")
    return desk.get("payment_intent", payment["payment"]["payment_intent"])


def lower(desk: Desk, invoice: Json) -> None:
    """Less is due than was, after a credit note: the intent asks for that, or for nothing any more."""
    if invoice["amount_remaining"] == 0:
        cancel_payment(desk, invoice)
        pay_off(desk, invoice)
        return
    intent = intent_of(desk, invoice)
    intent["amount"] = invoice["amount_remaining"]
    if "_transfer" in intent:  # what is there already may be enough now
        await_transfer(desk, intent, desk.get("payment_method", intent["_transfer"]))


HANDLERS: Final[dict[str, Handler]] = {"POST /v1/invoices/{invoice}/pay": pay}
