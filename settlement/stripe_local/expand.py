"""`expand[]`: ids replaced by what they name, and parts that are left out unless they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk
from settlement.stripe_local.errors import StripeError
from settlement.stripe_local.lists import first_ten

_DEPTH_MAX: Final = 4


def _payments(desk: Desk, invoice: Json) -> Json:
    return first_ten(desk.changes.each("invoice_payment", invoice=invoice["id"]), "/v1/invoice_payments")


def _refunds(desk: Desk, charge: Json) -> Json:
    return first_ten(desk.changes.each("refund", charge=charge["id"]), f"/v1/charges/{charge['id']}/refunds")


def _line_items(desk: Desk, session: Json) -> Json:
    items = [item for item_id in session["_items"] if (item := desk.changes.get(item_id)) is not None]
    return first_ten(items, f"/v1/checkout/sessions/{session['id']}/line_items")


def _tax_ids(desk: Desk, customer: Json) -> Json:
    return first_ten(desk.changes.each("tax_id", customer=customer["id"]), f"/v1/customers/{customer['id']}/tax_ids")


#: Parts that only come when asked for.
_INCLUDED: Final[dict[tuple[str, str], Callable[[Desk, Json], Json]]] = {
    ("charge", "refunds"): _refunds,
    ("checkout.session", "line_items"): _line_items,
    ("customer", "tax_ids"): _tax_ids,
    ("invoice", "payments"): _payments,
}


def answered(desk: Desk, value: Any, paths: list[str]) -> Any:
    """The answer: without what is only ours, and expanded. Raises StripeError (400) for what cannot be expanded."""
    shown = _public(value)
    for path in paths:
        parts = path.split(".")
        if len(parts) > _DEPTH_MAX:
            raise StripeError(f"You cannot expand more than {_DEPTH_MAX} levels of a property: {path}", param="expand")
        _expand(desk, shown, parts, path)
    return shown


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _public(inner) for name, inner in value.items() if not name.startswith("_")}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    return value


def _expand(desk: Desk, value: Any, parts: list[str], path: str) -> None:
    """Goes down the path and replaces what it meets by what is meant."""
    if not parts or value is None:
        return
    if isinstance(value, list):
        for inner in value:
            _expand(desk, inner, parts, path)
        return
    name, rest = parts[0], parts[1:]
    part = _INCLUDED.get((value.get("object", ""), name)) if isinstance(value, dict) else None
    if part is not None and value.get(name) is None:
        owner = desk.changes.get(value["id"])
        value[name] = _public(part(desk, owner)) if owner is not None else None
    if not isinstance(value, dict) or name not in value:
        text = f"This property cannot be expanded ({path})."
        raise StripeError(text, code="parameter_unknown", param="expand[0]")
    value[name] = _named(desk, value[name])
    _expand(desk, value[name], rest, path)


def _named(desk: Desk, value: Any) -> Any:
    """What an id names; lists of ids too. Anything else stays."""
    if isinstance(value, list):
        return [_named(desk, inner) for inner in value]
    if isinstance(value, str) and (found := desk.changes.get(value)) is not None:
        return _public(found)
    return value
