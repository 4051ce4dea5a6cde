"""Which invoices a gateway may have to be told of: those that are open, those that were when it was told last, and
those that were paid before anybody could say that they were open."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.dunning_steps import OPEN_STATES, Policy
from clearinghouse.ids import show
from settlement.dunning.open_invoices import number_of
from settlement.notices.due import Invoice

_TOLD_ABOUT: Final = """
    SELECT id, gateway_id, number, state, total_minor + tax_minor AS total_minor, remaining_minor, currency, decimals,
           due_at, hosted_url
      FROM invoice
     WHERE state = ANY (:open)
        OR state IN ('paid', 'void') AND EXISTS (
            SELECT FROM notice_state WHERE notice_state.gateway_id = invoice.gateway_id
               AND subject = 'inv_' || replace(invoice.id::text, '-', '')
               AND notice_state.state NOT IN ('paid', 'withdrawn'))
        OR state = 'paid' AND ended_at > CAST(:now AS timestamptz) - interval '1 day' AND NOT EXISTS (
            SELECT FROM notice_state WHERE notice_state.gateway_id = invoice.gateway_id
               AND subject = 'inv_' || replace(invoice.id::text, '-', ''))
     ORDER BY due_at, id
"""


async def invoices_to_tell(connection: AsyncConnection, now: datetime, policy: Policy) -> dict[UUID, list[Invoice]]:
    """By gateway."""
    found: defaultdict[UUID, list[Invoice]] = defaultdict(list)
    for row in await connection.execute(text(_TOLD_ABOUT), {"open": list(OPEN_STATES), "now": now}):
        is_open = row.state in OPEN_STATES
        minor = row.remaining_minor if is_open else row.total_minor
        found[row.gateway_id].append(
            Invoice(
                show("inv", row.id),
                number_of(row),
                str(Decimal(minor).scaleb(-row.decimals)),
                row.currency,
                row.due_at,
                row.hosted_url,
                is_open=is_open,
                is_paid=row.state == "paid",
                reminder_day=policy.reminder_day(row.due_at, now),
            )
        )
    return found
