"""Credit notes that we make: the row first, then Stripe's note under its key, then the books as for any other note."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.errors import NotFound
from clearinghouse.ids import uuid7
from clearinghouse.ledger.transfers import check_reason
from settlement.invoices.documents import amount_in
from settlement.invoices.kept import why_without_invoices
from settlement.invoices.not_credited import (
    NoteRefused,
    NoteUnderWay,
    NotToBeCredited,
    PaidMeanwhile,
    WayToBeSaid,
)
from settlement.invoices.note_asking import (
    already_at_stripe,
    ask_for_note,
    creditable,
    followed,
    require_not_being_paid,
    require_taken,
)
from settlement.invoices.note_lines import chosen, parts
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
from settlement.invoices.requests import shown_id
from settlement.invoices.store import Invoice, find
from settlement.stripe_link.desk import Desk

_BY_HAND: Final = "`clearinghouse credit grant` puts credit into its account, with a reason."
_REASON_CHARS_MAX: Final = 500
_OTHERWISE: Final = "There is a credit note on it with this reason, and another amount or way."


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
    state = await creditable(desk, invoice)
    amount_minor = state.left_minor if wanted.amount_minor is None else wanted.amount_minor
    if not 0 < amount_minor <= state.left_minor:
        raise NotToBeCredited(f"{shown_id(invoice)} has {amount_in(invoice, state.left_minor)} left to be credited.")
    found = parts(chosen(state.lines, wanted.position), amount_minor)
    new = NewNote(
        uuid7(), invoice.id, gives, amount_minor, amount_minor + sum(part.tax_minor for part in found),
        [{"line": part.line_id, "amount": part.amount_minor} for part in found], wanted.reason, wanted.actor,
    )  # fmt: skip
    if wanted.in_whole:
        _require_whole(invoice, new)
    await require_taken(desk, invoice, new)
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
            made = await already_at_stripe(desk, invoice, ours) or await ask_for_note(desk, invoice, ours)
        except PaidMeanwhile as paid:
            return await _after_paid(desk, invoice, ours, wanted, paid)
        await followed(desk, invoice)
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
        await require_taken(desk, invoice, new)
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
        if (without := await why_without_invoices(connection, invoice.gateway_id)) is None:
            return
        why = (
            f"{shown_id(invoice)} was paid before this was asked for, and {without}: no later "
            "invoice would be paid with what Stripe would keep for it. Say how it gives back: "
            "`clearinghouse invoices credit` with the same reason and `--to`."
        )
        await held_note(connection, ours.id, why, key_is_spent=False)
    raise WayToBeSaid(why)


async def _issued(desk: Desk, invoice_id: UUID) -> Invoice:
    async with desk.engine.connect() as connection:
        invoice = await find(connection, invoice_id)
    if invoice is None:
        raise NotFound("There is no such invoice.")
    if invoice.state == "open":  # it may be paid by now, in part or in full
        invoice = await followed(desk, invoice) or invoice
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


def _require_whole(invoice: Invoice, new: NewNote) -> None:
    """Raises NotToBeCredited."""
    gross_minor = invoice.total_minor + invoice.tax_minor
    asked_minor = gross_minor if invoice.state == "paid" else invoice.remaining_minor or 0
    if not new.amount_minor == invoice.total_minor or not new.total_minor == gross_minor == asked_minor:
        raise NotToBeCredited(
            f"A credit note on its lines would come to {amount_in(invoice, new.total_minor)} with tax, where the "
            f"invoice has {amount_in(invoice, gross_minor)}, and {amount_in(invoice, asked_minor)} are to be taken "
            "back."
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
