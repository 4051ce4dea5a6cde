"""Setup intents: saving a card without charging it, with the customer's consent where the card asks for it."""

from __future__ import annotations

from typing import Final

from settlement.stripe_local.amendments import NEW_NAME, OLD_NAME
from settlement.stripe_local.customers import live
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError, unsupported
from settlement.stripe_local.ids import letters
from settlement.stripe_local.lists import getter, lister
from settlement.stripe_local.outcomes import card_saved
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.payment_intents import OPEN, authentication, public
from settlement.stripe_local.payment_methods import card_behind, named, require_savable, save


def create(desk: Desk, params: Params) -> Json:
    """POST /v1/setup_intents."""
    if set(params.get(NEW_NAME) or params.get(OLD_NAME) or ["card"]) != {"card"}:
        raise unsupported("saving anything but cards")
    customer = live(desk, params.get("customer"))["id"] if params.has("customer") else None
    intent = new_setup(desk, customer)
    intent.update(params.only("description", "usage"))
    if (automatic := params.get("automatic_payment_methods")) is not None:
        intent["automatic_payment_methods"] = {"allow_redirects": "always", **automatic}
    with_metadata(intent, params.get("metadata"))
    _choose(desk, intent, params)
    desk.tell("setup_intent.created", intent)
    return_url = params.get("return_url")
    if params.get("confirm"):
        confirm_setup(desk, intent, return_url)
    return intent


def new_setup(desk: Desk, customer_id: str | None) -> Json:
    """An intent to save a card that is not known yet."""
    intent = desk.new(
        "setup_intent",
        customer=customer_id,
        metadata={},
        status="requires_payment_method",
        usage="off_session",
        **{NEW_NAME: ["card"], OLD_NAME: ["card"]},
    )
    intent["client_secret"] = f"{intent['id']}_secret_{letters(25)}"
    return intent


def confirm(desk: Desk, params: Params, intent_id: str) -> Json:
    """POST /v1/setup_intents/{intent}/confirm."""
    intent = desk.get("setup_intent", intent_id)
    _choose(desk, intent, params)
    confirm_setup(desk, intent, params.get("return_url"))
    return intent


def confirm_setup(desk: Desk, intent: Json, return_url: str | None = None) -> None:
    """Saves the card that was chosen, or asks for consent. Raises StripeError (402) where the card is refused."""
    if intent["status"] != "requires_confirmation":
        raise _unexpected(intent, "confirmed")
    method = desk.get("payment_method", intent["payment_method"])
    card = card_behind(method)
    if card is not None and card.asks:
        intent.update(status="requires_action", next_action=authentication(desk, intent, return_url))
        desk.tell("setup_intent.requires_action", intent)
        return
    _succeed(desk, intent, method)


def authenticate_setup(desk: Desk, intent_id: str, *, succeeds: bool) -> Json:
    """What the customer does in the window that asks for it. Raises StripeError if nothing is asked."""
    intent = desk.get("setup_intent", intent_id)
    if intent["status"] != "requires_action":
        raise _unexpected(intent, "authenticated")
    intent["next_action"] = None
    if succeeds:
        _succeed(desk, intent, desk.get("payment_method", intent["payment_method"]))
        return intent
    text = "The provided PaymentMethod has failed authentication."
    error = {"code": "setup_intent_authentication_failure", "message": text, "type": "invalid_request_error"}
    _fail(desk, intent, error)
    return intent


def choose(intent: Json, method: Json) -> None:
    """Which card is to be saved. Raises StripeError where it is too late for another."""
    if intent["status"] not in OPEN:
        raise _unexpected(intent, "updated")
    intent.update(payment_method=method["id"], status="requires_confirmation", next_action=None)


def cancel(desk: Desk, params: Params, intent_id: str) -> Json:
    """POST /v1/setup_intents/{intent}/cancel."""
    intent = desk.get("setup_intent", intent_id)
    if intent["status"] not in OPEN:
        raise _unexpected(intent, "canceled")
    intent.update(status="canceled", cancellation_reason=params.get("cancellation_reason"), next_action=None)
    desk.tell("setup_intent.canceled", intent)
    return intent


def _choose(desk: Desk, intent: Json, params: Params) -> None:
    if (method_id := params.get("payment_method")) is not None:
        choose(intent, named(desk, method_id))


def _succeed(desk: Desk, intent: Json, method: Json) -> None:
    try:
        require_savable(method)
    except StripeError as error:
        _fail(desk, intent, dict(error.error))
        raise error.kept(setup_intent=public(intent)) from None
    if intent["customer"] is not None:
        save(desk, method, desk.get("customer", intent["customer"]))
    intent.update(status="succeeded", last_setup_error=None)
    desk.tell("setup_intent.succeeded", intent)
    card_saved(desk, intent)


def _fail(desk: Desk, intent: Json, error: Json) -> None:
    intent.update(status="requires_payment_method", payment_method=None, last_setup_error=error)
    desk.tell("setup_intent.setup_failed", intent)


def _unexpected(intent: Json, done: str) -> StripeError:
    text = f"This SetupIntent could not be {done} because it has a status of {intent['status']}."
    return StripeError(text, code="setup_intent_unexpected_state", setup_intent=public(intent))


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/setup_intents": create,
    "GET /v1/setup_intents": lister("setup_intent", "/v1/setup_intents", "customer", "payment_method"),
    "GET /v1/setup_intents/{intent}": getter("setup_intent"),
    "POST /v1/setup_intents/{intent}/confirm": confirm,
    "POST /v1/setup_intents/{intent}/cancel": cancel,
}
