"""Payment intents: from asking for money to having it, through Stripe's states and no others.

requires_payment_method ─▶ requires_confirmation ─▶ requires_action ─▶ succeeded
          ▲──────────── declined, or authentication failed ◀┘    any but the last ─▶ canceled
          ▲── the bank refused ◀── processing ─▶ succeeded       a bank debit, which cannot be canceled
"""

from __future__ import annotations

from typing import Any, Final

from settlement.stripe_local import cash, debits
from settlement.stripe_local.amendments import NEW_NAME, OLD_NAME
from settlement.stripe_local.cards import decline_message
from settlement.stripe_local.charges import answered, charge, pending_charge
from settlement.stripe_local.customers import live
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.disputes import dispute_charge
from settlement.stripe_local.errors import StripeError, unsupported
from settlement.stripe_local.ids import letters
from settlement.stripe_local.lists import getter, lister
from settlement.stripe_local.money import require_chargeable
from settlement.stripe_local.outcomes import payment_failed, payment_succeeded, payment_under_way
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.payment_methods import card_behind, from_data, named, save
from settlement.stripe_local.search import searcher

_PLAIN: Final = (
    "description",
    "receipt_email",
    "setup_future_usage",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
)
#: States in which an intent may still be paid.
OPEN: Final = frozenset(("requires_payment_method", "requires_confirmation", "requires_action"))
_CONFIRMING: Final = ("off_session", "error_on_requires_action", "return_url", "mandate_data", "use_stripe_sdk")


def create(desk: Desk, params: Params) -> Json:
    """POST /v1/payment_intents."""
    if params.get("capture_method", "automatic") == "manual":
        raise unsupported("capture_method=manual")
    customer = live(desk, params.get("customer"))["id"] if params.has("customer") else None
    intent = new_intent(desk, params.get("amount"), params.get("currency").lower(), customer)
    intent["capture_method"] = params.get("capture_method", "automatic_async")
    intent["confirmation_method"] = params.get("confirmation_method", "automatic")
    automatic = params.get("automatic_payment_methods")
    types = params.get(NEW_NAME) or params.get(OLD_NAME)
    if types:
        set_types(intent, types)
    else:
        automatic = automatic or {"enabled": True}
        intent["automatic_payment_methods"] = {"allow_redirects": "always", **automatic}
    _edit(desk, intent, params)
    desk.tell("payment_intent.created", intent)
    how = params.only(*_CONFIRMING)
    if params.get("confirm"):
        confirm_with(desk, intent, **how)
    elif how.get("off_session"):
        raise StripeError("You can only set off_session when confirm is true.", param="off_session")
    return intent


def new_intent(desk: Desk, amount: int, currency: str, customer_id: str | None) -> Json:
    """An intent that nobody has paid yet. Raises StripeError for an amount that cannot be charged."""
    require_chargeable(amount, currency)
    intent = desk.new(
        "payment_intent",
        amount=amount,
        amount_capturable=0,
        amount_details={"tip": {}},
        amount_received=0,
        capture_method="automatic_async",
        confirmation_method="automatic",
        currency=currency,
        customer=customer_id,
        metadata={},
        payment_method_options={},
        status="requires_payment_method",
    )
    set_types(intent, ["card"])
    intent["client_secret"] = f"{intent['id']}_secret_{letters(25)}"
    return intent


def update(desk: Desk, params: Params, intent_id: str) -> Json:
    """POST /v1/payment_intents/{intent}."""
    intent = desk.get("payment_intent", intent_id)
    if set(params.only("amount", "currency", "payment_method")) and intent["status"] not in OPEN:
        raise _unexpected(intent, "updated")
    if (amount := params.get("amount")) is not None:
        require_chargeable(amount, intent["currency"])
        intent["amount"] = amount
    if (types := params.get(NEW_NAME) or params.get(OLD_NAME)) is not None:
        set_types(intent, types)
    _edit(desk, intent, params)
    return intent


def confirm(desk: Desk, params: Params, intent_id: str) -> Json:
    """POST /v1/payment_intents/{intent}/confirm."""
    intent = desk.get("payment_intent", intent_id)
    _edit(desk, intent, params)
    confirm_with(desk, intent, **params.only(*_CONFIRMING))
    return intent


def cancel(desk: Desk, params: Params, intent_id: str) -> Json:
    """POST /v1/payment_intents/{intent}/cancel."""
    intent = desk.get("payment_intent", intent_id)
    if "_invoice" in intent:
        raise StripeError("You cannot cancel the PaymentIntent of an invoice: void the invoice instead.")
    cancel_intent(desk, intent, params.get("cancellation_reason"))
    return intent


def cancel_intent(desk: Desk, intent: Json, reason: str | None) -> None:
    """Nobody can pay it any more. Raises StripeError if somebody has."""
    if intent["status"] not in OPEN:
        raise _unexpected(intent, "canceled")
    intent.update(status="canceled", canceled_at=desk.now_s, cancellation_reason=reason, next_action=None)
    desk.tell("payment_intent.canceled", intent)


# --- paying -----------------------------------------------------------------------------------------------------------


def confirm_with(desk: Desk, intent: Json, *, off_session: Any = False, **how: Any) -> None:
    """Tries to have the money with its payment method. Raises StripeError (402) where that is refused."""
    if intent["status"] not in {"requires_payment_method", "requires_confirmation"}:
        raise _unexpected(intent, "confirmed")
    if intent["payment_method"] is None:
        text = "You cannot confirm this PaymentIntent because it's missing a payment method."
        raise StripeError(text, code="payment_intent_unexpected_state", payment_intent=public(intent))
    method = desk.get("payment_method", intent["payment_method"])
    card = card_behind(method)
    if card is None:
        (await_transfer if method["type"] == cash.TRANSFER else begin_debit)(desk, intent, method)
        return
    if card.asks:
        if off_session or how.get("error_on_requires_action"):
            _refused(desk, intent, method, ("authentication_required", "authentication_required"))
        intent.update(status="requires_action", next_action=authentication(desk, intent, how.get("return_url")))
        desk.tell("payment_intent.requires_action", intent)
        return
    if card.decline is not None:
        _refused(desk, intent, method, card.decline)
    succeed(desk, intent, method)


def authenticate(desk: Desk, intent_id: str, *, succeeds: bool) -> Json:
    """What the customer does in the window that asks for it. Raises StripeError if nothing is asked."""
    intent = desk.get("payment_intent", intent_id)
    if intent["status"] != "requires_action" or intent["next_action"]["type"] == _TRANSFER_ACTION:
        raise _unexpected(intent, "authenticated")
    method = desk.get("payment_method", intent["payment_method"])
    if succeeds:
        succeed(desk, intent, method)
        return intent
    error = {
        "code": "payment_intent_authentication_failure",
        "message": "The provided PaymentMethod has failed authentication.",
        "type": "invalid_request_error",
    }
    intent.update(status="requires_payment_method", payment_method=None, next_action=None, last_payment_error=error)
    desk.tell("payment_intent.payment_failed", intent)
    payment_failed(desk, intent)
    return intent


def succeed(desk: Desk, intent: Json, method: Json) -> Json:
    """The money is there. Returns the charge."""
    made = charge(desk, intent, method, None, intent["amount"] - intent["amount_received"])
    _received(desk, intent, method, made)
    return made


def _received(desk: Desk, intent: Json, method: Json, made: Json) -> None:
    """What follows from a charge that has succeeded."""
    intent.update(
        status="succeeded",
        amount_received=intent["amount"],
        latest_charge=made["id"],
        last_payment_error=None,
        next_action=None,
    )
    is_saved = intent["setup_future_usage"] or intent.get("_saves_card")
    if is_saved and intent["customer"] and method["customer"] is None and card_behind(method):
        save(desk, method, desk.get("customer", intent["customer"]))
    desk.tell("payment_intent.succeeded", intent)
    payment_succeeded(desk, intent)
    card = card_behind(method)
    if card is not None and card.disputed_as is not None:
        dispute_charge(desk, made, card.disputed_as, is_inquiry=card.is_inquiry)


def begin_debit(desk: Desk, intent: Json, method: Json) -> None:
    """The customer has agreed. The bank answers in time: see `answer_debit`. Its charge is pending until then."""
    made = pending_charge(desk, intent, method, intent["amount"] - intent["amount_received"])
    intent.update(
        status="processing",
        payment_method=method["id"],
        latest_charge=made["id"],
        next_action=None,
        _answered_at=desk.now_s + debits.ANSWERED_AFTER_S,
    )
    desk.tell("payment_intent.processing", intent)
    payment_under_way(desk, intent)


def answer_debit(desk: Desk, intent: Json) -> None:
    """The bank of a debit that is processing has paid, or has refused to."""
    method = desk.get("payment_method", intent["payment_method"])
    made = desk.get("charge", intent["latest_charge"])
    account = debits.account_of(method)
    if account is None or account.refused is None:
        answered(desk, made, None)
        _received(desk, intent, method, made)
        return
    said = debits.refusal_message(account.refused)
    answered(desk, made, (account.refused, None), said=said)
    error = {
        "charge": made["id"],
        "code": account.refused,
        "message": said,
        "payment_method": {name: value for name, value in method.items() if name[0] != "_"},
        "type": "invalid_request_error",
    }
    intent.update(
        status="requires_payment_method", payment_method=None, latest_charge=made["id"], last_payment_error=error
    )
    desk.tell("payment_intent.payment_failed", intent)
    payment_failed(desk, intent)


def await_transfer(desk: Desk, intent: Json, method: Json) -> None:
    """Asks the customer for a bank transfer; what is in the cash balance already pays at once, if it is enough."""
    if intent["customer"] is None:
        raise StripeError("A bank transfer needs a customer that it comes from.", param="customer")
    intent.update(
        status="requires_action",
        payment_method=method["id"],
        next_action=cash.instructions(desk, intent),
        _transfer=method["id"],
    )
    desk.tell("payment_intent.requires_action", intent)
    if not cash.is_applied_by_hand(desk.get("customer", intent["customer"])):
        pay_from_cash(desk, intent)


def pay_from_cash(desk: Desk, intent: Json) -> None:
    """Pays an intent that awaits a transfer from the customer's cash balance, if that is enough."""
    customer = desk.get("customer", intent["customer"])
    if cash.available(customer, intent["currency"]) < intent["amount"]:
        return
    intent["payment_method"] = intent["_transfer"]
    applied = {"payment_intent": intent["id"]}
    cash.move(desk, customer, intent["currency"], -intent["amount"], "applied_to_payment", applied_to_payment=applied)
    succeed(desk, intent, desk.get("payment_method", intent["_transfer"]))


def public(intent: Json) -> Json:
    """An intent as it is shown inside an error."""
    return {name: value for name, value in intent.items() if not name.startswith("_")}


def _refused(desk: Desk, intent: Json, method: Json, decline: tuple[str, str | None]) -> None:
    """Leaves the failed attempt where everybody sees it, and raises the 402."""
    code, decline_code = decline
    text = _AUTHENTICATION if code == "authentication_required" else decline_message(code, decline_code)
    made = charge(
        desk,
        intent,
        method,
        decline if code != "authentication_required" else ("card_declined", None),
        intent["amount"],
    )
    told = {"charge": made["id"], "code": code, "decline_code": decline_code, "message": text, "type": "card_error"}
    shown = {name: value for name, value in told.items() if value is not None}
    shown["payment_method"] = {name: value for name, value in method.items() if name[0] != "_"}
    intent.update(
        status="requires_payment_method", payment_method=None, latest_charge=made["id"], last_payment_error=shown
    )
    desk.tell("payment_intent.payment_failed", intent)
    payment_failed(desk, intent)
    more = {name: value for name, value in shown.items() if name not in {"code", "message", "type"}}
    raise StripeError(
        text, status=402, kind="card_error", code=code, keeps_changes=True, payment_intent=public(intent), **more
    )


_TRANSFER_ACTION: Final = "display_bank_transfer_instructions"
_AUTHENTICATION: Final = "Your card was declined. This transaction requires authentication."


def authentication(desk: Desk, intent: Json, return_url: str | None) -> Json:
    """What the customer has to do next, at the page that asks for consent."""
    url = f"{desk.house.base_url}/_pay/authenticate/{intent['id']}"
    if return_url is None:
        return {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": url}}
    return {"type": "redirect_to_url", "redirect_to_url": {"return_url": return_url, "url": url}}


def _edit(desk: Desk, intent: Json, params: Params) -> None:
    intent.update(params.only(*_PLAIN))
    with_metadata(intent, params.get("metadata"))
    if params.has("payment_method_options"):
        intent["_method_options"] = params.get("payment_method_options")
    method = named(desk, params.get("payment_method")) if params.get("payment_method") else None
    if (data := params.get("payment_method_data")) is not None:
        method = from_data(desk, data)
    if method is not None:
        set_method(intent, method)


def set_method(intent: Json, method: Json) -> None:
    """Chooses how it is to be paid. Raises StripeError for another customer's payment method."""
    if method["customer"] is not None and method["customer"] != intent["customer"]:
        text = "The provided PaymentMethod belongs to a customer that the PaymentIntent does not name."
        raise StripeError(text, param="payment_method")
    if intent["automatic_payment_methods"] is None and method["type"] not in intent[OLD_NAME]:
        text = f"The PaymentMethod provided ({method['type']}) is not allowed for this PaymentIntent."
        raise StripeError(text, param="payment_method")
    intent["payment_method"] = method["id"]
    if intent["status"] == "requires_payment_method":
        intent["status"] = "requires_confirmation"


def set_types(intent: Json, types: list[str]) -> None:
    """By what it may be paid. Raises StripeError for what this server does not know, or is in another currency."""
    if unknown := sorted(set(types) - {"card", "link", cash.TRANSFER, *debits.CURRENCIES}):
        raise unsupported(f"payment methods of type {', '.join(unknown)}")
    debits.require_currency(types, intent["currency"])
    intent[OLD_NAME] = intent[NEW_NAME] = list(types)


def _unexpected(intent: Json, done: str) -> StripeError:
    text = f"This PaymentIntent could not be {done} because it has a status of {intent['status']}."
    return StripeError(text, code="payment_intent_unexpected_state", payment_intent=public(intent))


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/payment_intents": create,
    "GET /v1/payment_intents": lister("payment_intent", "/v1/payment_intents", "customer"),
    "GET /v1/payment_intents/search": searcher("payment_intent", "/v1/payment_intents/search"),
    "GET /v1/payment_intents/{intent}": getter("payment_intent"),
    "POST /v1/payment_intents/{intent}": update,
    "POST /v1/payment_intents/{intent}/confirm": confirm,
    "POST /v1/payment_intents/{intent}/cancel": cancel,
}
