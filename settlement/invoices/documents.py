"""Invoices as commands show them: JSON with amounts as texts. For gateways: clearinghouse/invoices.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import EXACT, show_amount
from settlement.invoices.note_store import CreditNote, NewNote
from settlement.invoices.owed import Line, Owed
from settlement.invoices.requests import period_words, shown_id
from settlement.invoices.store import Invoice


def amount_in(invoice: Invoice, minor: int) -> str:
    """`12.50 USD`: for sentences."""
    return f"{shown_minor(minor, invoice.decimals)} {invoice.currency}"


def shown_minor(minor: int, decimals: int) -> str:
    """`12.50`: every decimal of the currency."""
    return format(EXACT.scaleb(Decimal(minor), -decimals), "f")


def invoice_document(invoice: Invoice) -> dict[str, Any]:
    """All that is known of it, but for its lines."""
    remaining = None if invoice.remaining_minor is None else shown_minor(invoice.remaining_minor, invoice.decimals)
    return {
        "id": shown_id(invoice), "gateway_id": show("gw", invoice.gateway_id), "gateway": invoice.gateway_name,
        "kind": invoice.kind, "period": period_words(invoice), "begins_at": rfc3339(invoice.begins_at),
        "ends_at": rfc3339(invoice.ends_at), "revision": invoice.revision, "state": invoice.state,
        "state_at": rfc3339(invoice.state_at), "number": invoice.number, "currency": invoice.currency,
        "exact": show_amount(invoice.exact), "total": shown_minor(invoice.total_minor, invoice.decimals),
        "tax": shown_minor(invoice.tax_minor, invoice.decimals), "due_at": _instant(invoice.due_at),
        "remaining": remaining, "paid_in_books": shown_minor(invoice.booked_minor, invoice.decimals),
        "credited": shown_minor(invoice.credited_minor, invoice.decimals), "replaced_at": _instant(invoice.replaced_at),
        "collection": invoice.collection,
        "problem": invoice.problem, "stripe_invoice_id": invoice.stripe_invoice_id, "hosted_url": invoice.hosted_url,
    }  # fmt: skip


def note_document(note: NewNote, invoice: Invoice) -> dict[str, Any]:
    """A credit note, or what one would be."""
    document: dict[str, Any] = {
        "gives": note.gives, "currency": invoice.currency,
        "amount": shown_minor(note.amount_minor, invoice.decimals),
        "tax": shown_minor(note.total_minor - note.amount_minor, invoice.decimals),
        "total": shown_minor(note.total_minor, invoice.decimals), "reason": note.reason,
    }  # fmt: skip
    if isinstance(note, CreditNote):
        document |= {
            "id": show("crn", note.id), "state": note.state, "number": note.number, "problem": note.problem,
            "stripe_note_id": note.stripe_note_id, "at": rfc3339(note.created_at), "by": note.actor,
        }  # fmt: skip
    return document


def line_documents(lines: Sequence[Line], decimals: int) -> list[dict[str, Any]]:
    """In their order."""
    return [
        {"kind": line.kind, "description": line.description, "amount": shown_minor(line.amount_minor, decimals),
         "exact": show_amount(line.exact), "facts": dict(line.facts)}
        for line in lines
    ]  # fmt: skip


def owed_document(owed: Owed, currency: str, decimals: int) -> dict[str, Any]:
    """What would be asked for."""
    return {
        "state": owed.state, "currency": currency, "exact": show_amount(owed.exact),
        "total": shown_minor(owed.total_minor, decimals), "lines": line_documents(owed.lines, decimals),
    }  # fmt: skip


def event_documents(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"at": rfc3339(event["at"]), "state": event["state"], "said": event["said"]} for event in events]


def _instant(at: datetime | None) -> str | None:
    return rfc3339(at) if at is not None else None
