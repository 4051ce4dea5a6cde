"""Settings of invoices. See config.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from clearinghouse.config_payments import PageMethod, checked_methods
from clearinghouse.config_section import Section
from clearinghouse.config_values import COMMA_LIST, Whole

#: What Stripe's page may take, and transfers, which Stripe calls `customer_balance`.
InvoiceMethod = Literal[PageMethod, "bank_transfer"]


class InvoiceSettings(Section):
    """Invoices through Stripe, for what closed periods owe: docs/invoices.md. They need stripe.api_key."""

    automatic: bool = Field(
        default=True,
        description="Whether `clearinghouse work` issues them by itself. If not, `clearinghouse invoices run` does; "
        "what was issued is followed either way.",
    )
    footer: Annotated[str, Field(max_length=5000)] = Field(
        default="", description="What stands at the bottom of every invoice, such as the issuer's registration."
    )
    payment_methods: Annotated[tuple[InvoiceMethod, ...], COMMA_LIST, AfterValidator(checked_methods)] = Field(
        default=("card", "bank_transfer"),
        description="By what an invoice that is sent can be paid, each where it fits the currency (bank_transfer where "
        "payments.transfer_currencies has it); or automatic alone: what Stripe's dashboard has switched on. What is "
        "named here has to be switched on there, too, or Stripe refuses the invoice.",
    )
    in_flight_count: Annotated[Whole, Field(ge=1, le=64)] = Field(
        default=32,
        description="How many invoices are made at the same time. stripe.writes_per_s bounds what that asks of Stripe; "
        "too few do not reach it, since each waits for Stripe's answers.",
    )
