"""From a planned re-rating to its end: the wrong invoice is credited in whole, and another asks by the corrected rates.

    planned    its row says what every call should have been charged
    credited   a credit note takes back all of the invoice: less is due of an open one, and of a paid one Stripe keeps
               the credit, which pays the new one
    done       in one transaction: the difference is booked, and how much of it is included in a subscription; the old
               invoice gives its place to the new one

Where nobody was asked for the period, what there is to pay more or less is an entry of today, and the next invoice has
it as a correction.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ids import show
from clearinghouse.ledger.money import EXACT
from clearinghouse.ledger.transfers import book
from settlement.invoices.crediting import Wanted, credit
from settlement.invoices.defaults import InvoiceDefaults
from settlement.invoices.entries import amount_of, book_own
from settlement.invoices.not_credited import BeingPaid, NoteRefused, NoteUnderWay, NotToBeCredited, PaidMeanwhile
from settlement.invoices.note_store import find_note_of
from settlement.invoices.planning import one_at_a_time, owed_beside, plan_revision
from settlement.invoices.requests import period_words, shown_id
from settlement.invoices.store import Invoice, changed, find, locked_by_id
from settlement.invoices.walk import Walker
from settlement.rerating.in_place import require_kept_is_used
from settlement.rerating.refusals import NotToBeRerated, ReratingBusy, ReratingHeld
from settlement.rerating.store import Rerating, done_rerating, find_rerating, lock_rerating, refused_rerating
from settlement.stripe_link.desk import Desk

_JUST_BEFORE: Final = timedelta(microseconds=1)
_MEMO_CHARS_MAX: Final = 1000


async def finish(walker: Walker, rerating_id: UUID, *, defaults: InvoiceDefaults) -> Rerating:
    """As it is then; its new invoice as far as that goes now.

    Raises NotToBeRerated where nothing was done; ReratingBusy, ReratingHeld and StripeAway, after which the same again
    goes on, and so does the job `invoices`.
    """
    desk = walker.desk
    async with desk.engine.connect() as connection:
        found = await find_rerating(connection, rerating_id)
    if found.state == "planned":
        if found.invoice_id is not None:
            await _credited(desk, found, found.invoice_id)
        async with desk.transaction() as connection:
            await one_at_a_time(connection, found.gateway_id)
            await _settled(connection, await lock_rerating(connection, found.id), defaults=defaults)
        async with desk.engine.connect() as connection:
            found = await find_rerating(connection, rerating_id)
    if found.state == "refused":  # somebody else was told so first
        raise NotToBeRerated(found.problem or "It was refused.")
    if found.revised_id is not None:
        await walker.walk(found.revised_id)
    return found


def note_reason(found: Rerating) -> str:
    """What names its credit note."""
    return f"{found.words} ({show('rrt', found.id)})"


async def _credited(desk: Desk, found: Rerating, invoice_id: UUID) -> None:
    """All of it, or nothing: then the re-rating is refused, and may be asked for anew.

    Raises NotToBeRerated for that; ReratingBusy while another note or a payment of it is under way, and ReratingHeld
    where its own is there and cannot be seen through.
    """
    async with desk.engine.connect() as connection:
        invoice = await find(connection, invoice_id)
    assert invoice is not None, "the row refers to it"

    async def it_is_not_refused(connection: AsyncConnection) -> None:
        """Nor is it from then on: whoever refuses it, locks it as well, and looks for its note. Since it was planned,
        the invoice may have been paid, and the gateway's way another."""
        if (await lock_rerating(connection, found.id)).state != "planned":
            raise ReratingBusy("Somebody else ended this re-rating at this moment.")
        await require_kept_is_used(connection, await locked_by_id(connection, invoice_id), found.net)

    wanted = Wanted(invoice.total_minor, note_reason(found), found.actor, in_whole=True)
    try:
        try:
            await credit(desk, invoice_id, wanted, guard=it_is_not_refused)
        except PaidMeanwhile:  # the note is refused: another one gives back what was paid
            await credit(desk, invoice_id, wanted, guard=it_is_not_refused)
    except BeingPaid as waits:
        raise ReratingBusy(f"Its invoice {waits}") from waits
    except NoteUnderWay as other:
        raise ReratingBusy(f"{shown_id(invoice)}: {other}") from other
    except (NotToBeCredited, NoteRefused, NotToBeRerated) as reason:
        says_all = isinstance(reason, NotToBeRerated)
        words = str(reason) if says_all else f"{shown_id(invoice)} cannot be credited in whole: {reason}"
        async with desk.transaction() as connection:
            await lock_rerating(connection, found.id)
            its_note = await find_note_of(connection, invoice_id, note_reason(found))
            if its_note is None:
                await refused_rerating(connection, found.id, str(reason))
        if its_note is None:
            raise NotToBeRerated(words) from reason
        if its_note.state == "planned":
            raise ReratingHeld(words) from reason


async def _settled(connection: AsyncConnection, found: Rerating, *, defaults: InvoiceDefaults) -> None:
    """Raises ReratingHeld where the invoice is not credited in whole (people may change notes at Stripe), and where the
    new one would ask for what a later one carries."""
    if found.state != "planned":
        return
    if found.invoice_id is None:
        entry_id = await _difference(connection, found, found.net) if found.net else None
        await done_rerating(connection, found.id, entry_id, None)
        return
    invoice = await locked_by_id(connection, found.invoice_id)
    note = await find_note_of(connection, invoice.id, note_reason(found))
    if note is None or (note.state, invoice.state) != ("issued", "paid"):
        credit_note = "no credit note" if note is None else f"credit note {note.number or show('crn', note.id)}"
        raise ReratingHeld(
            f"{credit_note} over all of {invoice.number} ({shown_id(invoice)}) is issued, or that is {invoice.state} "
            "where it should be paid by it."
        )
    if beside := await owed_beside(connection, found.gateway_id, found.begins_at):
        raise ReratingHeld(f"{shown_id(invoice)} was credited in whole, but {beside}.")
    await _give_way(connection, invoice)
    # What enters the account comes first, or what leaves it would be paid by credit that ends, which is spent then.
    included_id = await _included(connection, found) if found.included > 0 else None
    entry_id = await _difference(connection, found, found.difference)
    if found.included < 0:
        included_id = await _included(connection, found)
    own = text("INSERT INTO entry_of_period (transfer_id, effective_at) VALUES (:id, :at)")
    for each in filter(None, (entry_id, included_id)):
        await connection.execute(own, {"id": each, "at": found.ends_at - _JUST_BEFORE})
    await done_rerating(connection, found.id, entry_id, included_id)
    memo = f"Usage, {period_words(invoice)}. In place of {invoice.number}, see credit note {note.number}: {found.words}"
    await plan_revision(connection, invoice, defaults=defaults, memo=memo[:_MEMO_CHARS_MAX])


async def _give_way(connection: AsyncConnection, invoice: Invoice) -> None:
    """What it asked for is owed again, exactly, as of a void one: its rounding goes, and what was credited of it."""
    now = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    total = amount_of(invoice, invoice.total_minor)
    why = f"{shown_id(invoice)} gave its place to another, by corrected rates"
    if rounding := EXACT.subtract(total, invoice.exact):
        await book_own(connection, invoice, "rounding", rounding, key=f"invoice:{invoice.id}:replaced", reason=why)
    await book_own(
        connection, invoice, "adjustment", EXACT.minus(total), key=f"invoice:{invoice.id}:replaced", reason=why
    )
    assert await changed(connection, invoice, replaced_at=now) is not None, "the row is locked"


async def _difference(connection: AsyncConnection, found: Rerating, amount: Decimal) -> UUID:
    """Too little was charged by `amount`: it leaves the account. Below 0, it comes back."""
    entry = await book(
        connection, found.gateway_id, "adjustment", EXACT.minus(amount), key=f"rerating:{show('rrt', found.id)}",
        reason=f"usage from {found.first_day} {found.words}", actor=found.actor,
    )  # fmt: skip
    return entry.id


async def _included(connection: AsyncConnection, found: Rerating) -> UUID:
    """What the subscription's included usage pays besides enters the account. Below 0, what it paid too much leaves."""
    entry = await book(
        connection, found.gateway_id, "included", found.included, key=f"rerating:{show('rrt', found.id)}:included",
        reason=f"included in the subscription from {found.first_day}, {found.words}", actor=found.actor,
    )  # fmt: skip
    return entry.id
