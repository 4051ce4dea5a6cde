"""Settings of invoices. See config.py."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from clearinghouse.config_section import Section
from clearinghouse.config_values import Whole


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
    in_flight_count: Annotated[Whole, Field(ge=1, le=64)] = Field(
        default=32,
        description="How many invoices are made at the same time. stripe.writes_per_s bounds what that asks of Stripe; "
        "too few do not reach it, since each waits for Stripe's answers.",
    )
