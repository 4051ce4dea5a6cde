"""What Stripe is asked for a bank transfer, into which currency. Pure."""

from __future__ import annotations

from typing import Any, Final

from clearinghouse.config_payments import PaymentSettings, TransferCurrency

#: Stripe's name for whatever is paid from a customer's cash balance, which bank transfers go to.
CASH_BALANCE: Final = "customer_balance"
_KINDS: Final[dict[TransferCurrency, str]] = {
    "EUR": "eu_bank_transfer", "GBP": "gb_bank_transfer", "JPY": "jp_bank_transfer", "MXN": "mx_bank_transfer",
    "USD": "us_bank_transfer",
}  # fmt: skip


def transfer_options(currency: str, settings: PaymentSettings) -> dict[str, Any] | None:
    """Those of `customer_balance`, of a payment intent and of an invoice. None where no transfers are taken in it."""
    for code in settings.transfer_currencies:
        if code == currency:
            bank: dict[str, Any] = {"type": _KINDS[code]}
            if code == "EUR":
                bank["eu_bank_transfer"] = {"country": settings.eu_bank_country}
            return {"funding_type": "bank_transfer", "bank_transfer": bank}
    return None
