"""What the period that runs would be asked for, if it ended now. Nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from settlement.closing import books as closing
from settlement.currencies import account_currency
from settlement.invoices.owed import Owed, owed_for
from settlement.invoices.planning import books_between
from settlement.invoices.usage_lines import Usage

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncConnection

    from settlement.closing.books import PeriodBooks


class Preview(NamedTuple):
    period: PeriodBooks
    owed: Owed


async def preview(connection: AsyncConnection, gateway_id: UUID, at: datetime) -> Preview:
    """The period that `at` is in, until then; earlier ones without an invoice are in what is carried."""
    period = await closing.preview(connection, gateway_id, at)
    usage = tuple(
        Usage(
            each.app, each.pipeline, each.model, each.markup_bps, each.calls_count, each.tickets_count, each.ev_wei,
            each.charge,
        )
        for each in sorted(period.lines, key=lambda line: line.charge, reverse=True)
    )  # fmt: skip
    found = await books_between(
        connection, gateway_id, begins_at=period.begins_at, ends_at=min(at, period.ends_at), opening=period.opening,
        closing=period.closing, usage=usage,
    )  # fmt: skip
    return Preview(period, owed_for(found, account_currency(period.currency)))
