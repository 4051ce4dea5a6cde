"""Credit notes that we make: the row first, then Stripe's note under its key, then the books as for any other note.

Whoever goes on with one that somebody had begun looks for it at Stripe first, by the id in its metadata.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.errors import Conflict, NotFound
from clearinghouse.ids import show, uuid7
from clearinghouse.ledger.transfers import check_reason
from settlement.invoices.arrived import arrive
from settlement.invoices.entries import Disagrees
from settlement.invoices.kept import way_without_invoices
from settlement.invoices.note_lines import Chargeable, chosen, parts
from settlement.invoices.note_store import (
    CreditNote,
    Gives,
    NewNote,
    find_note,
    find_note_of,
    held_note,
    insert_note,
    issued_note,
    refused_note,
)
from settlement.invoices.requests import ID_KEY, NOTE_KEY, line_key, shown_id
from settlement.invoices.seen import Note, metadata_of, note, seen
from settlement.invoices.store import Invoice, find
from settlement.payments.fetched import id_of
from settlement.stripe_link.client import StripeAway, StripeRefused
from settlement.stripe_link.desk import Desk

_BY_HAND: Final = "`clearinghouse credit grant` puts credit into its account, with a reason."
_FIELD: Final[dict[Gives, str]] = {
    "credit": "credit_amount", "refund": "refund_amount", "outside": "out_of_band_amount",
}  # fmt: skip
_REASON_CHARS_MAX: Final = 500
_OTHERWISE: Final = "There is a credit note on it with this reason, and another amount or way."
#: States of a payment intent whose money may be on its way, and that nobody can stop.
_UNDER_WAY: Final = ("processing", "requires_capture")


class NotToBeCredited(Conflict):
    """There is nothing that a credit note could take back, or another one is in the way."""

    what_next = "Look at it again: `clearinghouse invoices show`."


class NoteUnderWay(NotToBeCredited):
    """Another one is not issued yet, which is known by its reason."""

    what_next = "Ask again in a minute."


class BeingPaid(NotToBeCredited):
    """A bank is about to pay the invoice: a credit note would leave that payment without one. Ends by itself."""

    what_next = (
        "Ask again once the bank has answered, which can take days; what was begun goes on by itself, and gives back "
        "of what was paid if the bank pays."
    )


class NoteRefused(Conflict):
    """Stripe said no; nothing was done."""

    what_next = "Mend what it says, and ask again."


class PaidMeanwhile(NoteRefused):
    """It would have left less to pay of an invoice that was paid before it was made; nothing was done."""

    what_next = "Look at it again, `clearinghouse invoices show`; what is asked for now gives back of what was paid."


class WayToBeSaid(NotToBeCredited):
    """It was begun, and its invoice was paid before it was made: somebody has to say how it gives back."""

    what_next = "Give the same command again with `--to refund`, `--to outside` or `--to credit`."


@dataclass(frozen=True, slots=True)
class Wanted:
    """`amount_minor` without tax; None: all that is left. `gives` None: credit, or less to pay. `in_whole`: it takes
    back the invoice with all of its tax, or is refused: parts of lines may come to another tax than all of them.
    """

    amount_minor: int | None
    reason: str
    actor: str
    gives: Gives | None = None
    position: int | None = None
    in_whole: bool = False


#: Within the transaction that a note's row is written in; it raises where there is to be none any more.
Guard = Callable[[AsyncConnection], Awaitable[None]]


async def credit(desk: Desk, invoice_id: UUID, wanted: Wanted, *, guard: Guard | None = None) -> CreditNote:
    """Once: a note of this reason that there is by now is gone on with. One that would leave less to pay of what is
    paid by then gives its place to one that gives back; where that is `wanted.in_whole`, it is refused.

    Raises what `guard` does, NotFound, InvalidRequest, NotToBeCredited, NoteRefused; StripeAway, after which the same
    again goes on.
    """
    async with desk.engine.connect() as connection:
        known = await find_note_of(connection, invoice_id, wanted.reason)
    if known is None:
        return await _finished(desk, await _plan(desk, await preview(desk, invoice_id, wanted), guard), wanted)
    if wanted.amount_minor not in {None, known.amount_minor}:
        raise NotToBeCredited(_OTHERWISE)
    if wanted.gives not in {None, known.gives}:
        if (known.gives, known.state) != ("less_due", "planned"):
            raise NotToBeCredited(_OTHERWISE)
        _gives(await _issued(desk, invoice_id), wanted)  # which is how it gives back, if it is paid by now
    made = await _finished(desk, known.id, wanted)
    if wanted.gives not in {None, made.gives}:
        raise NotToBeCredited(_OTHERWISE)
    return made


async def preview(desk: Desk, invoice_id: UUID, wanted: Wanted) -> NewNote:
    """What would be asked for. Nothing is kept; Stripe has reckoned its tax, and takes it. Raises as `credit` does."""
    check_reason(wanted.reason, chars_max=_REASON_CHARS_MAX)
    invoice = await _issued(desk, invoice_id)
    gives = _gives(invoice, wanted)
    await require_not_being_paid(desk, invoice)
    state = await _looked_at(desk, invoice)
    amount_minor = state.left_minor if wanted.amount_minor is None else wanted.amount_minor
    if not 0 < amount_minor <= state.left_minor:
        raise NotToBeCredited(f"{shown_id(invoice)} has {state.left_minor} minor units left that may be credited.")
    found = parts(chosen(state.lines, wanted.position), amount_minor)
    new = NewNote(
        uuid7(), invoice.id, gives, amount_minor, amount_minor + sum(part.tax_minor for part in found),
        [{"line": part.line_id, "amount": part.amount_minor} for part in found], wanted.reason, wanted.actor,
    )  # fmt: skip
    if wanted.in_whole:
        _require_whole(invoice, new)
    await _try(desk, invoice, new)
    return new


async def finish(desk: Desk, note_id: UUID) -> CreditNote:
    """As it is then: at Stripe and in the books; or the one that has its place, since its invoice was paid meanwhile.

    Raises NoteRefused, PaidMeanwhile, StripeAway; BeingPaid, WayToBeSaid and what `arrive` disagrees with, after which
    the same again goes on.
    """
    return await _finished(desk, note_id, None)


async def _finished(desk: Desk, note_id: UUID, wanted: Wanted | None) -> CreditNote:
    """`wanted`: None where nobody is there who could say more than the row does."""
    async with desk.engine.connect() as connection:
        ours = await find_note(connection, note_id)
        invoice = await find(connection, ours.invoice_id)
    assert invoice is not None, "the row refers to it"
    if ours.state == "planned":
        try:
            made = await _found(desk, invoice, ours) or await _made(desk, invoice, ours)
        except PaidMeanwhile as paid:
            return await _after_paid(desk, invoice, ours, wanted, paid)
        await _followed(desk, invoice)
        async with desk.transaction() as connection:
            await issued_note(connection, ours.id, stripe_note_id=made.id, number=made.number)
    async with desk.engine.connect() as connection:
        return await find_note(connection, note_id)


async def _after_paid(
    desk: Desk, invoice: Invoice, ours: CreditNote, wanted: Wanted | None, paid: PaidMeanwhile
) -> CreditNote:
    """One over the same that gives back has its place, in the transaction that refuses it. Raises as `finish` does."""
    if wanted is not None and (wanted.in_whole or wanted.gives == "less_due"):  # who asks anew, or for nothing else
        async with desk.transaction() as connection:
            await refused_note(connection, ours.id, str(paid))
        raise paid
    gives = wanted.gives if wanted is not None else None
    if gives is None:
        await _require_kept_is_used(desk, invoice, ours)
    new = NewNote(
        uuid7(), invoice.id, gives or "credit", ours.amount_minor, ours.total_minor, ours.lines, ours.reason, ours.actor
    )
    try:
        await _try(desk, invoice, new)
    except NoteRefused as refused:  # as where somebody credited it at Stripe
        why = f"{paid} Nor can it give back: {refused}"
        async with desk.transaction() as connection:
            await refused_note(connection, ours.id, why)
        raise PaidMeanwhile(why) from refused
    async with desk.transaction() as connection:
        if await refused_note(connection, ours.id, str(paid)):
            await insert_note(connection, new)
    async with desk.engine.connect() as connection:
        newer = await find_note_of(connection, invoice.id, ours.reason)  # ours, or that of who was first
    if newer is None:
        raise paid
    return await finish(desk, newer.id)


async def _require_kept_is_used(desk: Desk, invoice: Invoice, ours: CreditNote) -> None:
    """Nobody is there to be told that what Stripe would keep pays nothing. Raises WayToBeSaid; the note stays begun."""
    async with desk.transaction() as connection:
        if (way := await way_without_invoices(connection, invoice.gateway_id)) is None:
            return
        why = (
            f"{shown_id(invoice)} was paid before this was asked for, and the gateway's way is {way} by now: no later "
            "invoice would be paid with what Stripe would keep for it. Say how it gives back: "
            "`clearinghouse invoices credit` with the same reason and `--to`."
        )
        await held_note(connection, ours.id, why, key_is_spent=False)
    raise WayToBeSaid(why)


# --- what they are made of --------------------------------------------------------------------------------------------


class _State(NamedTuple):
    left_minor: int
    lines: list[Chargeable]


async def _issued(desk: Desk, invoice_id: UUID) -> Invoice:
    async with desk.engine.connect() as connection:
        invoice = await find(connection, invoice_id)
    if invoice is None:
        raise NotFound("There is no such invoice.")
    if invoice.state == "open":  # it may be paid by now, in part or in full
        invoice = await _followed(desk, invoice) or invoice
    if invoice.state in {"open", "paid"}:
        return invoice
    if invoice.finalized_at is None or invoice.state == "void":
        raise NotToBeCredited(f"{shown_id(invoice)} is {invoice.state}: nobody is asked for it. {_BY_HAND}")
    raise NotToBeCredited(f"{shown_id(invoice)} is {invoice.state}; only what is open or paid may be credited.")


def _gives(invoice: Invoice, wanted: Wanted) -> Gives:
    if invoice.state == "paid":
        if wanted.gives == "less_due":
            raise NotToBeCredited(f"{shown_id(invoice)} was paid meanwhile.")
        return wanted.gives or "credit"
    if wanted.gives not in {None, "less_due"}:
        raise NotToBeCredited(
            f"{shown_id(invoice)} is not paid: a credit note leaves less to pay, and gives nothing back."
        )
    return "less_due"


async def _looked_at(desk: Desk, invoice: Invoice) -> _State:
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
    return _State(invoice.total_minor - notes_minor - paid_minor, lines)


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


def _require_whole(invoice: Invoice, new: NewNote) -> None:
    """Raises NotToBeCredited."""
    gross_minor = invoice.total_minor + invoice.tax_minor
    asked_minor = gross_minor if invoice.state == "paid" else invoice.remaining_minor
    if not new.amount_minor == invoice.total_minor or not new.total_minor == gross_minor == asked_minor:
        raise NotToBeCredited(
            f"A credit note on its lines would come to {new.total_minor} minor units with tax, where the invoice has "
            f"{gross_minor}, and {asked_minor} of them are to be taken back."
        )


async def _try(desk: Desk, invoice: Invoice, new: NewNote) -> None:
    """Raises NoteRefused where Stripe would not take it, or would make another sum of it."""
    link = desk.link
    try:
        found = note(await link.call(link.client.v1.credit_notes.preview_async, params=_asked(invoice, new)))
    except StripeRefused as refused:
        raise NoteRefused(f"Stripe refuses it: {refused}") from refused
    if (found.net_minor, found.total_minor) != (new.amount_minor, new.total_minor):
        raise NoteRefused(
            f"Stripe makes {found.net_minor} minor units of it, {found.total_minor} with tax, "
            f"not {new.amount_minor} and {new.total_minor}"
        )


async def _plan(desk: Desk, new: NewNote, guard: Guard | None) -> UUID:
    try:
        async with desk.transaction() as connection:
            if guard is not None:
                await guard(connection)
            await insert_note(connection, new)
    except IntegrityError as taken:
        async with desk.engine.connect() as connection:
            same = await find_note_of(connection, new.invoice_id, new.reason)
        if same is None or (same.amount_minor, same.gives) != (new.amount_minor, new.gives):
            raise NoteUnderWay("Another credit note on it is under way.") from taken
        return same.id
    return new.id


async def _at_stripe(desk: Desk, invoice: Invoice, ours: CreditNote) -> Note | None:
    """The one with our id, which somebody made and did not live to tell."""
    link = desk.link
    async for one in link.each(link.client.v1.credit_notes.list_async, params={"invoice": invoice.at_stripe}):
        if (found := note(one)).our_id == show("crn", ours.id):
            return found
    return None


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


async def _found(desk: Desk, invoice: Invoice, ours: CreditNote) -> Note | None:
    """The one that is there; None where it is to be asked for now. Days may have passed since it was planned: raises
    BeingPaid where it would leave less to pay of what a bank is about to pay, and PaidMeanwhile of what is paid.
    """
    is_less_due = ours.gives == "less_due"
    now = (await _followed(desk, invoice) if is_less_due else None) or invoice
    if (made := await _at_stripe(desk, invoice, ours)) is not None:  # by which it may be paid
        return made
    if is_less_due and now.state == "paid":
        raise PaidMeanwhile(
            f"{shown_id(invoice)} was paid before this was asked for, and a credit note cannot leave less to pay."
        )
    if is_less_due:
        await require_not_being_paid(desk, now)
    return None


async def _made(desk: Desk, invoice: Invoice, ours: CreditNote) -> Note:
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
        if (found := await _found(desk, invoice, ours)) is not None:
            return found  # somebody else made it at this moment, or began to pay, which raises
        async with desk.transaction() as connection:
            await refused_note(connection, ours.id, str(refused))
        raise NoteRefused(f"Stripe refused it: {refused}") from refused
    except StripeAway as away:
        async with desk.transaction() as connection:
            await held_note(connection, ours.id, str(away), key_is_spent=away.key_is_spent)
        raise
    return note(made)


async def _followed(desk: Desk, invoice: Invoice) -> Invoice | None:
    link, asked_at = desk.link, await desk.now()
    try:
        found = await link.call(link.client.v1.invoices.retrieve_async, invoice.at_stripe)
        return await arrive(desk, seen(found, asked_at))
    except Disagrees as differing:
        raise NotToBeCredited(f"{shown_id(invoice)}: {differing}.") from differing
