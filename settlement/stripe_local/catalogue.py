"""Products, prices and tax rates: as little of them as invoices and Checkout need."""

from __future__ import annotations

from typing import Any, Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.lists import getter, lister
from settlement.stripe_local.money import plain
from settlement.stripe_local.parameters import Params

_PRODUCT: Final = ("active", "description", "images", "name", "statement_descriptor", "tax_code", "unit_label", "url")
_PRICE: Final = ("active", "lookup_key", "nickname", "tax_behavior")
_TAX_RATE: Final = (
    "active",
    "country",
    "description",
    "display_name",
    "inclusive",
    "jurisdiction",
    "percentage",
    "state",
    "tax_type",
)


def create_product(desk: Desk, params: Params) -> Json:
    """POST /v1/products."""
    return _new_product(desk, params.only(*_PRODUCT, "id"), params.get("metadata"))


def update_product(desk: Desk, params: Params, product_id: str) -> Json:
    """POST /v1/products/{id}."""
    found = desk.get("product", product_id)
    found.update(params.only(*_PRODUCT), updated=desk.now_s)
    with_metadata(found, params.get("metadata"))
    desk.tell("product.updated", found)
    return found


def delete_product(desk: Desk, _params: Params, product_id: str) -> Json:
    """DELETE /v1/products/{id}: only without prices."""
    found = desk.get("product", product_id)
    if any(price["product"] == product_id for price in desk.changes.each("price")):
        raise StripeError("This product cannot be deleted because it has one or more user-created prices.")
    desk.tell("product.deleted", found)
    desk.changes.remove(product_id)
    return {"id": product_id, "object": "product", "deleted": True}


def create_price(desk: Desk, params: Params) -> Json:
    """POST /v1/prices: per unit; recurring ones may be made, though nothing here recurs."""
    given = params.only("product")
    if (data := params.get("product_data")) is not None:
        given["product"] = _new_product(desk, {key: data[key] for key in data if key != "metadata"}, None)["id"]
    if "product" not in given:
        raise StripeError("Missing required param: product.", code="parameter_missing", param="product")
    desk.get("product", given["product"], "product")
    price = _new_price(desk, params.get("currency"), given["product"], _unit_amount(params.only(*_AMOUNTS)))
    price.update(params.only(*_PRICE))
    if (recurring := params.get("recurring")) is not None:
        price.update(
            type="recurring", recurring={"interval_count": 1, "usage_type": "licensed", "meter": None, **recurring}
        )
    with_metadata(price, params.get("metadata"))
    desk.tell("price.created", price)
    return price


def update_price(desk: Desk, params: Params, price_id: str) -> Json:
    """POST /v1/prices/{price}: amounts never change."""
    price = desk.get("price", price_id)
    price.update(params.only(*_PRICE))
    with_metadata(price, params.get("metadata"))
    desk.tell("price.updated", price)
    return price


def create_tax_rate(desk: Desk, params: Params) -> Json:
    """POST /v1/tax_rates."""
    fields = {"active": True, "metadata": {}, "rate_type": "percentage", **params.only(*_TAX_RATE)}
    rate = desk.new("tax_rate", **fields)
    rate["effective_percentage"] = rate["percentage"]
    with_metadata(rate, params.get("metadata"))
    desk.tell("tax_rate.created", rate)
    return rate


def update_tax_rate(desk: Desk, params: Params, rate_id: str) -> Json:
    """POST /v1/tax_rates/{tax_rate}: the percentage never changes."""
    rate = desk.get("tax_rate", rate_id)
    rate.update(params.only(*(name for name in _TAX_RATE if name not in {"inclusive", "percentage"})))
    with_metadata(rate, params.get("metadata"))
    desk.tell("tax_rate.updated", rate)
    return rate


# --- what others need of it -------------------------------------------------------------------------------------------

_AMOUNTS: Final = ("unit_amount", "unit_amount_decimal")


def price_from_data(desk: Desk, data: Json, param: str) -> Json:
    """An inline price (`price_data`): made on the spot and not offered to anybody else."""
    product_id = data.get("product")
    if (product := data.get("product_data")) is not None:
        product_id = _new_product(
            desk, {key: product[key] for key in product if key != "metadata"}, product.get("metadata")
        )["id"]
    if product_id is None:
        raise StripeError(
            f"Missing required param: {param}[product].", code="parameter_missing", param=f"{param}[product]"
        )
    desk.get("product", product_id, f"{param}[product]")
    price = _new_price(desk, data["currency"], product_id, _unit_amount(data))
    price.update(active=False, tax_behavior=data.get("tax_behavior", "unspecified"))
    return price


def _unit_amount(data: Json) -> str:
    given = [str(data[name]) for name in _AMOUNTS if data.get(name) is not None]
    if len(given) != 1:
        raise StripeError("You must specify exactly one of unit_amount and unit_amount_decimal.", param="unit_amount")
    return plain(given[0])


def _new_price(desk: Desk, currency: str, product_id: str, unit_amount: str) -> Json:
    return desk.new(
        "price",
        active=True,
        billing_scheme="per_unit",
        currency=currency.lower(),
        metadata={},
        product=product_id,
        tax_behavior="unspecified",
        type="one_time",
        unit_amount=int(unit_amount) if "." not in unit_amount else None,
        unit_amount_decimal=unit_amount,
    )


def _new_product(desk: Desk, fields: Json, metadata: Any) -> Json:
    if "id" in fields and desk.changes.get(fields["id"]) is not None:
        raise StripeError("Product already exists.", code="resource_already_exists", param="id")
    product = desk.new(
        "product", name=fields.pop("name"), active=True, metadata={}, updated=desk.now_s, **_ided(fields)
    )
    product.update(fields)
    with_metadata(product, metadata)
    desk.tell("product.created", product)
    return product


def _ided(fields: Json) -> Json:
    return {"id": fields["id"]} if "id" in fields else {}


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/products": create_product,
    "GET /v1/products": lister("product", "/v1/products", "active"),
    "GET /v1/products/{id}": getter("product"),
    "POST /v1/products/{id}": update_product,
    "DELETE /v1/products/{id}": delete_product,
    "POST /v1/prices": create_price,
    "GET /v1/prices": lister("price", "/v1/prices", "active", "product", "currency"),
    "GET /v1/prices/{price}": getter("price"),
    "POST /v1/prices/{price}": update_price,
    "POST /v1/tax_rates": create_tax_rate,
    "GET /v1/tax_rates": lister("tax_rate", "/v1/tax_rates", "active", "inclusive"),
    "GET /v1/tax_rates/{tax_rate}": getter("tax_rate"),
    "POST /v1/tax_rates/{tax_rate}": update_tax_rate,
}
