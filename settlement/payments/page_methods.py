"""What Stripe's page takes of a payment: as the settings say, where it fits the currency.

A bank transfer is not among it: `bank_transfer` is a way of its own, with instructions that stay, and what comes
otherwise than it was announced becomes credit there (cash.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from clearinghouse.config_payments import PageMethod

#: Stripe refuses a whole page for one kind of debit that is in another currency.
_ONLY_IN: Final[dict[str, str]] = {"us_bank_account": "USD", "sepa_debit": "EUR", "bacs_debit": "GBP"}
_Method = TypeVar("_Method", bound=str)


def fitting(methods: Sequence[_Method], currency: str) -> list[_Method]:
    """Those that can be paid with in a currency; may be empty."""
    return [method for method in methods if _ONLY_IN.get(method, currency) == currency]


def page_takes(methods: Sequence[PageMethod], currency: str, *, saves_card: bool) -> dict[str, Any]:
    """The parameters of a page. With `automatic` nothing is named, which is how Stripe is told to choose itself.

    Only a card is saved: what has saved a bank account, no automatic top-up could charge.
    """
    saving = {"payment_method_options": {"card": {"setup_future_usage": "off_session"}}} if saves_card else {}
    if "automatic" in methods:
        return saving
    named = fitting(methods, currency)
    return {"allowed_payment_method_types": named} | (saving if "card" in named else {})
