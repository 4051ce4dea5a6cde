"""Invoice items: what a draft will ask for, one line each. With `amount`, with a price, or with an inline price."""

from __future__ import annotations

from typing import Any, Final

from settlement.stripe_local.catalogue import price_from_data
from settlement.stripe_local.customers import live, settle_currency
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.invoice_totals import line_of, recompute
from settlement.stripe_local.lists import getter, listed
from settlement.stripe_local.money import plain, product
from settlement.stripe_local.parameters import Params

_PRICED: Final = ("amount", "price_data", "pricing", "quantity", "quantity_decimal", "unit_amount_decimal")


def create(desk: Desk, params: Params) -> Json:
    """POST /v1/invoiceitems: on a draft (`invoice`), or pending until an invoice takes it."""
    invoice = draft(desk, params.get("invoice")) if params.has("invoice") else None
    customer_id = params.get("customer") or (invoice["customer"] if invoice is not None else None)
    if customer_id is None:
        raise StripeError("Missing required param: customer.", code="parameter_missing", param="customer")
    customer = live(desk, customer_id)
    if invoice is not None and invoice["customer"] != customer_id:
        raise StripeError("The invoice belongs to another customer.", param="invoice")
    default = (invoice or customer)["currency"] or desk.house.currency
    priced = _priced(desk, params.only(*_PRICED), params.get("currency", default).lower())
    if invoice is not None and priced["currency"] != invoice["currency"]:
        text = f"The invoice's currency is {invoice['currency']}; the item's is {priced['currency']}."
        raise StripeError(text, param="currency")
    settle_currency(customer, priced["currency"])
    item = desk.new(
        "invoiceitem",
        customer=customer_id,
        date=desk.now_s,
        discountable=params.get("discountable", False),
        discounts=[],
        metadata={},
        period=params.get("period", {"start": desk.now_s, "end": desk.now_s}),
        proration=False,
        net_amount=priced["amount"],
        tax_rates=[desk.get("tax_rate", one, "tax_rates") for one in params.get("tax_rates") or []],
        **priced,
    )
    item.update(params.only("description"))
    with_metadata(item, params.get("metadata"))
    desk.tell("invoiceitem.created", item)
    if invoice is not None:
        attach(desk, item, invoice)
        recompute(desk, invoice)
        desk.tell("invoice.updated", invoice)
    return item


def update(desk: Desk, params: Params, item_id: str) -> Json:
    """POST /v1/invoiceitems/{invoiceitem}: pending, or on a draft."""
    item = _open(desk, item_id)
    given = params.only(*_PRICED)
    if given:
        item.update(_priced(desk, given, item["currency"]))
        item["net_amount"] = item["amount"]
    item.update(params.only("description", "discountable", "period"))
    if params.has("tax_rates"):
        item["tax_rates"] = [desk.get("tax_rate", one, "tax_rates") for one in params.get("tax_rates") or []]
    with_metadata(item, params.get("metadata"))
    desk.tell("invoiceitem.updated", item)
    if item["invoice"] is not None:
        invoice = desk.get("invoice", item["invoice"])
        line_of(desk, item, desk.get("line_item", item["_line"]))
        recompute(desk, invoice)
        desk.tell("invoice.updated", invoice)
    return item


def delete(desk: Desk, _params: Params, item_id: str) -> Json:
    """DELETE /v1/invoiceitems/{invoiceitem}: pending, or on a draft."""
    item = _open(desk, item_id)
    desk.tell("invoiceitem.deleted", item)
    desk.changes.remove(item_id)
    if item["invoice"] is not None:
        desk.changes.remove(item["_line"])
        invoice = desk.get("invoice", item["invoice"])
        recompute(desk, invoice)
        desk.tell("invoice.updated", invoice)
    return {"id": item_id, "object": "invoiceitem", "deleted": True}


def list_all(desk: Desk, params: Params) -> Json:
    """GET /v1/invoiceitems."""
    pending = params.get("pending")
    return listed(
        desk,
        params,
        "invoiceitem",
        "/v1/invoiceitems",
        "customer",
        "invoice",
        keep=lambda item: pending is None or (item["invoice"] is None) == pending,
    )


def draft(desk: Desk, invoice_id: str) -> Json:
    """The invoice, if it can still be edited. Raises StripeError."""
    invoice = desk.get("invoice", invoice_id, "invoice")
    if invoice["status"] != "draft":
        text = "This invoice is no longer editable: it has been finalized."
        raise StripeError(text, code="invoice_not_editable", param="invoice")
    return invoice


def attach(desk: Desk, item: Json, invoice: Json) -> None:
    """Puts an item on a draft, as its last line. The invoice's sums are not recomputed."""
    item["invoice"] = invoice["id"]
    line = line_of(desk, item, None)
    line["_position"] = invoice["_positions"] = invoice.get("_positions", 0) + 1
    item["_line"] = line["id"]


def pending(desk: Desk, customer_id: str, currency: str) -> list[Json]:
    """Items of a customer that no invoice has taken yet, oldest first."""
    ids = [
        item["id"]
        for item in desk.changes.each("invoiceitem", customer=customer_id)
        if item["invoice"] is None and item["currency"] == currency
    ]
    return [desk.get("invoiceitem", item_id) for item_id in ids]


def _open(desk: Desk, item_id: str) -> Json:
    item = desk.get("invoiceitem", item_id)
    if item["invoice"] is not None:
        draft(desk, item["invoice"])
    return item


def _priced(desk: Desk, given: dict[str, Any], currency: str) -> Json:
    """Amount, quantity and price of an item: exactly one way of saying them."""
    ways = [name for name in ("amount", "price_data", "pricing", "unit_amount_decimal") if name in given]
    if len(ways) != 1:
        text = "You must specify exactly one of amount, pricing, price_data and unit_amount_decimal."
        raise StripeError(text, param=ways[1] if ways else "amount")
    quantity = plain(str(given.get("quantity_decimal", given.get("quantity", 1))))
    if "amount" in given:
        if {"quantity", "quantity_decimal"} & set(given):
            raise StripeError("When passing amount, quantity cannot be given.", param="quantity")
        return _sums(given["amount"], "1", currency, None, str(given["amount"]))
    if "unit_amount_decimal" in given:
        unit = plain(given["unit_amount_decimal"])
        return _sums(product(unit, quantity), quantity, currency, None, unit)
    if "price_data" in given:
        price = price_from_data(desk, given["price_data"], "price_data")
    else:
        price = desk.get("price", given["pricing"].get("price", ""), "pricing[price]")
        if price["type"] != "one_time":
            raise StripeError(
                "The price specified is set to `type=recurring`; only one_time works here.", param="pricing[price]"
            )
    unit = price["unit_amount_decimal"]
    return _sums(product(unit, quantity), quantity, price["currency"], price, unit)


def _sums(amount: int, quantity: str, currency: str, price: Json | None, unit: str) -> Json:
    details = {"price_details": {"price": price["id"], "product": price["product"]}} if price is not None else {}
    return {
        "amount": amount,
        "currency": currency,
        "quantity": int(quantity.partition(".")[0]),
        "quantity_decimal": quantity,
        "pricing": {**details, "type": "price_details", "unit_amount_decimal": unit},
    }


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/invoiceitems": create,
    "GET /v1/invoiceitems": list_all,
    "GET /v1/invoiceitems/{invoiceitem}": getter("invoiceitem"),
    "POST /v1/invoiceitems/{invoiceitem}": update,
    "DELETE /v1/invoiceitems/{invoiceitem}": delete,
}
