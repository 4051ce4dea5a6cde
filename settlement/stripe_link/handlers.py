"""Which handler takes care of which type of Stripe's objects, by the name in `object`. What has none needs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from settlement.customers.stripe_copy import heard_of_customer
from settlement.invoices.handler import heard_of_credit_note, heard_of_invoice, invoices_not_final
from settlement.payments import handlers as payments
from settlement.stripe_link.desk import Handler, Sweepable

HANDLERS: Final[Mapping[str, Handler]] = {
    "credit_note": heard_of_credit_note,
    "customer": heard_of_customer,
    "invoice": heard_of_invoice,
    **payments.HANDLERS,
}

#: What may have changed at Stripe without our hearing of it, by the type of the object. Each type here has a handler.
SWEEPABLES: Final[Mapping[str, Sweepable]] = {"invoice": invoices_not_final, **payments.SWEEPABLES}
