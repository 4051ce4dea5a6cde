"""Refunds: of a charge or of a payment intent's charge, whole or in parts."""

from __future__ import annotations

from typing import Final

from settlement.stripe_local import cash
from settlement.stripe_local.charges import move
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.lists import getter, lister
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.payment_methods import card_behind


def create(desk: Desk, params: Params) -> Json:
    """POST /v1/refunds."""
    charge = _charge(desk, params)
    made = refund(desk, charge, params.get("amount"), params.get("reason"))
    with_metadata(made, params.get("metadata"))
    tell_created(desk, made, charge)
    return made


def refund(desk: Desk, charge: Json, amount: int | None, reason: str | None) -> Json:
    """Gives back `amount` minor units, or all that is left. Raises StripeError for more than that. Tells nobody yet."""
    left = charge["amount"] - charge["amount_refunded"]
    if left == 0:
        text = f"Charge {charge['id']} has already been refunded."
        raise StripeError(text, code="charge_already_refunded")
    if charge.get("_charged_back"):
        raise StripeError(f"Charge {charge['id']} has been charged back.", code="charge_disputed")
    amount = left if amount is None else amount
    if not 1 <= amount <= left:
        text = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})."
        raise StripeError(text, param="amount")
    made = desk.new(
        "refund",
        amount=amount,
        charge=charge["id"],
        currency=charge["currency"],
        metadata={},
        payment_intent=charge["payment_intent"],
        reason=reason,
        status="succeeded",
    )
    made["balance_transaction"] = move(desk, "refund", made, -amount)["id"]
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    method = desk.get("payment_method", charge["payment_method"])
    card = card_behind(method)
    made["_fails"] = card is not None and card.refund_fails
    if method["type"] == cash.TRANSFER:  # nobody knows which account it came from: the customer has it again
        customer = desk.get("customer", charge["customer"])
        back = {"refund": made["id"]}
        cash.move(desk, customer, charge["currency"], amount, "refunded_from_payment", refunded_from_payment=back)
    return made


def tell_created(desk: Desk, made: Json, charge: Json) -> None:
    """A refund there is, as it now is."""
    desk.tell("refund.created", made)
    desk.tell("charge.refunded", charge)


def fail(desk: Desk, made: Json) -> None:
    """The card's bank did not take it, which shows only later: the money is back at the account."""
    charge = desk.get("charge", made["charge"])
    charge["amount_refunded"] -= made["amount"]
    charge["refunded"] = False
    made.update(status="failed", failure_reason="unknown", _fails=False)
    made["failure_balance_transaction"] = move(desk, "refund_failure", made, made["amount"])["id"]
    desk.tell("refund.failed", made)
    desk.tell("charge.refund.updated", made)


def update(desk: Desk, params: Params, refund_id: str) -> Json:
    """POST /v1/refunds/{refund}: its metadata."""
    found = desk.get("refund", refund_id)
    with_metadata(found, params.get("metadata"))
    desk.tell("refund.updated", found)
    return found


def _charge(desk: Desk, params: Params) -> Json:
    charge_id, intent_id = params.get("charge"), params.get("payment_intent")
    if (charge_id is None) == (intent_id is None):
        text = "One of the following params should be provided for this request: payment_intent or charge."
        raise StripeError(text, code="parameter_missing")
    if intent_id is not None:
        intent = desk.get("payment_intent", intent_id, "payment_intent")
        if intent["status"] != "succeeded":
            text = f"This PaymentIntent ({intent_id}) does not have a successful charge to refund."
            raise StripeError(text, code="payment_intent_unexpected_state", param="payment_intent")
        charge_id = intent["latest_charge"]
    charge = desk.get("charge", charge_id, "charge")
    if charge["status"] != "succeeded":
        raise StripeError(f"Charge {charge_id} did not succeed and cannot be refunded.", param="charge")
    return charge


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/refunds": create,
    "GET /v1/refunds": lister("refund", "/v1/refunds", "charge", "payment_intent"),
    "GET /v1/refunds/{refund}": getter("refund"),
    "POST /v1/refunds/{refund}": update,
}
