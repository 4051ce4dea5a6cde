"""Credit notes in the books, whoever made them at Stripe: an open invoice then asks for less; of a paid one they say
why money went back, which is booked as the refund that it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ledger.money import EXACT
from clearinghouse.ledger.transfers import book
from settlement.invoices.entries import ACTOR, Disagrees, amount_of, book_own, minor_booked
from settlement.invoices.seen import Note, Seen, note
from settlement.invoices.store import Invoice, changed, find_at_stripe
from settlement.stripe_link.desk import Desk


async def notes_on(desk: Desk, found: Seen) -> list[Note]:
    """All that Stripe has on this invoice, if there are any; those that are void by now, too."""
    if not found.has_notes and not await _has_credited(desk, found.id):
        return []
    link = desk.link
    return [note(one) async for one in link.each(link.client.v1.credit_notes.list_async, params={"invoice": found.id})]


async def _has_credited(desk: Desk, stripe_id: str) -> bool:
    """By our own row: what is void is not counted at Stripe any more."""
    async with desk.engine.connect() as connection:
        invoice = await find_at_stripe(connection, stripe_id)
    return invoice is not None and invoice.credited_minor > 0


async def given_back(connection: AsyncConnection, invoice: Invoice, notes: Sequence[Note]) -> None:
    """Only what gives back. The row is locked."""
    for each in notes:
        if each.kind == "given_back":
            await _given_back(connection, invoice, each)


async def credited(connection: AsyncConnection, invoice: Invoice, notes: Sequence[Note]) -> Invoice:
    """The row is locked. Raises Disagrees for a note of which nobody can say what it leaves to pay."""
    for each in notes:
        if each.kind == "mixed":
            raise Disagrees(
                f"credit note {each.number} leaves less to pay and gives money back as well: the books follow only "
                "what does one of both"
            )
    await given_back(connection, invoice, notes)
    for each in notes:
        if each.kind == "less_due":
            way = _taken_back if each.is_void else _less_due
            invoice = await way(connection, invoice, each)
    return invoice


async def tax_of_notes(connection: AsyncConnection, invoice: Invoice) -> Decimal:
    """What its notes have made tax of what was booked as paid of it; 0 without any that are not void."""
    query = text("""SELECT coalesce(sum(CASE kind WHEN 'refund' THEN amount ELSE -amount END), 0)
                      FROM invoice_entry JOIN transfer ON transfer.id = transfer_id
                     WHERE invoice_id = :id AND key SIMILAR TO :keys""")
    values = {"id": invoice.id, "keys": "(refund|payment):credit_note:%:tax(:void)?"}
    return Decimal((await connection.execute(query, values)).scalar_one())


async def _given_back(connection: AsyncConnection, invoice: Invoice, each: Note) -> None:
    """It is not owed any more (adjustment), and it is not here any more (refund): together 0. All of it without tax.

    What Stripe refunds to a card has a refund of its own in the books (`Note.net_of_refund`). The rest is booked here:
    credit that Stripe keeps pays a later invoice, which is then booked as paid in full.
    """
    words = f"credit note {each.number} on invoice {invoice.number}"
    corrected = amount_of(invoice, each.net_minor)
    if each.refunds_minor:
        await book(
            connection, invoice.gateway_id, "adjustment", corrected, key=_key(each), reason=f"{words}, refunded",
            actor=ACTOR,
        )  # fmt: skip
        if kept := EXACT.subtract(corrected, amount_of(invoice, each.refunded_net_minor)):
            await book(
                connection, invoice.gateway_id, "refund", EXACT.minus(kept), key=_key(each),
                reason=f"{words}, kept by Stripe as credit or paid out by hand", actor=ACTOR,
            )  # fmt: skip
        return
    await book_own(connection, invoice, "adjustment", corrected, key=_key(each), reason=words)
    await book_own(
        connection, invoice, "refund", EXACT.minus(corrected), key=_key(each),
        reason=f"{words}, kept by Stripe as credit or paid out by hand",
    )  # fmt: skip


async def _less_due(connection: AsyncConnection, invoice: Invoice, each: Note) -> Invoice:
    entry = await book_own(
        connection, invoice, "adjustment", amount_of(invoice, each.net_minor), key=_key(each),
        reason=f"credit note {each.number} on invoice {invoice.number}",
    )  # fmt: skip
    if entry.was_repeated:
        return invoice
    left_minor = invoice.total_minor - invoice.credited_minor - each.net_minor
    if left_minor < 0:
        raise Disagrees(f"credit note {each.number} takes back more than was asked for without tax, and is not booked")
    tax_minor = max(0, invoice.booked_minor - left_minor)
    if tax_minor:
        await book_own(
            connection, invoice, "refund", EXACT.minus(amount_of(invoice, tax_minor)), key=_tax_key(each),
            reason=f"tax of what was paid of invoice {invoice.number}, now that credit note {each.number} leaves less",
        )  # fmt: skip
    return await _by(connection, invoice, each.net_minor, tax_minor=tax_minor)


async def _taken_back(connection: AsyncConnection, invoice: Invoice, each: Note) -> Invoice:
    """What was never booked is not taken back."""
    if not await minor_booked(connection, invoice, f"adjustment:{_key(each)}"):
        return invoice
    entry = await book_own(
        connection, invoice, "adjustment", EXACT.minus(amount_of(invoice, each.net_minor)), key=f"{_key(each)}:void",
        reason=f"credit note {each.number} on invoice {invoice.number} is void",
    )  # fmt: skip
    if entry.was_repeated:
        return invoice
    tax_minor = await minor_booked(connection, invoice, f"refund:{_tax_key(each)}")
    if tax_minor:
        await book_own(
            connection, invoice, "payment", amount_of(invoice, tax_minor), key=f"{_tax_key(each)}:void",
            reason=f"paid of invoice {invoice.number}, and no tax: credit note {each.number} is void",
        )  # fmt: skip
    return await _by(connection, invoice, -each.net_minor, tax_minor=-tax_minor)


async def _by(connection: AsyncConnection, invoice: Invoice, minor: int, *, tax_minor: int) -> Invoice:
    """`tax_minor`: what is tax now of what was booked as paid, since taxes come last."""
    credited_minor, booked_minor = invoice.credited_minor + minor, invoice.booked_minor - tax_minor
    after = await changed(connection, invoice, credited_minor=credited_minor, booked_minor=booked_minor)
    assert after is not None, "the row is locked"
    return after


def _key(each: Note) -> str:
    return f"credit_note:{each.id}"


def _tax_key(each: Note) -> str:
    return f"{_key(each)}:tax"
