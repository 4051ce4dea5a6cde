"""Credit notes: less to pay on an open invoice; on a paid one, money or credit given back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from settlement.stripe_local.customers import adjust_balance
from settlement.stripe_local.description import Json
from settlement.stripe_local.desk import Desk, Handler, with_metadata
from settlement.stripe_local.errors import StripeError, unsupported
from settlement.stripe_local.invoice_paying import lower
from settlement.stripe_local.invoice_states import require_status
from settlement.stripe_local.invoice_totals import by_rate, settle
from settlement.stripe_local.lists import first_ten, getter, lister, page
from settlement.stripe_local.money import product, rounded
from settlement.stripe_local.parameters import Params
from settlement.stripe_local.refunds import refund, tell_created

_GIVEN_BACK: Final = ("credit_amount", "refund_amount", "out_of_band_amount")
_LINE: Final = frozenset(
    ("type", "amount", "description", "invoice_line_item", "quantity", "unit_amount", "unit_amount_decimal")
)


def create(desk: Desk, params: Params) -> Json:
    """POST /v1/credit_notes."""
    invoice = desk.get("invoice", params.get("invoice"), "invoice")
    back = {name: params.get(name, 0) for name in _GIVEN_BACK}
    params.get("email_type")  # nobody gets mail
    note = _drawn_up(desk, params, invoice, back)
    if note["type"] == "pre_payment":
        invoice["pre_payment_credit_notes_amount"] += note["total"]
        settle(invoice)
        lower(desk, invoice)
    else:
        invoice["post_payment_credit_notes_amount"] += note["total"]
        _give_back(desk, note, invoice, back)
    invoice["_credit_notes"] = invoice.get("_credit_notes", 0) + 1
    desk.tell("invoice.updated", invoice)
    desk.tell("credit_note.created", note)
    return note


def preview(desk: Desk, params: Params) -> Json:
    """GET /v1/credit_notes/preview: what `create` would make; nothing is kept."""
    invoice = desk.get("invoice", params.get("invoice"), "invoice")
    params.get("email_type")
    note = _drawn_up(desk, params, invoice, {name: params.get(name, 0) for name in _GIVEN_BACK})
    for made in (note["id"], *note["_lines"]):
        desk.changes.remove(made)
    return note


def update(desk: Desk, params: Params, note_id: str) -> Json:
    """POST /v1/credit_notes/{id}: its memo and metadata."""
    note = desk.get("credit_note", note_id)
    note.update(params.only("memo"))
    with_metadata(note, params.get("metadata"))
    desk.tell("credit_note.updated", note)
    return note


def void(desk: Desk, _params: Params, note_id: str) -> Json:
    """POST /v1/credit_notes/{id}/void: only while its invoice is open."""
    note = desk.get("credit_note", note_id)
    invoice = desk.get("invoice", note["invoice"])
    if note["status"] != "issued" or note["type"] != "pre_payment" or invoice["status"] != "open":
        raise StripeError("Only issued credit notes on open invoices can be voided.")
    note.update(status="void", voided_at=desk.now_s)
    invoice["pre_payment_credit_notes_amount"] -= note["total"]
    settle(invoice)
    lower(desk, invoice)
    desk.tell("invoice.updated", invoice)
    desk.tell("credit_note.voided", note)
    return note


def list_lines(desk: Desk, params: Params, note_id: str) -> Json:
    """GET /v1/credit_notes/{credit_note}/lines."""
    own = _lines(desk, desk.get("credit_note", note_id))
    return page(own, params, f"/v1/credit_notes/{note_id}/lines", "credit_note_line_item")


# --- drawing one up ---------------------------------------------------------------------------------------------------


def _drawn_up(desk: Desk, params: Params, invoice: Json, back: dict[str, int]) -> Json:
    """The note, without what follows from it. Raises StripeError for more than there is to be credited."""
    require_status(invoice, "open", "paid", done="credited")
    lines = _new_lines(desk, params, invoice)
    taxes = by_rate([tax for line in lines for tax in line["taxes"]])
    on_top = sum(tax["amount"] for tax in taxes if tax["tax_behavior"] == "exclusive")
    within = sum(tax["amount"] for tax in taxes if tax["tax_behavior"] == "inclusive")
    subtotal = sum(line["amount"] for line in lines)
    total = subtotal + on_top
    is_paid = invoice["status"] == "paid"
    _require_sums(invoice, total, back)
    note = desk.new(
        "credit_note",
        amount=total,
        amount_shipping=0,
        currency=invoice["currency"],
        customer=invoice["customer"],
        discount_amount=0,
        effective_at=desk.now_s,
        invoice=invoice["id"],
        lines={},
        metadata={},
        number=f"{invoice['number']}-CN-{invoice.get('_credit_notes', 0) + 1:02}",
        out_of_band_amount=back["out_of_band_amount"] or None,
        pdf=invoice["invoice_pdf"],
        post_payment_amount=total if is_paid else 0,
        pre_payment_amount=0 if is_paid else total,
        status="issued",
        subtotal=subtotal,
        subtotal_excluding_tax=subtotal - within,
        total=total,
        total_excluding_tax=subtotal - within,
        total_taxes=taxes,
        type="post_payment" if is_paid else "pre_payment",
    )
    note["lines"] = first_ten(lines, f"/v1/credit_notes/{note['id']}/lines")
    note["_lines"] = [line["id"] for line in lines]
    note.update(params.only("memo", "reason"))
    with_metadata(note, params.get("metadata"))
    return note


def _require_sums(invoice: Json, total: int, back: dict[str, int]) -> None:
    given = sum(back.values())
    if total <= 0 or min(back.values()) < 0:
        raise StripeError("The amount of a credit note must be greater than 0.", param="amount")
    if invoice["status"] == "open":
        if given:
            text = "An open invoice has not been paid: there is nothing to credit or to refund, only less to pay."
            raise StripeError(text, param=next(name for name, amount in back.items() if amount))
        left = invoice["amount_remaining"]
    else:
        if given != total:
            text = (
                f"The sum of credit amount, refund amount and out of band amount ({given}) must equal the credit note "
                f"amount ({total})."
            )
            raise StripeError(text, param="credit_amount")
        left = (
            invoice["total"] - invoice["pre_payment_credit_notes_amount"] - invoice["post_payment_credit_notes_amount"]
        )
    if total > left:
        text = f"The credit note amount ({total}) is more than what is left of the invoice ({left})."
        raise StripeError(text, param="amount")


def _new_lines(desk: Desk, params: Params, invoice: Json) -> list[Json]:
    if params.has("amount") == params.has("lines"):
        raise StripeError("You must specify exactly one of amount and lines.", param="amount")
    if params.has("amount"):
        return [
            _new_line(
                desk, "custom_line_item", params.get("amount"), description=f"Credit on invoice {invoice['number']}"
            )
        ]
    return [_line(desk, invoice, given, f"lines[{at}]") for at, given in enumerate(params.get("lines"))]


def _line(desk: Desk, invoice: Json, given: dict[str, Any], path: str) -> Json:
    if unknown := sorted(set(given) - _LINE):
        raise unsupported(f"{path}[{unknown[0]}]")
    if given["type"] == "custom_line_item":
        unit = str(given.get("unit_amount_decimal", given.get("unit_amount", 0)))
        quantity = given.get("quantity", 1)
        amount = product(unit, str(quantity))
        return _new_line(
            desk,
            "custom_line_item",
            amount,
            description=given.get("description"),
            quantity=quantity,
            unit_amount_decimal=unit,
        )
    line = desk.get("line_item", given.get("invoice_line_item", ""), f"{path}[invoice_line_item]")
    if line["invoice"] != invoice["id"]:
        raise StripeError("The line belongs to another invoice.", param=f"{path}[invoice_line_item]")
    if "amount" not in given:
        raise unsupported(f"{path} of an invoice's line without its amount")
    if not 0 < given["amount"] <= line["amount"]:
        raise StripeError(
            f"A line of {line['amount']} cannot be credited with {given['amount']}.", param=f"{path}[amount]"
        )
    portion = Decimal(given["amount"]) / line["amount"]
    taxes = [
        {**tax, "amount": rounded(tax["amount"] * portion), "taxable_amount": rounded(tax["taxable_amount"] * portion)}
        for tax in line["taxes"]
    ]
    made = _new_line(
        desk,
        "invoice_line_item",
        given["amount"],
        description=given.get("description", line["description"]),
        taxes=taxes,
    )
    made["invoice_line_item"] = line["id"]
    return made


def _new_line(desk: Desk, kind: str, amount: int, **fields: Any) -> Json:
    shown = {"taxes": [], "metadata": {}, **fields}
    return desk.new("credit_note_line_item", type=kind, amount=amount, discount_amount=0, **shown)


def _lines(desk: Desk, note: Json) -> list[Json]:
    return [desk.get("credit_note_line_item", line_id) for line_id in note["_lines"]]


def _give_back(desk: Desk, note: Json, invoice: Json, back: dict[str, int]) -> None:
    """Money to the card, credit to the customer's balance."""
    if back["refund_amount"]:
        charge = desk.get("charge", _charge_id(desk, invoice))
        made = refund(desk, charge, back["refund_amount"], None)
        note["refunds"] = [
            {"amount_refunded": made["amount"], "payment_record_refund": None, "refund": made["id"], "type": "refund"}
        ]
        tell_created(desk, made, charge)
    if back["credit_amount"]:
        customer = desk.get("customer", invoice["customer"])
        moved = adjust_balance(
            desk,
            customer,
            -back["credit_amount"],
            note["currency"],
            "credit_note",
            credit_note=note["id"],
            invoice=invoice["id"],
        )
        note["customer_balance_transaction"] = moved["id"]


def _charge_id(desk: Desk, invoice: Json) -> str:
    for payment in desk.changes.each("invoice_payment", invoice=invoice["id"]):
        if payment["status"] == "paid":
            return str(desk.get("payment_intent", payment["payment"]["payment_intent"])["latest_charge"])
    raise StripeError("The invoice was not paid by card: there is no charge to refund.", param="refund_amount")


HANDLERS: Final[dict[str, Handler]] = {
    "POST /v1/credit_notes": create,
    "GET /v1/credit_notes": lister("credit_note", "/v1/credit_notes", "customer", "invoice"),
    "GET /v1/credit_notes/preview": preview,
    "GET /v1/credit_notes/{id}": getter("credit_note"),
    "GET /v1/credit_notes/{credit_note}/lines": list_lines,
    "POST /v1/credit_notes/{id}": update,
    "POST /v1/credit_notes/{id}/void": void,
}
