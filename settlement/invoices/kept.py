"""Whether what Stripe keeps for a gateway will pay anything."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: What Stripe keeps for a gateway pays its next invoice. These ways have none.
_WITHOUT_INVOICES: Final = ("prepaid", "automatic", "free")


async def way_without_invoices(connection: AsyncConnection, gateway_id: UUID) -> str | None:
    """How the gateway is billed now, where that has no invoices; else, and where nothing was ever agreed on, None."""
    query = """SELECT way FROM billing_terms WHERE gateway_id = :id AND begins_at <= clock_timestamp()
                ORDER BY begins_at DESC LIMIT 1"""
    way: str | None = (await connection.execute(text(query), {"id": gateway_id})).scalar_one_or_none()
    return way if way in _WITHOUT_INVOICES else None
