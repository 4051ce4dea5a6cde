"""Invoices: drafts that are edited, and finalized ones that never are."""

from __future__ import annotations

from typing import Any, Final

from settlement.stripe_local import cash, debits
from settlement.stripe_local.blanks import blank
from settlement.stripe_local.customers import adjust_balance, live, settle_currency
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError, unsupported
from settlement.stripe_local.invoice_items import attach, pending
from settlement.stripe_local.invoice_states import close_payment, default_payment, mark, pay_off, require_status
from settlement.stripe_local.invoice_totals import lines, recompute, settle
from settlement.stripe_local.lists import getter, listed, lister, page
from settlement.stripe_local.money import minimum_charge
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.payment_intents import await_transfer, cancel_intent, new_intent, set_types
from settlement.stripe_local.payment_methods import from_data
from settlement.stripe_local.search import searcher

_DAY_S: Final = 24 * 3600
_FINALIZES_AFTER_S: Final = 3600
_PLAIN: Final = ("custom_fields", "description", "effective_at", "footer", "number", "statement_descriptor")
#: What may still be changed once an invoice is finalized: nothing that its receiver has seen.
_ALWAYS: Final = ("auto_advance", "default_payment_method", "payment_settings", "metadata")
_FROM_CUSTOMER: Final = {
    "address": "customer_address",
    "email": "customer_email",
    "name": "customer_name",
    "phone": "customer_phone",
    "tax_exempt": "customer_tax_exempt",
}
_STAMPS: Final = ("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")


def create(desk: Desk, params: Params) -> Json:
    """POST /v1/invoices: a draft, with the customer's pending items if they are wanted."""
    if not params.has("customer"):
        raise StripeError("Missing required param: customer.", code="parameter_missing", param="customer")
    customer = live(desk, params.get("customer"))
    currency = params.get("currency", customer["currency"] or desk.house.currency).lower()
    settle_currency(customer, currency)
    invoice = desk.new(
        "invoice",
        attempt_count=0,
        auto_advance=False,
        billing_reason="manual",
        collection_method="charge_automatically",
        currency=currency,
        customer=customer["id"],
        issuer={"type": "self"},
        lines={},
        metadata={},
        period_end=desk.now_s,
        period_start=desk.now_s,
        status="draft",
        status_transitions=dict.fromkeys(_STAMPS),
        account_country=desk.house.country,
        account_name="Local test account",
        **_SUMS,
    )
    _edit(desk, invoice, params)
    if params.get("pending_invoice_items_behavior", "exclude") == "include":
        for item in pending(desk, customer["id"], currency):
            attach(desk, item, invoice)
    _copy_customer(desk, invoice, customer)
    recompute(desk, invoice)
    desk.tell("invoice.created", invoice)
    return invoice


def update(desk: Desk, params: Params, invoice_id: str) -> Json:
    """POST /v1/invoices/{invoice}. Raises StripeError for what a finalized one shows."""
    invoice = desk.get("invoice", invoice_id)
    forbidden = sorted(params.names() - {*_ALWAYS, "expand"})
    if invoice["status"] != "draft" and forbidden:
        text = f"Finalized invoices can't be updated in this way: {', '.join(forbidden)}."
        raise StripeError(text, code="invoice_not_editable", param=forbidden[0])
    _edit(desk, invoice, params)
    if invoice["status"] == "draft":
        recompute(desk, invoice)
    desk.tell("invoice.updated", invoice)
    return invoice


def delete(desk: Desk, _params: Params, invoice_id: str) -> Json:
    """DELETE /v1/invoices/{invoice}: drafts only; their items go too."""
    invoice = desk.get("invoice", invoice_id)
    require_status(invoice, "draft", done="deleted")
    desk.tell("invoice.deleted", invoice)
    for kind in ("invoiceitem", "line_item"):
        for one in list(desk.changes.each(kind, invoice=invoice_id)):
            desk.changes.remove(one["id"])
    desk.changes.remove(invoice_id)
    return {"id": invoice_id, "object": "invoice", "deleted": True}


def finalize(desk: Desk, params: Params, invoice_id: str) -> Json:
    """POST /v1/invoices/{invoice}/finalize."""
    invoice = desk.get("invoice", invoice_id)
    require_status(invoice, "draft", done="finalized")
    if params.has("auto_advance"):
        invoice["auto_advance"] = params.get("auto_advance")
    finalized(desk, invoice)
    return invoice


def finalized(desk: Desk, invoice: Json) -> None:
    """Gives a draft its number and its last sums, and takes the customer's balance into account."""
    customer = desk.get("customer", invoice["customer"])
    _copy_customer(desk, invoice, customer)
    recompute(desk, invoice)
    if invoice["automatic_tax"]["status"] == "requires_location_inputs":
        text = "The customer's location isn't recognized. Set a valid customer address in order to calculate tax."
        raise StripeError(text, code="customer_tax_location_invalid")
    if invoice["number"] is None:
        invoice["number"] = f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04}"
        customer["next_invoice_sequence"] += 1
    if "_days_until_due" in invoice:
        invoice["due_date"] = desk.now_s + invoice["_days_until_due"] * _DAY_S
    invoice["hosted_invoice_url"] = invoice["invoice_pdf"] = f"{desk.house.base_url}/_pay/invoice/{invoice['id']}"
    invoice["effective_at"] = invoice["effective_at"] or desk.now_s
    invoice["automatically_finalizes_at"] = None
    mark(desk, invoice, "open", "finalized_at")
    _use_balance(desk, invoice, customer)
    if invoice["amount_due"] > 0 and invoice["auto_advance"] and invoice["collection_method"] == "charge_automatically":
        invoice["next_payment_attempt"] = desk.now_s
    desk.tell("invoice.updated", invoice)
    desk.tell("invoice.finalized", invoice)
    if invoice["amount_due"] > 0:
        _open_payment(desk, invoice)
    else:
        pay_off(desk, invoice)


def send(desk: Desk, _params: Params, invoice_id: str) -> Json:
    """POST /v1/invoices/{invoice}/send: no mail is sent, as in Stripe's test mode. A draft is finalized first."""
    invoice = desk.get("invoice", invoice_id)
    if invoice["collection_method"] != "send_invoice":
        raise StripeError("You can only manually send an invoice if its collection method is 'send_invoice'.")
    require_status(invoice, "draft", "open", "paid", done="sent")
    if not invoice["customer_email"]:
        raise StripeError("This customer has no email address to send the invoice to.", param="customer")
    if invoice["status"] == "draft":
        finalized(desk, invoice)
    desk.tell("invoice.sent", invoice)
    return invoice


def void(desk: Desk, _params: Params, invoice_id: str) -> Json:
    """POST /v1/invoices/{invoice}/void: what it took of the balance is given back."""
    invoice = desk.get("invoice", invoice_id)
    require_status(invoice, "open", "uncollectible", done="voided")
    cancel_payment(desk, invoice)
    used = invoice["ending_balance"] - invoice["starting_balance"]
    if used:
        customer = desk.get("customer", invoice["customer"])
        adjust_balance(desk, customer, -used, invoice["currency"], "unapplied_from_invoice", invoice=invoice_id)
    mark(desk, invoice, "void", "voided_at")
    desk.tell("invoice.updated", invoice)
    desk.tell("invoice.voided", invoice)
    return invoice


def mark_uncollectible(desk: Desk, _params: Params, invoice_id: str) -> Json:
    """POST /v1/invoices/{invoice}/mark_uncollectible: given up, though it may still be paid."""
    invoice = desk.get("invoice", invoice_id)
    require_status(invoice, "open", done="marked uncollectible")
    mark(desk, invoice, "uncollectible", "marked_uncollectible_at")
    desk.tell("invoice.updated", invoice)
    desk.tell("invoice.marked_uncollectible", invoice)
    return invoice


def cancel_payment(desk: Desk, invoice: Json) -> None:
    """Takes back what the invoice asks its customer for."""
    payment = default_payment(desk, invoice)
    if payment is not None:
        close_payment(desk, payment)
        cancel_intent(desk, desk.get("payment_intent", payment["payment"]["payment_intent"]), "void_invoice")


def list_lines(desk: Desk, params: Params, invoice_id: str) -> Json:
    """GET /v1/invoices/{invoice}/lines, in their order."""
    desk.get("invoice", invoice_id)
    return page(lines(desk, invoice_id), params, f"/v1/invoices/{invoice_id}/lines", "line_item")


def list_payments(desk: Desk, params: Params) -> Json:
    """GET /v1/invoice_payments."""
    wanted = (params.get("payment") or {}).get("payment_intent")
    return listed(
        desk,
        params,
        "invoice_payment",
        "/v1/invoice_payments",
        "invoice",
        "status",
        keep=lambda one: wanted is None or one["payment"]["payment_intent"] == wanted,
    )


# --- the parts of an invoice ------------------------------------------------------------------------------------------

_SUMS: Final = dict.fromkeys(
    (
        "amount_due",
        "amount_overpaid",
        "amount_paid",
        "amount_paid_off_stripe",
        "amount_remaining",
        "amount_shipping",
        "post_payment_credit_notes_amount",
        "pre_payment_credit_notes_amount",
        "starting_balance",
        "subtotal",
        "total",
    ),
    0,
)


def _edit(desk: Desk, invoice: Json, params: Params) -> None:
    invoice.update(params.only(*_PLAIN))
    with_metadata(invoice, params.get("metadata"))
    if params.has("auto_advance"):
        invoice["auto_advance"] = params.get("auto_advance")
    if params.has("automatic_tax"):
        invoice["automatic_tax"]["enabled"] = params.get("automatic_tax")["enabled"]
    if params.has("default_tax_rates"):
        rates = params.get("default_tax_rates") or []
        invoice["default_tax_rates"] = [desk.get("tax_rate", one, "default_tax_rates") for one in rates]
    if (method_id := params.get("default_payment_method")) is not None:
        if desk.get("payment_method", method_id, "default_payment_method")["customer"] != invoice["customer"]:
            text = "The customer does not have a payment method with this ID."
            raise StripeError(text, code="resource_missing", param="default_payment_method")
        invoice["default_payment_method"] = method_id
    if (settings := params.get("payment_settings")) is not None:
        _set_payment_settings(desk, invoice, settings)
    _set_collection(desk, invoice, params)
    if is_paid_by_transfer(invoice) and invoice["collection_method"] != "send_invoice":
        raise StripeError("A bank transfer needs collection_method=send_invoice.", param="payment_settings")
    if invoice["status"] == "draft":
        finalizes_at = invoice["automatically_finalizes_at"] or desk.now_s + _FINALIZES_AFTER_S
        invoice["automatically_finalizes_at"] = finalizes_at if invoice["auto_advance"] else None


def _set_payment_settings(desk: Desk, invoice: Json, settings: dict[str, Any]) -> None:
    options = settings.get("payment_method_options") or {}
    if unknown := sorted({*settings, *options} - {"payment_method_types", "payment_method_options", cash.TRANSFER}):
        raise unsupported(f"payment_settings with {unknown[0]}")
    if "payment_method_types" in settings:
        types = settings["payment_method_types"] or None
        if types is not None and not set(types) <= {"card", "link", cash.TRANSFER, *debits.CURRENCIES}:
            raise unsupported("invoices that are paid by anything but card, Link, bank transfer and bank debit")
        debits.require_currency(types or (), invoice["currency"])
        if cash.TRANSFER in (types or ()):
            cash.way_of(invoice["currency"])
        invoice["payment_settings"]["payment_method_types"] = types
    if cash.TRANSFER in options:
        given = {cash.TRANSFER: options[cash.TRANSFER] or None}
        shown = blank(desk.description, "invoices_payment_method_options", given)
        invoice["payment_settings"]["payment_method_options"] = shown


def _set_collection(desk: Desk, invoice: Json, params: Params) -> None:
    """How it is collected, and until when."""
    invoice.update(params.only("collection_method"))
    given = params.only("days_until_due", "due_date")
    if invoice["collection_method"] == "charge_automatically":
        if given:
            text = "You can only set days_until_due or due_date on invoices with collection_method=send_invoice."
            raise StripeError(text, param=next(iter(given)))
        invoice["due_date"] = None
        invoice.pop("_days_until_due", None)
        return
    if len(given) > 1:
        raise StripeError("You may only specify one of these parameters: days_until_due, due_date.", param="due_date")
    if "days_until_due" in given:
        invoice["_days_until_due"] = given["days_until_due"]
        invoice["due_date"] = desk.now_s + given["days_until_due"] * _DAY_S
    elif "due_date" in given:
        if given["due_date"] <= desk.now_s:
            raise StripeError("The due date must be in the future.", param="due_date")
        invoice.pop("_days_until_due", None)
        invoice["due_date"] = given["due_date"]
    elif invoice["due_date"] is None:
        text = "If invoice collection method is 'send_invoice', you must specify 'due_date' or 'days_until_due'."
        raise StripeError(text, param="days_until_due")


def _copy_customer(desk: Desk, invoice: Json, customer: Json) -> None:
    """A draft shows its customer as it was when last asked; a finalized invoice, as it was then."""
    invoice.update({shown: customer[name] for name, shown in _FROM_CUSTOMER.items()})
    tax_ids = desk.changes.each("tax_id", customer=customer["id"])
    invoice["customer_tax_ids"] = [{"type": one["type"], "value": one["value"]} for one in tax_ids]


def _use_balance(desk: Desk, invoice: Json, customer: Json) -> None:
    """Credit and small debts of the customer. What is below the smallest charge is carried on, and nothing is due."""
    whole = invoice["total"] + customer["balance"]
    is_carried = whole < minimum_charge(invoice["currency"])
    invoice["starting_balance"] = customer["balance"]
    invoice["ending_balance"] = whole if is_carried else 0
    used = invoice["ending_balance"] - invoice["starting_balance"]
    if used:
        kind = "invoice_too_small" if is_carried and whole > 0 else "applied_to_invoice"
        adjust_balance(desk, customer, used, invoice["currency"], kind, invoice=invoice["id"])
    settle(invoice)


def _open_payment(desk: Desk, invoice: Json) -> None:
    """The payment intent that collects it."""
    intent = new_intent(desk, invoice["amount_due"], invoice["currency"], invoice["customer"])
    intent["description"] = f"Invoice {invoice['number']}"
    intent["_invoice"] = invoice["id"]
    desk.tell("payment_intent.created", intent)
    desk.new(
        "invoice_payment",
        amount_requested=invoice["amount_due"],
        currency=invoice["currency"],
        invoice=invoice["id"],
        is_default=True,
        payment={"type": "payment_intent", "payment_intent": intent["id"]},
        status="open",
    )
    set_types(intent, invoice["payment_settings"]["payment_method_types"] or debits.all_in(invoice["currency"]))
    if is_paid_by_transfer(invoice):
        await_transfer(desk, intent, from_data(desk, {"type": cash.TRANSFER}))


def is_paid_by_transfer(invoice: Json) -> bool:
    """Whether its customer is to pay by bank transfer, too."""
    return cash.TRANSFER in (invoice["payment_settings"]["payment_method_types"] or [])


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/invoices": create,
    "GET /v1/invoices": lister("invoice", "/v1/invoices", "customer", "status", "collection_method"),
    "GET /v1/invoices/search": searcher("invoice", "/v1/invoices/search"),
    "GET /v1/invoices/{invoice}": getter("invoice"),
    "POST /v1/invoices/{invoice}": update,
    "DELETE /v1/invoices/{invoice}": delete,
    "POST /v1/invoices/{invoice}/finalize": finalize,
    "POST /v1/invoices/{invoice}/send": send,
    "POST /v1/invoices/{invoice}/void": void,
    "POST /v1/invoices/{invoice}/mark_uncollectible": mark_uncollectible,
    "GET /v1/invoices/{invoice}/lines": list_lines,
    "GET /v1/invoice_payments": list_payments,
    "GET /v1/invoice_payments/{invoice_payment}": getter("invoice_payment"),
}
