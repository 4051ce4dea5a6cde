"""Ways to pay: test cards, which can be saved; test accounts of banks and bank transfers, which cannot."""

from __future__ import annotations

from typing import Any, Final

from settlement.stripe_local import debits
from settlement.stripe_local.cards import Card, card_named, card_of, decline_message
from settlement.stripe_local.cash import TRANSFER
from settlement.stripe_local.customers import live
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError, missing, unsupported
from settlement.stripe_local.lists import listed
from settlement.stripe_local.parameters import Params

_EXPIRES: Final = (12, 2034)


def create(desk: Desk, params: Params) -> Json:
    """POST /v1/payment_methods: a test card by number or token."""
    kind = params.get("type")
    method = from_data(desk, {"type": kind, **params.only("card", TRANSFER, "billing_details")})
    with_metadata(method, params.get("metadata"))
    return method


def update(desk: Desk, params: Params, method_id: str) -> Json:
    """POST /v1/payment_methods/{payment_method}."""
    method = desk.get("payment_method", method_id)
    if (billing := params.get("billing_details")) is not None:
        method["billing_details"].update(billing)
    if (card := params.get("card")) is not None:
        method["card"].update(card)
    with_metadata(method, params.get("metadata"))
    desk.tell("payment_method.updated", method)
    return method


def attach(desk: Desk, params: Params, method_id: str) -> Json:
    """POST /v1/payment_methods/{payment_method}/attach. Raises StripeError (402) for cards that cannot be saved."""
    customer = live(desk, params.get("customer", ""))
    method = named(desk, method_id)
    if method["customer"] not in (None, customer["id"]):
        raise StripeError("The payment method you provided has already been attached to a customer.")
    save(desk, method, customer)
    return method


def save(desk: Desk, method: Json, customer: Json) -> None:
    """Makes it the customer's. Raises StripeError (402) for cards that cannot be saved."""
    require_savable(method)
    if method["customer"] is None:
        method["customer"] = customer["id"]
        desk.tell("payment_method.attached", method)


def require_savable(method: Json) -> None:
    """Raises StripeError (402) for a card that its bank refuses even to be saved."""
    card = card_behind(method)
    if card is None:
        raise StripeError("A bank transfer cannot be saved for later.", param="payment_method")
    if card.decline is not None and not card.saves:
        raise declined(card.decline)


def detach(desk: Desk, _params: Params, method_id: str) -> Json:
    """POST /v1/payment_methods/{payment_method}/detach: it is never of use again."""
    method = desk.get("payment_method", method_id)
    if method["customer"] is None:
        raise StripeError("The payment method you provided is not attached to a customer so detachment is impossible.")
    customer = desk.get("customer", method["customer"])
    if customer["invoice_settings"]["default_payment_method"] == method_id:
        customer["invoice_settings"]["default_payment_method"] = None
    method["customer"] = None
    method["_detached"] = True
    desk.tell("payment_method.detached", method)
    return method


def list_of_customer(desk: Desk, params: Params, customer_id: str) -> Json:
    """GET /v1/customers/{customer}/payment_methods."""
    live(desk, customer_id)
    url = f"/v1/customers/{customer_id}/payment_methods"
    return listed(desk, params, "payment_method", url, "type", customer=customer_id)


def list_all(desk: Desk, params: Params) -> Json:
    """GET /v1/payment_methods: those of a customer."""
    return listed(desk, params, "payment_method", "/v1/payment_methods", "customer", "type")


def named(desk: Desk, method_id: str, param: str = "payment_method") -> Json:
    """A saved payment method, or a fresh one where one of Stripe's test names is given. Raises StripeError (404)."""
    if method_id.startswith("pm_card_"):
        card = card_named(method_id)
        if card is None:
            raise missing("payment_method", method_id, param)
        return _new_card(desk, card)
    if (account := debits.account_named(method_id)) is not None:
        method = _new(desk, None, type=account.kind, **{account.kind: debits.shown(account.kind)})
        method["_account"] = method_id
        return method
    method = desk.get("payment_method", method_id, param)
    if method.get("_detached"):
        text = "The provided PaymentMethod was previously used or detached and may not be used again."
        raise StripeError(text, code="payment_method_unexpected_state", param=param)
    return method


def from_data(desk: Desk, data: dict[str, Any]) -> Json:
    """A payment method from `payment_method_data` or what creates one."""
    if data["type"] == TRANSFER:
        return _new(desk, data.get("billing_details"), type=TRANSFER, **{TRANSFER: {}})
    if data["type"] != "card":
        raise unsupported(f"payment methods of type {data['type']}")
    given = data.get("card") or {}
    name = given.get("token") or given.get("number") or ""
    card = card_named(name)
    if card is None:
        raise StripeError(
            "Your card number is not one of Stripe's test cards.",
            status=402,
            kind="card_error",
            code="incorrect_number",
        )
    expires = (given.get("exp_month", _EXPIRES[0]), given.get("exp_year", _EXPIRES[1]))
    return _new_card(desk, card, data.get("billing_details"), expires)


def card_behind(method: Json) -> Card | None:
    """The test card that it stands for; None for what is no card."""
    return card_of(method["_number"]) if method["type"] == "card" else None


def declined(decline: tuple[str, str | None], **more: Any) -> StripeError:
    """402, as Stripe words a refused card."""
    code, decline_code = decline
    text = decline_message(code, decline_code)
    return StripeError(text, status=402, kind="card_error", code=code, decline_code=decline_code, param=None, **more)


def _new_card(desk: Desk, card: Card, billing: Json | None = None, expires: tuple[int, int] = _EXPIRES) -> Json:
    shown = {
        "brand": card.brand,
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
        "country": card.country,
        "display_brand": card.brand,
        "exp_month": expires[0],
        "exp_year": expires[1],
        "fingerprint": f"local{card.number[-8:]}",
        "funding": "credit",
        "generated_from": None,
        "last4": card.number[-4:],
        "networks": {"available": [card.brand], "preferred": None},
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }
    method = _new(desk, billing, type="card", card=shown)
    method["_number"] = card.number
    return method


def _new(desk: Desk, billing: Json | None, **fields: Any) -> Json:
    method = desk.new("payment_method", metadata={}, **fields)
    method["billing_details"].update(billing or {})
    return method


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/payment_methods": create,
    "GET /v1/payment_methods": list_all,
    "GET /v1/payment_methods/{payment_method}": lambda desk, _, method_id: named(desk, method_id),
    "POST /v1/payment_methods/{payment_method}": update,
    "POST /v1/payment_methods/{payment_method}/attach": attach,
    "POST /v1/payment_methods/{payment_method}/detach": detach,
    "GET /v1/customers/{customer}/payment_methods": list_of_customer,
    "GET /v1/customers/{customer}/payment_methods/{payment_method}": lambda desk, _, __, method_id: named(
        desk, method_id
    ),
}
