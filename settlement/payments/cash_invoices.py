"""Open invoices, and the cash balance of who is to pay them.

Stripe pays them from it by itself, in its own order, as soon as it is enough for one. It leaves to us what has been
overdue for a month or was given up as uncollectible, and to a person what takes no transfers: how an invoice is paid
was settled when it was issued.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import stripe

from settlement.payments.amounts import show
from settlement.payments.bank_transfers import CASH_BALANCE
from settlement.payments.fetched import fetch, id_of
from settlement.stripe_link.client import StripeRefused
from settlement.stripe_link.desk import Desk, Park

#: From then on Stripe leaves an invoice alone: docs.stripe.com/payments/customer-balance/reconciliation.
_OVERDUE_MAX: Final = timedelta(days=30)
#: One that is charged by itself is open for a moment, and no person has to look at that.
_BEING_CHARGED: Final = timedelta(hours=1)
#: What was given up as uncollectible is owed as before, and holds its gateway until it is paid.
_STILL_ASKING: Final = ("open", "uncollectible")
_WAITS: Final = "what is left in the cash balance waits for open invoices"


async def pay_open_invoices(desk: Desk, customer_id: str, left_minor: int, currency: str) -> str | None:
    """None where no invoice asks for anything: then what is left waits for nothing. Else one line of what became of it.

    Parks as long as there is enough for one that cannot be paid from it.
    """
    link = desk.link
    waiting = [
        one
        for status in _STILL_ASKING
        async for one in link.each(
            link.client.v1.invoices.list_async, params={"customer": customer_id, "status": status}
        )
    ]
    if not waiting:
        return None
    payable = [one for one in waiting if one.currency.upper() == currency and one.amount_remaining <= left_minor]
    if not payable or await _is_done_by_hand(desk, customer_id):
        return _WAITS
    now, stuck = await desk.now(), list[str]()
    for invoice in sorted(payable, key=lambda one: (one.amount_remaining != left_minor, _finalized_at(one))):
        intent = await _intent_of(desk, invoice)
        if intent is None or CASH_BALANCE not in (intent.allowed_payment_method_types or ()):
            if now - _finalized_at(invoice) > _BEING_CHARGED and await _still_asks(desk, invoice):
                stuck.append(invoice.number or invoice.id)
        elif _is_left_to_us(invoice, now):
            await _apply(desk, invoice, intent)
            return f"{invoice.number} is paid from the cash balance"  # and what is left, with the event of that
    if stuck:
        raise Park(
            f"{show(left_minor, currency)} is in the cash balance, and {', '.join(stuck)} takes no bank transfer: "
            "charge it from there in Stripe's dashboard (Charge customer, Cash balance), or void it"
        )
    return _WAITS


async def _is_done_by_hand(desk: Desk, customer_id: str) -> bool:
    """Somebody has told Stripe that people apply what comes."""
    cash = await fetch(desk, desk.link.client.v1.customers.cash_balance.retrieve_async, customer_id)
    return cash.settings.reconciliation_mode == "manual"


async def _still_asks(desk: Desk, invoice: stripe.Invoice) -> bool:
    """Now: one that was paid since it was listed has no intent any more, and needs nobody."""
    return (await fetch(desk, desk.link.client.v1.invoices.retrieve_async, str(invoice.id))).status in _STILL_ASKING


def _is_left_to_us(invoice: stripe.Invoice, now: datetime) -> bool:
    """Stripe pays only what is open, and not long overdue."""
    if invoice.status == "uncollectible":
        return True
    return invoice.due_date is not None and now - datetime.fromtimestamp(invoice.due_date, UTC) > _OVERDUE_MAX


async def _intent_of(desk: Desk, invoice: stripe.Invoice) -> stripe.PaymentIntent | None:
    """By which it is to be paid."""
    client = desk.link.client.v1
    asked = {"invoice": invoice.id, "status": "open"}
    for one in (await desk.link.call(client.invoice_payments.list_async, params=asked)).data:
        if (intent_id := id_of(one.payment.payment_intent)) is not None:
            return await fetch(desk, client.payment_intents.retrieve_async, intent_id)
    return None


async def _apply(desk: Desk, invoice: stripe.Invoice, intent: stripe.PaymentIntent) -> None:
    """All that it asks for. Stripe takes it once, whoever asks how often: an intent that is paid is refused."""
    client = desk.link.client.v1
    try:
        await desk.link.call(client.payment_intents.apply_customer_balance_async, intent.id)
    except StripeRefused as refused:
        if (await fetch(desk, client.invoices.retrieve_async, str(invoice.id))).status != "paid":
            raise Park(f"Stripe does not pay {invoice.number} from the cash balance: {refused.message}") from refused


def _finalized_at(invoice: stripe.Invoice) -> datetime:
    return datetime.fromtimestamp(invoice.status_transitions.finalized_at or invoice.created, UTC)
