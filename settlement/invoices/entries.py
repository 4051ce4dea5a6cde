"""Entries of the books that are an invoice's own."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ledger.money import EXACT
from clearinghouse.ledger.transfers import EntryKind, Transfer, book
from settlement.invoices.store import Invoice

ACTOR: Final = "clearinghouse"


class Disagrees(Exception):
    """Stripe has otherwise what we asked for: nothing may be issued, or was issued that we did not ask for."""


async def book_own(
    connection: AsyncConnection, invoice: Invoice, kind: EntryKind, amount: Decimal, *, key: str, reason: str
) -> Transfer:
    """An entry that no other invoice has to ask for, or to give credit for."""
    entry = await book(connection, invoice.gateway_id, kind, amount, key=key, reason=reason, actor=ACTOR)
    query = "INSERT INTO invoice_entry (transfer_id, invoice_id) VALUES (:id, :invoice_id) ON CONFLICT DO NOTHING"
    await connection.execute(text(query), {"id": entry.id, "invoice_id": invoice.id})
    return entry


async def minor_booked(connection: AsyncConnection, invoice: Invoice, key: str) -> int:
    """The entry of this key, in minor units of the invoice's currency; 0 where there is none. It has no sign."""
    query = text("SELECT amount FROM transfer WHERE key = :key")
    amount = (await connection.execute(query, {"key": key})).scalar_one_or_none()
    return int(EXACT.scaleb(amount, invoice.decimals)) if amount is not None else 0


def amount_of(invoice: Invoice, minor: int) -> Decimal:
    """In the invoice's currency."""
    return EXACT.scaleb(Decimal(minor), -invoice.decimals)
