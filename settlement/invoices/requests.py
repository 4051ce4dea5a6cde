"""What Stripe is asked for an invoice: the same words however often it is asked. Pure, but for the SDK's names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from clearinghouse.ids import show
from clearinghouse.ledger.money import show_amount
from settlement.invoices.owed import Line
from settlement.invoices.store import Invoice

#: Our id on an invoice and on its items, by which they are found whoever has forgotten them.
ID_KEY: Final = "clearinghouse_invoice_id"
LINE_KEY: Final = "clearinghouse_line"
#: The same on a credit note.
NOTE_KEY: Final = "clearinghouse_credit_note_id"
_FIELD_CHARS_MAX: Final = 140


def shown_id(invoice: Invoice) -> str:
    return show("inv", invoice.id)


def period_words(invoice: Invoice) -> str:
    """`2026-10-01 to 2026-10-31`, both included, by the gateway's calendar."""
    return f"{invoice.first_day} to {invoice.next_day - timedelta(days=1)}"


def draft(invoice: Invoice) -> dict[str, Any]:
    """An empty draft, which stays one until we say otherwise."""
    wanted: dict[str, Any] = {
        "customer": invoice.stripe_customer_id,
        "currency": invoice.currency.lower(),
        "auto_advance": False,
        "pending_invoice_items_behavior": "exclude",
        "collection_method": invoice.collection,
        "description": invoice.memo or f"{_WORDS[invoice.kind]}, {period_words(invoice)}",
        "metadata": {
            ID_KEY: shown_id(invoice),
            "clearinghouse_gateway": show("gw", invoice.gateway_id),
            "clearinghouse_kind": invoice.kind,
            "clearinghouse_period": invoice.first_day.isoformat(),
            "clearinghouse_exact": show_amount(invoice.exact),
        },
    }
    if invoice.collection == "send_invoice":
        wanted["days_until_due"] = invoice.net_days
    if invoice.is_taxed:
        wanted["automatic_tax"] = {"enabled": True}
    if invoice.po_number:
        wanted["custom_fields"] = [{"name": "PO number", "value": invoice.po_number[:_FIELD_CHARS_MAX]}]
    if invoice.footer:
        wanted["footer"] = invoice.footer
    if invoice.payment_settings is not None:
        wanted["payment_settings"] = invoice.payment_settings
    return wanted


def item(invoice: Invoice, position: int, line: Line) -> dict[str, Any]:
    """One line, in whole minor units: Stripe has nothing left to round."""
    return {
        "customer": invoice.stripe_customer_id,
        "invoice": invoice.stripe_invoice_id,
        "currency": invoice.currency.lower(),
        "amount": line.amount_minor,
        "description": line.description,
        "discountable": False,
        "period": {"start": int(invoice.begins_at.timestamp()), "end": int(invoice.ends_at.timestamp())},
        "metadata": {
            ID_KEY: shown_id(invoice), LINE_KEY: str(position), "kind": line.kind, "exact": show_amount(line.exact),
            **line.facts,
        },
    }  # fmt: skip


def key(invoice: Invoice, step: str) -> str:
    """The idempotency key of a step. Another one only where Stripe keeps a failure under the last."""
    return f"{shown_id(invoice)}-{step}-{invoice.keys_spent_count}"


def line_key(metadata: Mapping[str, str], invoice: Invoice) -> int | None:
    """Which line of this invoice an item is, by its metadata. None: not one of ours."""
    if metadata.get(ID_KEY) != shown_id(invoice) or not metadata.get(LINE_KEY, "").isdigit():
        return None
    return int(metadata[LINE_KEY])


_WORDS: Final = {"usage": "Usage", "subscription": "Subscription"}
