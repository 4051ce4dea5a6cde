"""Whether what Stripe keeps for a gateway will pay anything."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.customers.store import is_manual

#: What Stripe keeps for a gateway pays its next invoice. These ways have none.
_WITHOUT_INVOICES: Final = ("prepaid", "automatic", "free")


async def why_without_invoices(connection: AsyncConnection, gateway_id: UUID) -> str | None:
    """How the gateway is billed now, where that has no invoices of Stripe, in words: `the gateway's …`; else, and where
    nothing was ever agreed on, None."""
    if await is_manual(connection, gateway_id):
        return "the gateway's collection is manual by now"
    query = """SELECT way FROM billing_terms WHERE gateway_id = :id AND begins_at <= clock_timestamp()
                ORDER BY begins_at DESC LIMIT 1"""
    way: str | None = (await connection.execute(text(query), {"id": gateway_id})).scalar_one_or_none()
    return f"the gateway's way is {way} by now" if way in _WITHOUT_INVOICES else None
