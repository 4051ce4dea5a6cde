"""Settings of payments: how gateways buy credit through Stripe. See config.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from clearinghouse.config_section import Section
from clearinghouse.config_values import Whole, http_url


def _return_url(text: str) -> str:
    parts = http_url(text)
    if parts is None or parts.username is not None or parts.fragment:
        raise ValueError("an http or https URL is needed, without user and fragment")
    return text


ReturnUrl = Annotated[str, AfterValidator(_return_url)]


class PaymentSettings(Section):
    """How gateways buy credit: docs/payments.md. It needs [stripe]; what came by wire is entered without it."""

    return_url: ReturnUrl | None = Field(
        default=None,
        description="Where Stripe's pages lead back to, such as a console. Without it there are no links to pages.",
    )
    product_name: Annotated[str, Field(min_length=1, max_length=100)] = Field(
        default="Livepeer clearinghouse credit", description="What is bought, on Stripe's pages and receipts."
    )
    eu_bank_country: Literal["BE", "DE", "ES", "FR", "IE", "NL"] = Field(
        default="DE", description="Where the account is whose IBAN gateways are shown for transfers in euro."
    )
    transfer_days: Annotated[Whole, Field(ge=1, le=180)] = Field(
        default=30, description="How long a bank transfer that was announced is waited for."
    )
    refills_every_s: Annotated[Whole, Field(ge=1, le=3600)] = Field(
        default=10, description="How often it is looked whose balance is low enough for an automatic top-up."
    )
