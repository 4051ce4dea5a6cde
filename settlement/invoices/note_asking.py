"""A credit note at Stripe's end: what may still be credited, whether it would take one, and the one that it makes.

Every change is asked for under the note's own key; whoever goes on with one that somebody had begun looks for it first,
by the id in its metadata.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, NamedTuple

from clearinghouse.ids import show
from settlement.invoices.arrived import arrive
from settlement.invoices.documents import amount_in
from settlement.invoices.entries import Disagrees
from settlement.invoices.not_credited import BeingPaid, NoteRefused, NotToBeCredited, PaidMeanwhile
from settlement.invoices.note_lines import Chargeable
from settlement.invoices.note_store import CreditNote, Gives, NewNote, held_note, refused_note
from settlement.invoices.requests import ID_KEY, NOTE_KEY, line_key, shown_id
from settlement.invoices.seen import Note, metadata_of, note, seen
from settlement.invoices.store import Invoice
from settlement.payments.fetched import id_of
from settlement.stripe_link.client import StripeAway, StripeRefused
from settlement.stripe_link.desk import Desk

_FIELD: Final[dict[Gives, str]] = {
    "credit": "credit_amount", "refund": "refund_amount", "outside": "out_of_band_amount",
}  # fmt: skip
#: States of a payment intent whose money may be on its way, and that nobody can stop.
_UNDER_WAY: Final = ("processing", "requires_capture")


class Creditable(NamedTuple):
    """What of an invoice no credit note has taken back and nobody has paid in part: as a sum, and by lines."""

    left_minor: int
    lines: list[Chargeable]


async def creditable(desk: Desk, invoice: Invoice) -> Creditable:
    """By Stripe, which knows of notes that somebody made there."""
    link, api = desk.link, desk.link.client.v1
    credited: Counter[str] = Counter()
    notes_minor = 0
    async for one in link.each(api.credit_notes.list_async, params={"invoice": invoice.at_stripe}):
        if (known := note(one)).is_void:
            continue
        notes_minor += known.net_minor
        for line in await _lines_of(desk, one):
            if line.type == "invoice_line_item":
                credited[line.invoice_line_item] += line.amount
    lines = [
        _chargeable(invoice, line, credited[line.id])
        async for line in link.each(api.invoices.line_items.list_async, invoice.at_stripe, params={})
    ]
    paid_minor = invoice.booked_minor if invoice.state == "open" else 0
    return Creditable(invoice.total_minor - notes_minor - paid_minor, lines)


async def _lines_of(desk: Desk, one: Any) -> list[Any]:
    """Of a credit note, which shows the first ones itself."""
    if not one.lines.has_more:
        return list(one.lines.data)
    link = desk.link
    return [line async for line in link.each(link.client.v1.credit_notes.line_items.list_async, one.id, params={})]


def _chargeable(invoice: Invoice, line: Any, credited_minor: int) -> Chargeable:
    taxes = tuple(tax.amount for tax in line.taxes or [] if tax.tax_behavior == "exclusive")
    left_minor = max(0, line.amount - credited_minor)
    return Chargeable(line.id, line_key(metadata_of(line), invoice), line.amount, left_minor, taxes)


async def require_taken(desk: Desk, invoice: Invoice, new: NewNote) -> None:
    """Raises NoteRefused where Stripe would not take it, or would make another sum of it."""
    link = desk.link
    try:
        found = note(await link.call(link.client.v1.credit_notes.preview_async, params=_asked(invoice, new)))
    except StripeRefused as refused:
        raise NoteRefused(f"Stripe refuses it: {refused}") from refused
    if (found.net_minor, found.total_minor) != (new.amount_minor, new.total_minor):
        raise NoteRefused(
            f"Stripe makes {amount_in(invoice, found.net_minor)} of it, {amount_in(invoice, found.total_minor)} with "
            f"tax, not {amount_in(invoice, new.amount_minor)} and {amount_in(invoice, new.total_minor)}"
        )


async def already_at_stripe(desk: Desk, invoice: Invoice, ours: CreditNote) -> Note | None:
    """The one that is there; None where it is to be asked for now. Days may have passed since it was planned: raises
    BeingPaid where it would leave less to pay of what a bank is about to pay, and PaidMeanwhile of what is paid.
    """
    is_less_due = ours.gives == "less_due"
    now = (await followed(desk, invoice) if is_less_due else None) or invoice
    if (made := await _at_stripe(desk, invoice, ours)) is not None:  # by which it may be paid
        return made
    if is_less_due and now.state == "paid":
        raise PaidMeanwhile(
            f"{shown_id(invoice)} was paid before this was asked for, and a credit note cannot leave less to pay."
        )
    if is_less_due:
        await require_not_being_paid(desk, now)
    return None


async def ask_for_note(desk: Desk, invoice: Invoice, ours: CreditNote) -> Note:
    """Raises NoteRefused, with the row refused; StripeAway, and BeingPaid and PaidMeanwhile, after which it is still
    begun.
    """
    link = desk.link
    try:
        made = await link.call(
            link.client.v1.credit_notes.create_async,
            params=_asked(invoice, ours),
            idempotency_key=f"{show('crn', ours.id)}-{ours.keys_spent_count}",
        )
    except StripeRefused as refused:
        async with desk.transaction() as connection:  # for a day Stripe repeats it, also once nothing is in the way
            await held_note(connection, ours.id, str(refused), key_is_spent=True)
        if (found := await already_at_stripe(desk, invoice, ours)) is not None:
            return found  # somebody else made it at this moment, or began to pay, which raises
        async with desk.transaction() as connection:
            await refused_note(connection, ours.id, str(refused))
        raise NoteRefused(f"Stripe refused it: {refused}") from refused
    except StripeAway as away:
        async with desk.transaction() as connection:
            await held_note(connection, ours.id, str(away), key_is_spent=away.key_is_spent)
        raise
    return note(made)


async def followed(desk: Desk, invoice: Invoice) -> Invoice | None:
    """As it is once the books know what Stripe says of it now. Raises NotToBeCredited where the two disagree."""
    link, asked_at = desk.link, await desk.now()
    try:
        found = await link.call(link.client.v1.invoices.retrieve_async, invoice.at_stripe)
        return await arrive(desk, seen(found, asked_at))
    except Disagrees as differing:
        raise NotToBeCredited(f"{shown_id(invoice)}: {differing}.") from differing


async def require_not_being_paid(desk: Desk, invoice: Invoice) -> None:
    """Raises BeingPaid, StripeAway."""
    if invoice.state != "open":
        return
    link, api = desk.link, desk.link.client.v1
    tried = {"invoice": invoice.at_stripe, "status": "open"}
    async for one in link.each(api.invoice_payments.list_async, params=tried):
        if one.payment.type != "payment_intent":
            continue
        intent_id = id_of(one.payment.payment_intent)
        assert intent_id is not None, "a payment of this type has one"
        intent = await link.call(api.payment_intents.retrieve_async, intent_id)
        if intent.status in _UNDER_WAY:
            raise BeingPaid(
                f"{shown_id(invoice)} is being paid: Stripe says that {intent.id} is {intent.status}, and a bank may "
                "take days to answer. A credit note on it waits until that payment has succeeded or failed."
            )


async def _at_stripe(desk: Desk, invoice: Invoice, ours: CreditNote) -> Note | None:
    """The one with our id, which somebody made and did not live to tell."""
    link = desk.link
    async for one in link.each(link.client.v1.credit_notes.list_async, params={"invoice": invoice.at_stripe}):
        if (found := note(one)).our_id == show("crn", ours.id):
            return found
    return None


def _asked(invoice: Invoice, new: NewNote) -> dict[str, Any]:
    """The same words however often it is asked."""
    asked: dict[str, Any] = {
        "invoice": invoice.at_stripe,
        "lines": [
            {"type": "invoice_line_item", "invoice_line_item": each["line"], "amount": each["amount"]}
            for each in new.lines
        ],
        "memo": new.reason,
        "metadata": {NOTE_KEY: show("crn", new.id), ID_KEY: shown_id(invoice), "gives": new.gives},
    }
    if new.gives in _FIELD:
        asked[_FIELD[new.gives]] = new.total_minor
    return asked
