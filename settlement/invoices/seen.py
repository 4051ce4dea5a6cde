"""An invoice as Stripe shows it, as a plain value; and whether it is what we asked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from settlement.invoices.requests import ID_KEY, NOTE_KEY, shown_id
from settlement.invoices.store import Invoice

Status = Literal["draft", "open", "paid", "void", "uncollectible"]
#: A card is charged at once, and declines are tried again: only then is it late.
_AUTOMATIC_DUE_AFTER: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Note:
    """A credit note on an invoice. Amounts in minor units; `net_minor` without the tax that is on top.

    `kind` says what it does: it leaves less to pay (`less_due`), gives back what was paid (`given_back`), or both
    (`mixed`), so that nobody can say what was paid. What Stripe refunds of it is in `refunds_minor`; the rest
    is credit that Stripe keeps for the customer's next invoice, or money that somebody pays out by hand.
    """

    id: str
    number: str
    is_void: bool
    kind: Literal["less_due", "given_back", "mixed"]
    net_minor: int
    total_minor: int
    #: Those that it was paid back by: Stripe's ids, and how much of each, with tax.
    refunds_minor: tuple[tuple[str, int], ...] = ()
    our_id: str | None = None

    def net_of_refund(self, refund_id: str) -> int | None:
        """What of a refund is no tax; of all of them together it is `net_minor`. None of a refund that is not its."""
        gross_minor = 0
        for known_id, part_minor in self.refunds_minor:
            if known_id == refund_id:
                return self._net_of(gross_minor + part_minor) - self._net_of(gross_minor)
            gross_minor += part_minor
        return None

    @property
    def refunded_net_minor(self) -> int:
        """What Stripe refunds of it, without tax."""
        return self._net_of(sum(part_minor for _, part_minor in self.refunds_minor))

    def _net_of(self, gross_minor: int) -> int:
        return (2 * gross_minor * self.net_minor + self.total_minor) // (2 * self.total_minor)


@dataclass(frozen=True, slots=True)
class Seen:
    """Amounts in minor units. `tax_minor` is on top of the subtotal. `has_notes`: there are credit notes on it.

    `revised_id`: the invoice that somebody made of it at Stripe, and that asks in its place once this one is void.
    `asked_at`: when Stripe was asked for this, by our clock; None where nobody has noted it.
    """

    id: str
    our_id: str | None
    customer_id: str | None
    currency: str
    status: Status
    subtotal_minor: int
    total_minor: int
    tax_minor: int
    paid_minor: int
    remaining_minor: int
    overpaid_minor: int
    off_stripe_minor: int
    has_notes: bool
    number: str | None
    hosted_url: str | None
    pdf_url: str | None
    created_at: datetime
    finalized_at: datetime | None
    due_at: datetime | None
    ended_at: datetime | None
    revised_id: str | None = None
    asked_at: datetime | None = None

    def is_older_than(self, invoice: Invoice) -> bool:
        """Whether our row knows what was asked for later. What was asked for first may be answered last."""
        return self.asked_at is not None and invoice.seen_at is not None and self.asked_at < invoice.seen_at

    def settled_minor(self, invoice: Invoice) -> int:
        """What of the invoice's own total Stripe confirms as paid. Taxes come last.

        One that is paid may be so in part by credit that Stripe kept for the customer: it is paid all the same.
        """
        asked_minor = invoice.total_minor - invoice.credited_minor
        return asked_minor if self.status == "paid" else max(0, min(self.paid_minor, asked_minor))


def note(found: Any) -> Note:
    """Of the SDK's object."""
    kind: Literal["less_due", "given_back", "mixed"] = "given_back"
    if found.pre_payment_amount:
        kind = "mixed" if found.post_payment_amount else "less_due"
    net_minor = found.total - sum(tax.amount for tax in found.total_taxes or [] if tax.tax_behavior == "exclusive")
    refunds = tuple((_id_of(each.refund) or "", each.amount_refunded) for each in found.refunds or [])
    our_id = metadata_of(found).get(NOTE_KEY)
    return Note(found.id, found.number, found.status == "void", kind, net_minor, found.total, refunds, our_id)


def seen(found: Any, asked_at: datetime | None = None) -> Seen:
    """Of the SDK's object, which Stripe was asked for at `asked_at`, or after it."""
    stamps = found.status_transitions
    taxes = [tax for tax in found.total_taxes or [] if tax.tax_behavior == "exclusive"]
    finalized_at = _instant(stamps.finalized_at)
    due_at = _instant(found.due_date)
    if due_at is None and finalized_at is not None:
        due_at = finalized_at + _AUTOMATIC_DUE_AFTER
    return Seen(
        id=found.id,
        our_id=metadata_of(found).get(ID_KEY),
        customer_id=_id_of(found.customer),
        currency=found.currency.upper(),
        status=found.status,
        subtotal_minor=found.subtotal,
        total_minor=found.total,
        tax_minor=sum(tax.amount for tax in taxes),
        paid_minor=found.amount_paid,
        remaining_minor=found.amount_remaining,
        overpaid_minor=found.amount_overpaid or 0,
        off_stripe_minor=getattr(found, "amount_paid_off_stripe", 0) or 0,
        has_notes=bool(found.pre_payment_credit_notes_amount or found.post_payment_credit_notes_amount),
        number=found.number,
        hosted_url=found.hosted_invoice_url,
        pdf_url=found.invoice_pdf,
        created_at=datetime.fromtimestamp(found.created, UTC),
        finalized_at=finalized_at,
        due_at=due_at,
        ended_at=_instant(stamps.paid_at) or _instant(stamps.voided_at),
        revised_id=_id_of(found.latest_revision),
        asked_at=asked_at,
    )


def metadata_of(found: Any) -> dict[str, str]:
    """Of any of the SDK's objects."""
    return found.metadata.to_dict() if found.metadata else {}


def disagreements(invoice: Invoice, found: Seen) -> list[str]:
    """What Stripe has otherwise than we asked for: nothing may be issued then.

    The lines were asked for in whole minor units, so that Stripe has nothing to round and no difference is too small.
    """
    wanted = {
        "our id": (shown_id(invoice), found.our_id),
        "the customer": (invoice.stripe_customer_id, found.customer_id),
        "the currency": (invoice.currency, found.currency),
        "the sum of the lines": (invoice.total_minor, found.subtotal_minor),
        "the total with taxes": (found.subtotal_minor + found.tax_minor, found.total_minor),
    }
    return [f"{name} is {there}, not {ours}" for name, (ours, there) in wanted.items() if ours != there]


def _id_of(found: Any) -> str | None:
    """Of what Stripe shows by its id, or in full where that was asked for."""
    return found if isinstance(found, str) or found is None else str(found.id)


def _instant(unix_s: int | None) -> datetime | None:
    return datetime.fromtimestamp(unix_s, UTC) if unix_s else None
