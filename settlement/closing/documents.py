"""Periods as they are told: JSON for programs, amounts as decimal strings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clearinghouse import ids
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from settlement.closing.books import PeriodBooks, UsageLine


def period_document(books: PeriodBooks, *, has_lines: bool) -> dict[str, Any]:
    """`closed_at` null: it goes on, or is over and not closed yet."""
    document: dict[str, Any] = {
        "gateway_id": ids.show("gw", books.gateway_id),
        "period": books.id,
        "begins_at": rfc3339(books.begins_at),
        "ends_at": rfc3339(books.ends_at),
        "way": books.way,
        "time_zone": books.time_zone,
        "currency": books.currency,
        "opening": show_amount(books.opening),
        "movements": {kind: show_amount(amount) for kind, amount in books.movements.items()},
        "usage": show_amount(books.usage),
        "closing": show_amount(books.closing),
        "calls_count": books.calls_count,
        "ev_wei": str(books.ev_wei),
        "closed_at": rfc3339(books.closed_at) if books.closed_at is not None else None,
    }
    return {**document, "lines": [_line_document(line) for line in books.lines]} if has_lines else document


def _line_document(line: UsageLine) -> dict[str, Any]:
    return {
        "app": line.app,
        "pipeline": line.pipeline,
        "model": line.model,
        "markup_bps": line.markup_bps,
        "calls_count": line.calls_count,
        "tickets_count": line.tickets_count,
        "ev_wei": str(line.ev_wei),
        "fee_wei": str(line.fee_wei),
        "charge": show_amount(line.charge),
        "rate_rule": line.rate_rule or None,
        "quantity": show_amount(line.quantity) if line.quantity is not None else None,
        "unit": line.unit,
    }
