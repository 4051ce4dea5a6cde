"""Re-ratings as commands show them: JSON with amounts as texts, exact."""

from __future__ import annotations

from typing import Any

from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import EXACT, show_amount
from settlement.rerating.store import RatedLine, Rerating


def rerating_document(found: Rerating, *, is_kept: bool) -> dict[str, Any]:
    """`is_kept`: it is in the books, or on its way there; else it is what would be."""
    return {
        "id": show("rrt", found.id) if is_kept else None, "gateway": found.gateway_name,
        "period": found.first_day.isoformat(), "as_of": f"{found.card}@{found.version}", "reason": found.reason,
        "state": found.state if is_kept else "would be planned", "currency": found.currency,
        "problem": found.problem, "calls": found.calls_count, "difference": show_amount(found.difference),
        "paid_by_included": show_amount(found.included) if found.included else None,
        "corrects": show("inv", found.invoice_id) if found.invoice_id is not None else None,
        "invoice": show("inv", found.revised_id) if found.revised_id is not None else None,
        "transfer": show("tr", found.transfer_id) if found.transfer_id is not None else None,
        "included_transfer": show("tr", found.included_id) if found.included_id is not None else None,
        "by": found.actor, "at": rfc3339(found.created_at),
    }  # fmt: skip


def rated_line_document(line: RatedLine) -> dict[str, Any]:
    return {
        "app": line.app, "pipeline": line.pipeline, "model": line.model, "rate_rule": line.rate_rule,
        "calls": line.calls_count, "charged": show_amount(line.charged), "charge": show_amount(line.charge),
        "difference": show_amount(EXACT.subtract(line.charge, line.charged)),
        "quantity": show_amount(line.quantity) if line.quantity is not None else None, "unit": line.unit,
    }  # fmt: skip
