"""Payments as operators look at them: all gateways', with what happened to each. Reads need only SELECT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.ids import show
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

Document = dict[str, Any]
LISTED_MAX: Final = 500
STATES: Final = ("requested", "open", "processing", "succeeded", "failed", "expired", "canceled")


async def listed(
    connection: AsyncConnection, *, gateway_id: UUID | None = None, state: str | None = None, limit: int = 50
) -> list[Document]:
    """The newest first."""
    if state is not None and state not in STATES:
        raise InvalidRequest(f"a payment is one of {', '.join(STATES)}, not {state[:40]!r}")
    if not 1 <= limit <= LISTED_MAX:
        raise InvalidRequest(f"limit must be 1 to {LISTED_MAX}, not {limit}")
    query = text("""
        SELECT payment.*, gateway.name AS gateway FROM payment JOIN gateway ON gateway.id = gateway_id
         WHERE (CAST(:gateway AS uuid) IS NULL OR gateway_id = :gateway)
           AND (CAST(:state AS text) IS NULL OR state = :state) ORDER BY payment.id DESC LIMIT :limit
    """)
    rows = await connection.execute(query, {"gateway": gateway_id, "state": state, "limit": limit})
    return [_document(row) for row in rows.mappings()]


async def detailed(connection: AsyncConnection, payment_id: UUID) -> Document:
    """One, with its refunds, disputes, and all that happened to them. NotFound."""
    query = text("SELECT payment.*, gateway.name AS gateway FROM payment JOIN gateway ON gateway.id = gateway_id "
                 "WHERE payment.id = :id")  # fmt: skip
    row = (await connection.execute(query, {"id": payment_id})).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no payment {show('pay', payment_id)}")
    refunds = await connection.execute(_REFUNDS, {"id": payment_id})
    disputes = await connection.execute(_DISPUTES, {"id": payment_id})
    events = await connection.execute(_EVENTS, {"id": payment_id})
    left = (await connection.execute(text("SELECT refundable(:id)"), {"id": payment_id})).scalar_one()
    return _document(row) | {
        "reason": row["reason"],
        "requested_by": row["requested_by"],
        "decided_by": row["decided_by"],
        "stripe": {
            name: row[f"stripe_{name}_id"]
            for name in ("customer", "session", "intent", "charge")
            if row[f"stripe_{name}_id"] is not None
        },
        "refundable": show_amount(left) if left is not None else "0",
        "refunds": [refund_document(one) for one in refunds.mappings()],
        "disputes": [
            {"id": one.id, "amount": show_amount(one.amount), "status": one.status, "reason": one.reason,
             "due_by": rfc3339(one.due_by) if one.due_by is not None else None}
            for one in disputes
        ],
        "events": [{"at": rfc3339(one.at), "kind": one.kind, "actor": one.actor, "facts": one.facts} for one in events],
    }  # fmt: skip


async def disputes(connection: AsyncConnection, *, all_of_them: bool = False) -> list[Document]:
    """Those that hold a gateway up or can still be answered, the most urgent first; or all that there ever were."""
    query = text("""
        SELECT dispute.*, gateway.name AS gateway FROM dispute JOIN gateway ON gateway.id = gateway_id
         WHERE :all OR dispute.ended_at IS NULL OR dispute.status = 'lost' AND NOT is_forgiven
         ORDER BY dispute.ended_at IS NOT NULL, due_by, dispute.id
    """)
    return [
        {
            "id": row["id"],
            "gateway_id": show("gw", row["gateway_id"]),
            "gateway": row["gateway"],
            "payment_id": show("pay", row["payment_id"]) if row["payment_id"] is not None else None,
            "amount": show_amount(row["amount"]),
            "currency": row["currency"],
            "status": row["status"],
            "reason": row["reason"],
            "due_by": rfc3339(row["due_by"]) if row["due_by"] is not None else None,
            "is_forgiven": row["is_forgiven"],
        }
        for row in (await connection.execute(query, {"all": all_of_them})).mappings()
    ]


_REFUNDS: Final = text("SELECT * FROM refund WHERE payment_id = :id ORDER BY id")
_DISPUTES: Final = text("SELECT * FROM dispute WHERE payment_id = :id ORDER BY created_at")
_EVENTS: Final = text("""
    SELECT * FROM payment_event
     WHERE payment_id = :id OR refund_id IN (SELECT id FROM refund WHERE payment_id = :id)
        OR dispute_id IN (SELECT id FROM dispute WHERE payment_id = :id) ORDER BY id
""")


def refund_document(row: Mapping[Any, Any]) -> Document:
    return {
        "id": show("rfd", row["id"]),
        "payment_id": show("pay", row["payment_id"]) if row["payment_id"] is not None else None,
        "state": row["state"],
        "amount": show_amount(row["amount"]),
        "currency": row["currency"],
        "reason": row["reason"],
        "said": row["said"],
        "stripe_refund_id": row["stripe_refund_id"],
        "created_at": rfc3339(row["created_at"]),
    }


def _document(row: Mapping[Any, Any]) -> Document:
    return {
        "id": show("pay", row["id"]),
        "gateway_id": show("gw", row["gateway_id"]),
        "gateway": row["gateway"],
        "method": row["method"],
        "state": row["state"],
        "amount": show_amount(row["amount"]) if row["amount"] is not None else None,
        "currency": row["currency"],
        "reference": row["reference"],
        "url": row["url"],
        "failure": row["failure"],
        "said": row["said"],
        "created_at": rfc3339(row["created_at"]),
        "ended_at": rfc3339(row["ended_at"]) if row["ended_at"] is not None else None,
    }
