"""Customers, their tax ids, and their credit balance (not their cash balance, which is bank_transfers.py's)."""

from __future__ import annotations

from typing import Any, Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.ids import letters
from settlement.stripe_local.lists import listed
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.search import searched

_PLAIN: Final = (
    "address",
    "description",
    "email",
    "invoice_prefix",
    "name",
    "next_invoice_sequence",
    "phone",
    "preferred_locales",
    "shipping",
    "tax_exempt",
)


def create(desk: Desk, params: Params) -> Json:
    """POST /v1/customers."""
    fields = {
        "balance": 0,
        "invoice_prefix": letters(8).upper(),
        "next_invoice_sequence": 1,
        "preferred_locales": [],
        "tax_exempt": "none",
        "delinquent": False,
        "metadata": {},
        **params.only(*_PLAIN),
    }
    customer = desk.new("customer", **fields)
    _set_invoice_settings(desk, customer, params)
    with_metadata(customer, params.get("metadata"))
    for one in params.get("tax_id_data") or []:
        _new_tax_id(desk, customer, one["type"], one["value"])
    if balance := params.get("balance"):
        adjust_balance(desk, customer, balance, desk.house.currency, "initial")
    desk.tell("customer.created", customer)
    return customer


def update(desk: Desk, params: Params, customer_id: str) -> Json:
    """POST /v1/customers/{customer}."""
    customer = live(desk, customer_id)
    customer.update(params.only(*_PLAIN))
    _set_invoice_settings(desk, customer, params)
    with_metadata(customer, params.get("metadata"))
    if params.has("balance"):
        wanted = params.get("balance")
        adjust_balance(desk, customer, wanted - customer["balance"], customer["currency"] or desk.house.currency)
    desk.tell("customer.updated", customer)
    return customer


def retrieve(desk: Desk, _params: Params, customer_id: str) -> Json:
    """GET /v1/customers/{customer}; a deleted one says so."""
    customer = desk.get("customer", customer_id)
    return _stub(customer) if customer.get("_deleted") else customer


def delete(desk: Desk, _params: Params, customer_id: str) -> Json:
    """DELETE /v1/customers/{customer}: its drafts go too, its invoices stay."""
    customer = live(desk, customer_id)
    desk.tell("customer.deleted", customer)
    customer["_deleted"] = True
    return _stub(customer)


def list_all(desk: Desk, params: Params) -> Json:
    """GET /v1/customers."""
    return listed(desk, params, "customer", "/v1/customers", "email", keep=lambda one: not one.get("_deleted"))


def search(desk: Desk, params: Params) -> Json:
    """GET /v1/customers/search."""
    return searched(desk, params, "customer", "/v1/customers/search")


def live(desk: Desk, customer_id: str, param: str = "customer") -> Json:
    """The customer, if it was not deleted. Raises StripeError (404)."""
    customer = desk.get("customer", customer_id, param)
    if customer.get("_deleted"):
        raise StripeError(f"No such customer: '{customer_id}'", status=404, code="resource_missing", param=param)
    return customer


def settle_currency(customer: Json, currency: str) -> None:
    """A customer is billed in one currency, that of its first invoice or balance. Raises StripeError for another."""
    if customer["currency"] is None:
        customer["currency"] = currency
    elif customer["currency"] != currency:
        text = (
            "You cannot combine currencies on a single customer. This customer has an active invoice item, invoice or "
            f"balance with currency {customer['currency']}, and {currency} was asked for."
        )
        raise StripeError(text, param="currency")


# --- credit balance ---------------------------------------------------------------------------------------------------


def adjust_balance(
    desk: Desk, customer: Json, amount: int, currency: str, kind: str = "adjustment", **more: Any
) -> Json:
    """A movement of the balance, in minor units: negative is credit to the customer's next invoices."""
    settle_currency(customer, currency)
    customer["balance"] += amount
    return desk.new(
        "customer_balance_transaction",
        amount=amount,
        currency=currency,
        customer=customer["id"],
        ending_balance=customer["balance"],
        type=kind,
        metadata={},
        **more,
    )


def create_balance_transaction(desk: Desk, params: Params, customer_id: str) -> Json:
    """POST /v1/customers/{customer}/balance_transactions."""
    customer = live(desk, customer_id)
    moved = adjust_balance(
        desk, customer, params.get("amount"), params.get("currency"), description=params.get("description")
    )
    with_metadata(moved, params.get("metadata"))
    desk.tell("customer.updated", customer)
    return moved


def list_balance_transactions(desk: Desk, params: Params, customer_id: str) -> Json:
    """GET /v1/customers/{customer}/balance_transactions."""
    url = f"/v1/customers/{customer_id}/balance_transactions"
    return listed(desk, params, "customer_balance_transaction", url, "invoice", customer=customer_id)


# --- tax ids ----------------------------------------------------------------------------------------------------------


def create_tax_id(desk: Desk, params: Params, customer_id: str) -> Json:
    """POST /v1/customers/{customer}/tax_ids."""
    return _new_tax_id(desk, live(desk, customer_id), params.get("type"), params.get("value"))


def list_tax_ids(desk: Desk, params: Params, customer_id: str) -> Json:
    """GET /v1/customers/{customer}/tax_ids."""
    return listed(desk, params, "tax_id", f"/v1/customers/{customer_id}/tax_ids", customer=customer_id)


def delete_tax_id(desk: Desk, _params: Params, customer_id: str, tax_id: str) -> Json:
    """DELETE /v1/customers/{customer}/tax_ids/{id}."""
    live(desk, customer_id)
    found = desk.get("tax_id", tax_id)
    desk.tell("customer.tax_id.deleted", found)
    desk.changes.remove(tax_id)
    return {"id": tax_id, "object": "tax_id", "deleted": True}


def _new_tax_id(desk: Desk, customer: Json, kind: str, value: str) -> Json:
    country = kind[:2].upper() if kind != "eu_vat" else value[:2].upper()
    verification = {"status": "pending", "verified_address": None, "verified_name": None}
    made = desk.new(
        "tax_id", customer=customer["id"], type=kind, value=value, country=country, verification=verification
    )
    made["owner"] = {"type": "customer", "customer": customer["id"]}
    desk.tell("customer.tax_id.created", made)
    return made


def _set_invoice_settings(desk: Desk, customer: Json, params: Params) -> None:
    settings = customer.get("invoice_settings") or {
        "custom_fields": None,
        "default_payment_method": None,
        "footer": None,
        "rendering_options": None,
    }
    given = {name: None if value == "" else value for name, value in (params.get("invoice_settings") or {}).items()}
    method_id = given.get("default_payment_method")
    if method_id is not None and desk.get("payment_method", method_id)["customer"] != customer["id"]:
        text = (
            f"The customer does not have a payment method with the ID {method_id}. The payment method must be attached."
        )
        raise StripeError(text, code="resource_missing", param="invoice_settings[default_payment_method]")
    customer["invoice_settings"] = {**settings, **given}


def _stub(customer: Json) -> Json:
    return {"id": customer["id"], "object": "customer", "deleted": True}


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/customers": create,
    "GET /v1/customers": list_all,
    "GET /v1/customers/search": search,
    "GET /v1/customers/{customer}": retrieve,
    "POST /v1/customers/{customer}": update,
    "DELETE /v1/customers/{customer}": delete,
    "POST /v1/customers/{customer}/balance_transactions": create_balance_transaction,
    "GET /v1/customers/{customer}/balance_transactions": list_balance_transactions,
    "POST /v1/customers/{customer}/tax_ids": create_tax_id,
    "GET /v1/customers/{customer}/tax_ids": list_tax_ids,
    "DELETE /v1/customers/{customer}/tax_ids/{id}": delete_tax_id,
}
