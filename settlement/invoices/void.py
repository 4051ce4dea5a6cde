"""Taking back what is not paid: void at Stripe first, then here; what it asked for is owed again.

The next invoice asks for it as carried, unless the same period is issued anew: as a further revision of the invoice,
with the customer's details as they are by then. Never both.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.errors import Conflict, NotFound
from settlement.invoices.arrived import arrive, take_back
from settlement.invoices.defaults import InvoiceDefaults
from settlement.invoices.entries import Disagrees
from settlement.invoices.planning import one_at_a_time, plan_revision
from settlement.invoices.requests import key, shown_id
from settlement.invoices.seen import Seen, seen
from settlement.invoices.store import Invoice, find, locked_by_id
from settlement.invoices.walk import Walker
from settlement.stripe_link.client import StripeRefused
from settlement.stripe_link.desk import Desk

_NOTHING_ASKED: Final = ("carried", "nothing_due")
_GONE: Final = "resource_missing"
#: As planning holds it against a period. Nobody agrees on another manner until the transaction ends.
_WITHOUT_STRIPE: Final = text(
    """SELECT CASE WHEN collection = 'manual' THEN 'is' WHEN manual_until >= :asked_at THEN 'was' END
         FROM customer WHERE gateway_id = :gateway_id FOR SHARE"""
)


class InvoicePaid(Conflict):
    """What was paid is not taken back by a void invoice: it takes a credit note, or a refund."""

    what_next = "Correct it by a credit note: `clearinghouse invoices credit`."


class NotToBeVoid(Conflict):
    """It asks nobody for anything, or somebody is at it at this moment."""

    what_next = "Look at it again: `clearinghouse invoices show`."


class NotByStripe(Conflict):
    """The gateway is asked for what it owes without Stripe, or was, and the next invoice carries what is left of it."""

    what_next = "Ask for it without Stripe: `clearinghouse statements pdf --due`."


async def void(walker: Walker, invoice_id: UUID, *, reason: str) -> Invoice:
    """Nobody is asked for it any more. Raises InvoicePaid, NotToBeVoid, NotFound, StripeAway, StripeRefused."""
    desk = walker.desk
    async with desk.engine.connect() as connection:
        invoice = await find(connection, invoice_id)
    if invoice is None:
        raise NotFound("There is no such invoice.")
    if invoice.state == "void":
        return invoice
    if invoice.state in _NOTHING_ASKED:
        raise NotToBeVoid(f"{shown_id(invoice)} asks nobody for anything.")
    if invoice.stripe_invoice_id is None:
        invoice = await _found_again(walker, invoice)
    if invoice.stripe_invoice_id is not None:
        found = await _void_at_stripe(desk, invoice)
        if found is not None:
            try:
                arrived = await arrive(desk, found, why=reason)
            except Disagrees as differing:
                raise NotToBeVoid(f"{shown_id(invoice)}: {differing}.") from differing
            assert arrived is not None, "no row is ever removed"
            return arrived
    return await _void_here(desk, invoice, reason)


async def reissue(desk: Desk, invoice: Invoice, *, defaults: InvoiceDefaults) -> Invoice:
    """The same period once more, after its invoice is void. Raises NotToBeVoid where it is asked for already, and
    NotByStripe."""
    async with desk.transaction() as connection:
        await one_at_a_time(connection, invoice.gateway_id)
        await _require_not_asked(connection, invoice)
        await _require_by_stripe(connection, invoice)
        return await plan_revision(connection, invoice, defaults=defaults)


async def _found_again(walker: Walker, invoice: Invoice) -> Invoice:
    """A draft may have been made that nobody lived to tell of: it is made ours, and then goes with the rest."""
    if invoice.claims_count == 0 or invoice.stripe_customer_id is None:
        return invoice
    found = await walker.find_at_stripe(invoice, invoice.stripe_customer_id)
    return await walker.drafted(invoice, found) if found is not None else invoice


async def _void_at_stripe(desk: Desk, invoice: Invoice) -> Seen | None:
    """As Stripe has it then; None where there was a draft, which is gone. Raises InvoicePaid."""
    api, stripe_id = desk.link.client.v1.invoices, invoice.at_stripe
    try:
        found = seen(await desk.link.call(api.retrieve_async, stripe_id))
        if found.status == "draft":
            await desk.link.call(api.delete_async, stripe_id)
            return None
        if found.status in {"open", "uncollectible"}:
            found = seen(await desk.link.call(api.void_invoice_async, stripe_id, idempotency_key=key(invoice, "void")))
    except StripeRefused as refused:
        if refused.code != _GONE:
            raise
        return None
    if found.status == "paid":
        raise InvoicePaid(f"{invoice.number or shown_id(invoice)} is paid.")
    return found


async def _void_here(desk: Desk, invoice: Invoice, reason: str) -> Invoice:
    """What was never finalized. Raises NotToBeVoid where it is by now."""
    now = await desk.now()
    async with desk.transaction() as connection:
        current = await locked_by_id(connection, invoice.id)
        if current.state == "void":
            return current
        if current.finalized_at is not None or current.stripe_invoice_id != invoice.stripe_invoice_id:
            raise NotToBeVoid(f"{shown_id(invoice)} was issued at this moment.")
        return await take_back(connection, current, why=reason, ended_at=now)


async def _require_by_stripe(connection: AsyncConnection, invoice: Invoice) -> None:
    """Raises NotByStripe where the period could be asked for without Stripe since: then it was, and may be paid."""
    asked_at = invoice.ends_at if invoice.kind == "usage" else invoice.begins_at
    values = {"gateway_id": invoice.gateway_id, "asked_at": asked_at}
    is_or_was = (await connection.execute(_WITHOUT_STRIPE, values)).scalar_one_or_none()
    if is_or_was is not None:
        raise NotByStripe(
            f"{shown_id(invoice)} is void, and is not issued again: {invoice.gateway_name} {is_or_was} asked without "
            "Stripe."
        )


async def _require_not_asked(connection: AsyncConnection, invoice: Invoice) -> None:
    """Neither by another revision, nor as carried by a later period that was planned after it was void."""
    if invoice.state != "void":
        raise NotToBeVoid(f"{shown_id(invoice)} is not void: a period is asked for once.")
    query = """SELECT first_day FROM invoice
                WHERE gateway_id = :gateway_id AND state NOT IN ('void', 'carried', 'nothing_due')
                  AND replaced_at IS NULL AND (kind = :kind AND begins_at = :begins_at
                       OR kind = 'usage' AND ends_at > :begins_at AND created_at > :void_at) LIMIT 1"""
    values = {
        "gateway_id": invoice.gateway_id, "kind": invoice.kind, "begins_at": invoice.begins_at,
        "void_at": invoice.state_at,
    }  # fmt: skip
    asked_by = (await connection.execute(text(query), values)).scalar_one_or_none()
    if asked_by is not None:
        raise NotToBeVoid(f"The invoice for the period from {asked_by} asks for it already.")
