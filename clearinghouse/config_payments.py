"""Settings of payments: how gateways buy credit through Stripe. See config.py."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from clearinghouse.config_section import Section
from clearinghouse.config_values import COMMA_LIST, Whole, http_url

#: Stripe's names of what its page may take; `automatic` leaves that to Stripe's dashboard.
PageMethod = Literal["automatic", "card", "link", "us_bank_account", "sepa_debit", "bacs_debit"]
TransferCurrency = Literal["EUR", "GBP", "JPY", "MXN", "USD"]
_Method = TypeVar("_Method", bound=str)


def _return_url(text: str) -> str:
    parts = http_url(text)
    if parts is None or parts.username is not None or parts.fragment:
        raise ValueError("an http or https URL is needed, without user and fragment")
    return text


def checked_methods(methods: tuple[_Method, ...]) -> tuple[_Method, ...]:
    """Raises ValueError where they cannot be meant."""
    if not methods:
        raise ValueError("at least one is needed, or automatic")
    if "automatic" in methods and len(methods) > 1:
        raise ValueError("automatic stands alone: then Stripe's dashboard says which methods there are")
    if len(set(methods)) != len(methods):
        raise ValueError("one of them is named twice")
    return methods


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
    checkout_methods: Annotated[tuple[PageMethod, ...], COMMA_LIST, AfterValidator(checked_methods)] = Field(
        default=("card",),
        description="What Stripe's page takes, each where it fits the account's currency (us_bank_account USD, "
        "sepa_debit EUR, bacs_debit GBP); or automatic alone: what Stripe's dashboard has switched on.",
    )
    eu_bank_country: Literal["BE", "DE", "ES", "FR", "IE", "NL"] = Field(
        default="DE", description="Where the account is whose IBAN gateways are shown for transfers in euro."
    )
    transfer_currencies: Annotated[tuple[TransferCurrency, ...], COMMA_LIST] = Field(
        default=("EUR", "GBP", "JPY", "MXN", "USD"),
        description="In which currencies the account at Stripe takes bank transfers, for top-ups and for invoices: "
        "that follows from its country.",
    )
    transfer_days: Annotated[Whole, Field(ge=1, le=180)] = Field(
        default=30, description="How long a bank transfer that was announced is waited for."
    )
    refills_every_s: Annotated[Whole, Field(ge=1, le=3600)] = Field(
        default=10, description="How often it is looked whose balance is low enough for an automatic top-up."
    )
