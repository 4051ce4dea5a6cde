"""The sums of an invoice, always from its lines: nothing that is added up is ever stored and changed in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk
from settlement.stripe_local.lists import first_ten
from settlement.stripe_local.money import share

_SHARED: Final = (
    "amount",
    "currency",
    "description",
    "discountable",
    "metadata",
    "period",
    "pricing",
    "quantity",
    "quantity_decimal",
)


def line_of(desk: Desk, item: Json, line: Json | None) -> Json:
    """The line that shows an item, made or brought up to date."""
    shown = {**{name: item[name] for name in _SHARED}, "subtotal": item["amount"]}
    if line is None:
        parent = {
            "type": "invoice_item_details",
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": None,
            },
            "subscription_item_details": None,
        }
        line = desk.new("line_item", invoice=item["invoice"], parent=parent, discount_amounts=[], **shown)
    line.update(shown)
    line["_tax_rates"] = [rate["id"] for rate in item["tax_rates"]]
    return line


def lines(desk: Desk, invoice_id: str) -> list[Json]:
    """The lines of an invoice, in their order. Only to be read."""
    return sorted(desk.changes.each("line_item", invoice=invoice_id), key=lambda line: line["_position"])


def recompute(desk: Desk, invoice: Json) -> None:
    """Brings lines' taxes and all sums of a draft up to date."""
    own = [desk.get("line_item", line["id"]) for line in lines(desk, invoice["id"])]
    customer = desk.get("customer", invoice["customer"])
    automatic = invoice["automatic_tax"]
    is_placed = bool((customer["address"] or {}).get("country"))
    automatic["status"] = ("complete" if is_placed else "requires_location_inputs") if automatic["enabled"] else None
    for line in own:
        line["taxes"] = _taxes(desk, invoice, customer, line)
    taxes = [tax for line in own for tax in line["taxes"]]
    on_top = sum(tax["amount"] for tax in taxes if tax["tax_behavior"] == "exclusive")
    within = sum(tax["amount"] for tax in taxes if tax["tax_behavior"] == "inclusive")
    subtotal = sum(line["amount"] for line in own)
    invoice["lines"] = first_ten(own, f"/v1/invoices/{invoice['id']}/lines")
    invoice["subtotal"], invoice["subtotal_excluding_tax"] = subtotal, subtotal - within
    invoice["total"], invoice["total_excluding_tax"] = subtotal + on_top, subtotal - within
    invoice["total_taxes"] = by_rate(taxes)
    invoice["starting_balance"] = customer["balance"]
    settle(invoice)


def settle(invoice: Json) -> None:
    """What is due and left, from the total and what has been set against it.

    The customer's balance (negative: credit) is used up when the invoice is finalized; a draft shows what would be.
    """
    whole = invoice["total"] + invoice["starting_balance"]
    ending = min(whole, 0) if invoice["ending_balance"] is None else invoice["ending_balance"]
    invoice["amount_due"] = whole - ending - invoice["pre_payment_credit_notes_amount"]
    invoice["amount_remaining"] = max(invoice["amount_due"] - invoice["amount_paid"], 0)


def _taxes(desk: Desk, invoice: Json, customer: Json, line: Json) -> list[Json]:
    rates: Iterable[Json]
    if invoice["automatic_tax"]["enabled"]:
        rates = _automatic(desk, customer)
    elif line["_tax_rates"]:
        rates = [desk.get("tax_rate", rate_id) for rate_id in line["_tax_rates"]]
    else:
        rates = invoice["default_tax_rates"]
    return [_tax(line["amount"], rate, customer) for rate in rates]


def _tax(amount: int, rate: Json, customer: Json) -> Json:
    inclusive = rate["inclusive"]
    exempt = customer["tax_exempt"] in {"exempt", "reverse"} and not inclusive
    tax = 0 if exempt else share(amount, rate["percentage"], inclusive=inclusive)
    reason = {"exempt": "customer_exempt", "reverse": "reverse_charge"}.get(customer["tax_exempt"], "standard_rated")
    return {
        "amount": tax,
        "tax_behavior": "inclusive" if inclusive else "exclusive",
        "tax_rate_details": {"tax_rate": rate["id"]},
        "taxability_reason": reason if exempt or not inclusive else "standard_rated",
        "taxable_amount": 0 if exempt else amount - (tax if inclusive else 0),
        "type": "tax_rate_details",
    }


def _automatic(desk: Desk, customer: Json) -> list[Json]:
    """Stripe Tax, as far as it goes here: one rate a country, from the house's table."""
    country = (customer["address"] or {}).get("country")
    percent = desk.house.tax_percent_by_country.get(country or "")
    if percent is None:
        return []
    known = [one for one in desk.changes.each("tax_rate") if one.get("_automatic") == f"{country} {percent}"]
    if known:
        return known[:1]
    rate = desk.new(
        "tax_rate",
        active=False,
        country=country,
        display_name="VAT",
        effective_percentage=float(percent),
        inclusive=False,
        metadata={},
        percentage=float(percent),
        rate_type="percentage",
        tax_type="vat",
    )
    rate["_automatic"] = f"{country} {percent}"
    return [rate]


def by_rate(taxes: list[Json]) -> list[Json]:
    """The taxes of all lines, one entry a rate and reason, in order of first use."""
    sums: dict[tuple[str, str, str], Json] = {}
    for tax in taxes:
        key = (tax["tax_rate_details"]["tax_rate"], tax["tax_behavior"], tax["taxability_reason"])
        if key not in sums:
            sums[key] = {**tax, "amount": 0, "taxable_amount": 0}
        sums[key]["amount"] += tax["amount"]
        sums[key]["taxable_amount"] += tax["taxable_amount"]
    return list(sums.values())
