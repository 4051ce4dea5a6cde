"""What Stripe says of an invoice, brought into our row and into the books: forward only, and once.

    finalized        the rounding is booked: from now on the books say what was asked for, to the last digit
    paid, in part    what Stripe confirms is booked as payment, without taxes
    credit notes     what they leave less to pay is taken off what is owed, before any payment of it is booked
    void             the rounding is taken back, and what was asked for is owed again, to the next invoice

All of a step is one transaction with the row locked, so that two who see the same at once book it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ledger.money import EXACT
from settlement.invoices.entries import Disagrees, amount_of, book_own
from settlement.invoices.notes import credited, notes_on, tax_of_notes
from settlement.invoices.requests import shown_id
from settlement.invoices.seen import Note, Seen, disagreements, seen
from settlement.invoices.store import IN_THE_MAKING, Invoice, State, changed, locked
from settlement.stripe_link.desk import Desk


async def arrive(desk: Desk, found: Seen, *, why: str = "it was voided at Stripe") -> Invoice | None:
    """Our row as it is then; None where Stripe's invoice is none of ours, or not yet. Raises Disagrees.

    What Stripe says may be older than what we know: then it changes nothing. `why` is kept with one that is void.
    """
    await _require_not_revised(desk, found)
    notes = await notes_on(desk, found)
    async with desk.transaction() as connection:
        invoice = await locked(connection, found.id)
        if invoice is None or found.status == "draft" or invoice.state == "void":
            return invoice
        return await _followed(connection, invoice, found, notes, why=why)


async def _require_not_revised(desk: Desk, found: Seen) -> None:
    """What is void because another asks in its place is not owed again: the next invoice would ask for it, too."""
    if found.status != "void" or found.revised_id is None:
        return
    link = desk.link
    newer = seen(await link.call(link.client.v1.invoices.retrieve_async, found.revised_id))
    if newer.status != "void":
        raise Disagrees(
            f"{found.id} was edited at Stripe, and {newer.id} asks in its place, of which the books know nothing: void "
            "that one at Stripe, and this one is owed again"
        )


async def _followed(
    connection: AsyncConnection, invoice: Invoice, found: Seen, notes: Sequence[Note], *, why: str
) -> Invoice:
    if invoice.state in IN_THE_MAKING and found.status != "void":
        invoice = await _finalized(connection, invoice, found)
    # Whoever was asked later has booked them, or has seen that they are void, which those of a paid one never are.
    if found.status == "paid" or (found.status != "void" and not found.is_older_than(invoice)):
        invoice = await credited(connection, invoice, notes)
    if invoice.state == "paid":
        if found.overpaid_minor <= invoice.overpaid_minor:
            return invoice
        return await _to(connection, invoice, "paid", overpaid_minor=found.overpaid_minor)  # it had been under way
    if found.status == "void":
        return await take_back(connection, invoice, why=why, remaining_minor=0, ended_at=found.ended_at)
    invoice = await _paid(connection, invoice, found)
    return await _moved(connection, invoice, found)


async def take_back(connection: AsyncConnection, invoice: Invoice, *, why: str, **seen: Any) -> Invoice:
    """Void: what it asked for is owed again, and nobody is asked for it. The row is locked by the caller."""
    if invoice.finalized_at is not None:
        await _book_rounding(connection, invoice, EXACT.minus(_remainder(invoice)), step="void")
    if invoice.credited_minor:
        await book_own(
            connection, invoice, "adjustment", EXACT.minus(amount_of(invoice, invoice.credited_minor)),
            key=f"invoice:{invoice.id}:void", reason=f"{shown_id(invoice)} is void, and so are its credit notes",
        )  # fmt: skip
    if tax := await tax_of_notes(connection, invoice):
        await book_own(
            connection, invoice, "payment", tax, key=f"invoice:{invoice.id}:void",
            reason=f"paid of {shown_id(invoice)}, which is void, and no tax any more",
        )  # fmt: skip
    values = {"claimed_until": None, "pay_next_at": None, "problem": why[:1000], "problem_at": seen["ended_at"]}
    return await _to(connection, invoice, "void", **values, **seen)


async def _finalized(connection: AsyncConnection, invoice: Invoice, found: Seen) -> Invoice:
    wrong = disagreements(invoice, found)
    if wrong:
        raise Disagrees(f"it was finalized at Stripe, and {'; '.join(wrong)}")
    await _book_rounding(connection, invoice, _remainder(invoice), step="finalized")
    return await _to(
        connection, invoice, "finalized", number=found.number, hosted_url=found.hosted_url, pdf_url=found.pdf_url,
        tax_minor=found.tax_minor, remaining_minor=found.remaining_minor, finalized_at=found.finalized_at,
        due_at=found.due_at, problem=None, problem_at=None,
    )  # fmt: skip


async def _paid(connection: AsyncConnection, invoice: Invoice, found: Seen) -> Invoice:
    """Whatever Stripe confirms and is not booked yet. Never less than is booked: a refund has an entry of its own."""
    settled_minor = found.settled_minor(invoice)
    if settled_minor <= invoice.booked_minor:
        return invoice
    # Of what was left by then, which credit notes may have made less.
    known = (invoice.booked_minor, invoice.credited_minor) if invoice.credited_minor else (invoice.booked_minor,)
    part = "".join(f":{minor}" for minor in known) if invoice.booked_minor else ""
    how = "outside of Stripe, as Stripe was told" if found.off_stripe_minor > invoice.off_stripe_minor else "at Stripe"
    await book_own(
        connection, invoice, "payment", amount_of(invoice, settled_minor - invoice.booked_minor),
        key=f"invoice:{invoice.id}{part}", reason=f"invoice {found.number or shown_id(invoice)} was paid {how}",
    )  # fmt: skip
    return await _to(connection, invoice, invoice.state, booked_minor=settled_minor)


async def _moved(connection: AsyncConnection, invoice: Invoice, found: Seen) -> Invoice:
    seen: dict[str, Any] = {
        "remaining_minor": found.remaining_minor, "overpaid_minor": found.overpaid_minor,
        "off_stripe_minor": found.off_stripe_minor, "seen_at": found.asked_at or invoice.seen_at,
    }  # fmt: skip
    if found.status == "paid":
        return await _to(
            connection, invoice, "paid", ended_at=found.ended_at or found.created_at, pay_next_at=None,
            claimed_until=None, problem=None, problem_at=None, **seen,
        )  # fmt: skip
    if found.is_older_than(invoice):
        seen = {}  # what is less to pay by now would be more again
    if found.status == "uncollectible":
        return await _to(connection, invoice, "uncollectible", pay_next_at=None, claimed_until=None, **seen)
    return await _to(connection, invoice, invoice.state, **seen) if seen else invoice


async def _book_rounding(connection: AsyncConnection, invoice: Invoice, amount: Decimal, *, step: str) -> None:
    """What is owed exactly becomes what is asked for, or the other way round."""
    if amount:
        key = f"invoice:{invoice.id}:{step}"
        await book_own(connection, invoice, "rounding", amount, key=key, reason=f"{shown_id(invoice)}: {step}")


async def _to(connection: AsyncConnection, invoice: Invoice, state: State, **values: Any) -> Invoice:
    after = await changed(connection, invoice, state=state, **values)
    assert after is not None, "the row is locked"
    return after


def _remainder(invoice: Invoice) -> Decimal:
    """What is owed exactly, less what is asked for: it enters the account when that is asked."""
    return EXACT.subtract(invoice.exact, amount_of(invoice, invoice.total_minor))
