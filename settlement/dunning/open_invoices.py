"""The invoices that gateways still have to pay, as dunning and notices see them."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.dunning_steps import OPEN_STATES
from settlement.dunning.stages import OpenInvoice


async def open_invoices(connection: AsyncConnection) -> dict[UUID, list[OpenInvoice]]:
    """By gateway."""
    query = """SELECT id, gateway_id, number, remaining_minor, currency, decimals, due_at, hosted_url FROM invoice
                WHERE state = ANY (:states) AND remaining_minor > 0 ORDER BY due_at, id"""
    found: defaultdict[UUID, list[OpenInvoice]] = defaultdict(list)
    for row in await connection.execute(text(query), {"states": list(OPEN_STATES)}):
        found[row.gateway_id].append(
            OpenInvoice(row.id, number_of(row), amount_of(row.remaining_minor, row), row.due_at, row.hosted_url)
        )
    return found


def number_of(row: Any) -> str:
    """Of a row of `invoice`: before it is finalized it has none, but for our own id."""
    return str(row.number or row.id.hex)


def amount_of(minor: int, row: Any) -> str:
    """With its currency, as people read it."""
    return f"{Decimal(minor).scaleb(-row.decimals)} {row.currency}"
