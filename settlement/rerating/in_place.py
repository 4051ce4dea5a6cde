"""Whether another invoice can take the place of the one that asked for a period, before anything is done."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.invoices import crediting
from settlement.invoices.crediting import Wanted
from settlement.invoices.kept import why_without_invoices
from settlement.invoices.not_credited import BeingPaid, NoteRefused, NotToBeCredited
from settlement.invoices.planning import owed_beside
from settlement.invoices.requests import shown_id
from settlement.invoices.store import TO_WALK, Invoice, find
from settlement.rerating.refusals import NotToBeRerated, ReratingBusy
from settlement.rerating.store import reratings_of
from settlement.stripe_link.desk import Desk

_NOBODY_ASKED: Final = ("void", "carried", "nothing_due")


async def invoice_of(connection: AsyncConnection, gateway_id: UUID, begins_at: datetime) -> Invoice | None:
    """Which asks for the period; None where none does."""
    query = """SELECT id FROM invoice WHERE gateway_id = :gateway_id AND kind = 'usage' AND begins_at = :begins_at
                  AND state <> ALL (:nobody_asked) AND replaced_at IS NULL"""
    values = {"gateway_id": gateway_id, "begins_at": begins_at, "nobody_asked": list(_NOBODY_ASKED)}
    invoice_id = (await connection.execute(text(query), values)).scalar_one_or_none()
    return None if invoice_id is None else await find(connection, invoice_id)


def asked_of(invoice: Invoice | None) -> object:
    """What of it a re-rating goes by."""
    return invoice and (invoice.id, invoice.state, invoice.booked_minor, invoice.credited_minor)


async def require_untouched(desk: Desk, invoice: Invoice, *, reason: str, actor: str) -> Invoice:
    """One that a credit note can take back in whole: open and not paid at all, or paid; and nothing credited of it. As
    Stripe has it now.

    Raises ReratingBusy where it may become one, NotToBeRerated, StripeAway.
    """
    _require_state(invoice)
    wanted = Wanted(invoice.total_minor, reason, actor, in_whole=True)
    try:
        await crediting.preview(desk, invoice.id, wanted)
    except BeingPaid as waits:
        raise ReratingBusy(f"Its invoice {waits}") from waits
    except NotToBeCredited as refused:
        async with desk.engine.connect() as connection:
            _require_state(await find(connection, invoice.id) or invoice)
        raise NotToBeRerated(f"Its invoice {shown_id(invoice)} cannot be taken back in whole: {refused}") from refused
    except NoteRefused as refused:
        raise NotToBeRerated(f"Its invoice {shown_id(invoice)} cannot be taken back in whole: {refused}") from refused
    async with desk.engine.connect() as connection:
        return await find(connection, invoice.id) or invoice


def _require_state(invoice: Invoice) -> None:
    if invoice.state in TO_WALK:
        raise ReratingBusy(f"Its invoice {shown_id(invoice)} is in the making: it is {invoice.state}.")
    if invoice.state not in {"open", "paid"}:
        raise NotToBeRerated(
            f"Its invoice {shown_id(invoice)} is {invoice.state}: only what is open or paid is corrected."
        )
    if invoice.state == "open" and invoice.booked_minor:
        raise ReratingBusy(f"Its invoice {shown_id(invoice)} is paid in part: it is taken back once it is paid.")
    if invoice.credited_minor:
        raise NotToBeRerated(
            f"Of its invoice {shown_id(invoice)} something was credited: its rest cannot be told apart."
        )


async def require_in_place(connection: AsyncConnection, invoice: Invoice, net: Decimal) -> None:
    """Another invoice can ask for the period, and for nothing else: `net` more than this one. Raises NotToBeRerated."""
    if await _was_carried_beside(connection, invoice.gateway_id, invoice.begins_at):
        raise NotToBeRerated(
            "An earlier difference of this period was asked for by another invoice: what this one should ask for "
            "cannot be told apart."
        )
    if beside := await owed_beside(connection, invoice.gateway_id, invoice.begins_at):
        raise NotToBeRerated(f"What another invoice would ask for cannot be told apart: {beside}.")
    await require_kept_is_used(connection, invoice, net)


async def require_kept_is_used(connection: AsyncConnection, invoice: Invoice, net: Decimal) -> None:
    """What the new invoice, of `net` more, leaves of a paid one's credit pays a later one. Raises NotToBeRerated."""
    if invoice.state != "paid" or net >= 0:
        return
    if (without := await why_without_invoices(connection, invoice.gateway_id)) is not None:
        raise NotToBeRerated(
            f"{without[0].upper()}{without[1:]}: no later invoice would be paid with what Stripe kept for it of "
            f"{shown_id(invoice)}. A credit note with `--to refund` gives it back."
        )


async def _was_carried_beside(connection: AsyncConnection, gateway_id: UUID, begins_at: datetime) -> bool:
    """The period was rated anew while nobody was asked for it."""
    earlier = await reratings_of(connection, gateway_id, begins_at)
    return any(each.invoice_id is None and each.net for each in earlier)
