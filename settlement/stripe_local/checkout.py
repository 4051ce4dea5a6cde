"""Checkout sessions that take one payment, or save a card. What the customer does there is in customer_actions.py."""

from __future__ import annotations

from typing import Any, Final

from settlement.stripe_local import cash, debits
from settlement.stripe_local.amendments import NEW_NAME, OLD_NAME
from settlement.stripe_local.catalogue import price_from_data
from settlement.stripe_local.customers import live
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError, unsupported
from settlement.stripe_local.lists import getter, lister, page
from settlement.stripe_local.money import product, require_chargeable
from settlement.stripe_local.parameters import Params

_PLAIN: Final = ("cancel_url", "client_reference_id", "customer_email", "locale", "submit_type", "success_url")
_EXPIRES_AFTER_S: Final = 24 * 3600
_EXPIRES_SOONEST_S: Final = 30 * 60
_TAXES_NONE: Final = {"enabled": False, "liability": None, "provider": None, "status": None}


def create(desk: Desk, params: Params) -> Json:
    """POST /v1/checkout/sessions: on Stripe's page, a payment (mode=payment) or a card to be saved (mode=setup)."""
    _require_known(params)
    customer = live(desk, params.get("customer")) if params.has("customer") else None
    if not params.get("success_url"):
        raise StripeError("Missing required param: success_url.", code="parameter_missing", param="success_url")
    is_payment = params.get("mode", "payment") == "payment"
    session = desk.new(
        "checkout.session",
        automatic_tax=_TAXES_NONE,
        customer=customer["id"] if customer is not None else None,
        expires_at=_expires_at(desk, params.get("expires_at")),
        metadata={},
        mode="payment" if is_payment else "setup",
        payment_status="unpaid" if is_payment else "no_payment_required",
        redirect_on_completion="always",
        status="open",
        ui_mode="hosted_page",
        **dict.fromkeys((NEW_NAME, OLD_NAME), _types(params) or ["card"]),
    )
    session.update(params.only(*_PLAIN))
    session["url"] = f"{desk.house.base_url}/_pay/checkout/{session['id']}"
    session["_items"] = []
    if is_payment:
        _ask_for_payment(desk, session, params)
    else:
        _ask_for_card(session, params)
    with_metadata(session, params.get("metadata"))
    return session


def _ask_for_payment(desk: Desk, session: Json, params: Params) -> None:
    """Raises StripeError for lines that cannot be paid together."""
    items = [_item(desk, given, f"line_items[{at}]") for at, given in enumerate(params.get("line_items") or [])]
    currency = _currency(items)
    total = sum(item["amount_total"] for item in items)
    require_chargeable(total, currency)
    if not _types(params):  # left to the dashboard, where here whatever there is in a currency is switched on
        session[OLD_NAME] = session[NEW_NAME] = debits.all_in(currency)
    debits.require_currency(session[OLD_NAME], currency)
    session.update(amount_subtotal=total, amount_total=total, currency=currency)
    session["total_details"] = {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}
    session["_items"] = [item["id"] for item in items]
    session["_intent"] = params.get("payment_intent_data") or {}
    of_cards = (params.get("payment_method_options") or {}).get("card") or {}
    if unknown := sorted(set(of_cards) - {"setup_future_usage"}):
        raise unsupported(f"payment_method_options[card][{unknown[0]}] of Checkout")
    session["_saves_card"] = bool(of_cards.get("setup_future_usage"))


def _ask_for_card(session: Json, params: Params) -> None:
    """Raises StripeError where there is nobody whose card it would be."""
    if session["customer"] is None:
        raise unsupported("saving a card of nobody: Checkout with mode=setup needs a customer")
    if session[OLD_NAME] != ["card"]:
        raise StripeError("Only cards can be saved.", param=OLD_NAME)
    session.update(params.only("currency"))
    session["_intent"] = params.get("setup_intent_data") or {}


def expire(desk: Desk, _params: Params, session_id: str) -> Json:
    """POST /v1/checkout/sessions/{session}/expire: only an open one."""
    session = desk.get("checkout.session", session_id)
    if session["status"] != "open":
        raise StripeError(f"Only Checkout Sessions with a status of open can be expired; this is {session['status']}.")
    run_out(desk, session)
    return session


def run_out(desk: Desk, session: Json) -> None:
    """Nobody can pay it any more."""
    session.update(status="expired", url=None)
    desk.tell("checkout.session.expired", session)


def complete(desk: Desk, session: Json, intent: Json) -> None:
    """The customer is done: has paid, or knows where to transfer the money to, which comes later or never."""
    is_paid = intent["status"] == "succeeded"
    if session["status"] == "complete":
        session["payment_status"] = "paid"
        desk.tell("checkout.session.async_payment_succeeded", session)
        return
    customer = desk.get("customer", session["customer"]) if session["customer"] else None
    details = {
        name: customer[name] if customer else None for name in ("address", "email", "name", "phone", "tax_exempt")
    }
    details.update(
        tax_ids=[], business_name=None, individual_name=None, email=details["email"] or session["customer_email"]
    )
    session.update(
        status="complete",
        customer_details=details,
        url=None,
    )
    if session["mode"] == "setup":
        session["setup_intent"] = intent["id"]
    else:
        session.update(payment_intent=intent["id"], payment_status="paid" if is_paid else "unpaid")
    desk.tell("checkout.session.completed", session)


def came_to_nothing(desk: Desk, session: Json) -> None:
    """A debit that its customer agreed to was refused by the bank. The page is done, and nobody can pay there again."""
    if session["status"] == "complete":
        desk.tell("checkout.session.async_payment_failed", session)


def list_items(desk: Desk, params: Params, session_id: str) -> Json:
    """GET /v1/checkout/sessions/{session}/line_items."""
    session = desk.get("checkout.session", session_id)
    url = f"/v1/checkout/sessions/{session_id}/line_items"
    return page([desk.get("item", item_id) for item_id in session["_items"]], params, url, "item")


def update(desk: Desk, params: Params, session_id: str) -> Json:
    """POST /v1/checkout/sessions/{session}: its metadata."""
    session = desk.get("checkout.session", session_id)
    with_metadata(session, params.get("metadata"))
    return session


def _types(params: Params) -> list[str]:
    """Empty where they are left to Stripe."""
    return list(params.get(NEW_NAME) or params.get(OLD_NAME) or ())


def _require_known(params: Params) -> None:
    """Raises StripeError where Stripe would do what this server does not."""
    if (mode := params.get("mode", "payment")) == "subscription":
        raise unsupported(f"Checkout with mode={mode}")
    if (params.get("ui_mode") or "hosted_page") != "hosted_page":
        raise unsupported("Checkout anywhere but on its own page")
    if unknown := sorted(set(_types(params)) - {"card", "link", cash.TRANSFER, *debits.CURRENCIES}):
        raise unsupported(f"Checkout by {', '.join(unknown)}")
    if cash.TRANSFER in _types(params) and not params.has("customer"):
        raise StripeError("A bank transfer needs a customer that it comes from.", param="customer")
    if unknown := sorted(set(params.get("payment_method_options") or {}) - {"card", cash.TRANSFER}):
        raise unsupported(f"payment_method_options[{unknown[0]}] of Checkout")
    for name in ("automatic_tax", "invoice_creation", "adaptive_pricing"):
        if (params.get(name) or {}).get("enabled"):
            raise unsupported(f"Checkout with {name}")
    if params.has("customer") and params.has("customer_email"):
        raise StripeError("You may only specify one of these parameters: customer, customer_email.")


def _item(desk: Desk, given: dict[str, Any], path: str) -> Json:
    """One line. Raises StripeError for a price that is not one, or is for another mode."""
    if unknown := sorted(set(given) - {"price", "price_data", "quantity"}):
        raise unsupported(f"{path}[{unknown[0]}]")
    if ("price" in given) == ("price_data" in given):
        raise StripeError(f"You must specify either {path}[price] or {path}[price_data].", param=path)
    if "price" in given:
        price = desk.get("price", given["price"], f"{path}[price]")
    else:
        price = price_from_data(desk, given["price_data"], f"{path}[price_data]")
    if price["type"] != "one_time":
        raise StripeError("You specified `payment` mode but passed a recurring price.", param=path)
    quantity = given.get("quantity", 1)
    amount = product(price["unit_amount_decimal"], str(quantity))
    return desk.new(
        "item",
        amount_discount=0,
        amount_subtotal=amount,
        amount_tax=0,
        amount_total=amount,
        currency=price["currency"],
        description=desk.get("product", price["product"])["name"],
        price=price,
        quantity=quantity,
    )


def _currency(items: list[Json]) -> str:
    currencies = {item["currency"] for item in items}
    if not currencies:
        raise StripeError("Missing required param: line_items.", code="parameter_missing", param="line_items")
    if len(currencies) > 1:
        raise StripeError("All prices of a Checkout Session must have the same currency.", param="line_items")
    return str(currencies.pop())


def _expires_at(desk: Desk, wanted: int | None) -> int:
    if wanted is None:
        return desk.now_s + _EXPIRES_AFTER_S
    if not desk.now_s + _EXPIRES_SOONEST_S <= wanted <= desk.now_s + _EXPIRES_AFTER_S:
        text = "The `expires_at` timestamp must be at least 30 minutes and less than 24 hours from session creation."
        raise StripeError(text, param="expires_at")
    return wanted


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/checkout/sessions": create,
    "GET /v1/checkout/sessions": lister(
        "checkout.session", "/v1/checkout/sessions", "customer", "payment_intent", "status"
    ),
    "GET /v1/checkout/sessions/{session}": getter("checkout.session"),
    "POST /v1/checkout/sessions/{session}": update,
    "POST /v1/checkout/sessions/{session}/expire": expire,
    "GET /v1/checkout/sessions/{session}/line_items": list_items,
}
