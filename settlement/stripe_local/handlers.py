"""Every call that this server does, by its name in Stripe's description."""

from __future__ import annotations

from typing import Final

from settlement.stripe_local import (
    bank_transfers,
    catalogue,
    charges,
    checkout,
    credit_notes,
    customers,
    disputes,
    events,
    invoice_items,
    invoice_paying,
    invoices,
    payment_intents,
    payment_methods,
    payouts,
    refunds,
    setup_intents,
)
from settlement.stripe_local.desk import Handler

HANDLERS: Final[dict[str, Handler]] = {
    **bank_transfers.HANDLERS,
    **catalogue.HANDLERS,
    **charges.HANDLERS,
    **checkout.HANDLERS,
    **credit_notes.HANDLERS,
    **customers.HANDLERS,
    **disputes.HANDLERS,
    **events.HANDLERS,
    **invoice_items.HANDLERS,
    **invoice_paying.HANDLERS,
    **invoices.HANDLERS,
    **payment_intents.HANDLERS,
    **payment_methods.HANDLERS,
    **payouts.HANDLERS,
    **refunds.HANDLERS,
    **setup_intents.HANDLERS,
}
