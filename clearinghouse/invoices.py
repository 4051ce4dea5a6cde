"""Invoices as their gateway sees them: what was asked for, until when, and whether it is paid. Newest first.

Reads only, in the caller's transaction. Settlement makes them; what is not issued yet, is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.errors import InvalidRequest, NotFound
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import EXACT, show_amount

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1000
_SELECT: Final = """
    SELECT id, number, kind, state, begins_at, ends_at, first_day, next_day, currency, decimals, total_minor, tax_minor,
           remaining_minor, finalized_at, due_at, ended_at, hosted_url, pdf_url, po_number,
           credited_minor, replaced_at
      FROM invoice WHERE gateway_id = :gateway_id AND finalized_at IS NOT NULL
"""
_LINES: Final = """
    SELECT kind, description, exact, amount_minor, facts FROM invoice_line WHERE invoice_id = :id ORDER BY position
"""
#: What has not been sent yet is open already: it can be paid.
_STATUS: Final = {"finalized": "open"}


async def list_invoices(
    connection: AsyncConnection, gateway_id: UUID, *, limit: int = PAGE_SIZE_DEFAULT, cursor: str | None = None
) -> dict[str, Any]:
    """A page of them; `cursor` is `next_cursor` of the page before. InvalidRequest for a limit outside 1 to 1000."""
    if not 1 <= limit <= PAGE_SIZE_MAX:
        raise InvalidRequest(f"limit must be 1 to {PAGE_SIZE_MAX}, not {limit}")
    values: dict[str, Any] = {"gateway_id": gateway_id, "rows_max": limit + 1}
    before = ""
    if cursor:
        before, values["before"] = "AND id < :before", _read_cursor(cursor)
    query = text(f"{_SELECT} {before} ORDER BY id DESC LIMIT :rows_max")
    items = [_document(row) for row in (await connection.execute(query, values)).mappings()]
    return {"items": items[:limit], "next_cursor": items[limit - 1]["id"] if len(items) > limit else None}


async def get_invoice(connection: AsyncConnection, gateway_id: UUID, invoice: str) -> dict[str, Any]:
    """One, with its lines. NotFound also where it is another gateway's, or not issued yet."""
    try:
        invoice_id = ids.parse("inv", invoice)
    except ValueError as error:
        raise NotFound(f"{invoice[:64]!r} is {error}") from error
    query = text(f"{_SELECT} AND id = :id")
    row = (await connection.execute(query, {"gateway_id": gateway_id, "id": invoice_id})).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no invoice {invoice}")
    lines = (await connection.execute(text(_LINES), {"id": invoice_id})).mappings()
    return {**_document(row), "lines": [_line(line, row["decimals"]) for line in lines]}


def _document(row: Mapping[Any, Any]) -> dict[str, Any]:
    def shown(minor: int) -> str:
        return _amount(minor, row["decimals"])

    def instant(name: str) -> str | None:
        return rfc3339(row[name]) if row[name] is not None else None

    return {
        "id": ids.show("inv", row["id"]), "number": row["number"], "kind": row["kind"],
        "status": _STATUS.get(row["state"], row["state"]), "currency": row["currency"],
        "first_day": row["first_day"].isoformat(), "last_day": (row["next_day"] - timedelta(days=1)).isoformat(),
        "begins_at": rfc3339(row["begins_at"]), "ends_at": rfc3339(row["ends_at"]),
        "total": shown(row["total_minor"]), "tax": shown(row["tax_minor"]), "amount_due": shown(row["remaining_minor"]),
        "issued_at": rfc3339(row["finalized_at"]), "due_at": rfc3339(row["due_at"]),
        "credited": shown(row["credited_minor"]), "paid_at": instant("ended_at") if row["state"] == "paid" else None,
        "replaced_at": instant("replaced_at"), "po_number": row["po_number"],
        "hosted_url": row["hosted_url"], "pdf_url": row["pdf_url"],
    }  # fmt: skip


def _line(line: Mapping[Any, Any], decimals: int) -> dict[str, Any]:
    return {
        "kind": line["kind"], "description": line["description"], "amount": _amount(line["amount_minor"], decimals),
        "exact": show_amount(line["exact"]), "facts": line["facts"],
    }  # fmt: skip


def _amount(minor: int, decimals: int) -> str:
    return format(EXACT.scaleb(Decimal(minor), -decimals), "f")


def _read_cursor(cursor: str) -> UUID:
    try:
        return ids.parse("inv", cursor)
    except ValueError:
        raise InvalidRequest("cursor is not one of ours: take `next_cursor` of the page before") from None
