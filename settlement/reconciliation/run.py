"""The whole report: Stripe is read first, then the books are seen at one instant, and all is compared with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clearinghouse.config import Settings
from clearinghouse.configured import expected_payments
from clearinghouse.database.connect import database_now, snapshot_on
from settlement.reconciliation import deposit, ledger_issuances, redemptions, signer_issuances, stripe_books
from settlement.reconciliation.chain_read import chain_read
from settlement.reconciliation.report import Period, Report


async def reconciled(
    engine: AsyncEngine, settings: Settings, period: Period, *, tell: Callable[[str], None] = lambda _: None
) -> Report:
    """Reads only: books, Stripe and what the chain's index has. Needs SELECT, and temporary tables for Stripe's side.

    `tell` hears of what takes long. Changes at Stripe while it runs may show as differences: run it again.
    """
    async with engine.connect() as connection:
        try:
            return await _reconciled(connection, settings, period, tell)
        finally:
            await connection.invalidate()  # its temporary tables go with it


async def _reconciled(
    connection: AsyncConnection, settings: Settings, period: Period, tell: Callable[[str], None]
) -> Report:
    stripe = stripe_books.begun()
    has_stripe = await stripe_books.copied(stripe, connection, settings.stripe, period, tell)
    async with snapshot_on(connection) as books:
        await books.execute(text("SET LOCAL work_mem = '64MB'"))  # large sorts should not go to disk at once
        await books.execute(text("SET LOCAL cursor_tuple_fraction = 1"))  # what is streamed is read to its end
        now = await database_now(books)
        tell("comparing the books")
        ledger = await ledger_issuances.compare(books, period)
        if has_stripe:
            await stripe_books.compare(stripe, books, settings.stripe, period)
        grace = timedelta(seconds=settings.signer_events.grace_s)
        signers = await signer_issuances.compare(
            books, period, expected=expected_payments(settings), grace=grace, now=now, tell=tell
        )
        read = await chain_read(books, is_configured=settings.chain.is_configured)
        redeemed = await redemptions.compare(books, period, read, now=now)
        moved = await deposit.compare(books, period, read, now=now)
    return Report(period, now, (ledger, stripe, signers, redeemed, moved))
