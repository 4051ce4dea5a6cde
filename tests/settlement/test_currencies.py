"""Currencies are counted as Stripe counts them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from clearinghouse.errors import InvalidRequest
from settlement.currencies import account_currency, currency
from settlement.rounding import from_minor, to_minor
from settlement.stripe_local import money


@pytest.mark.parametrize(
    ("code", "amount", "minor", "paid"),
    [
        ("USD", "10.005", 1001, "10.01"),
        ("JPY", "10.5", 11, "11"),
        ("KRW", "0.4", 0, "0"),
        ("ISK", "5.5", 600, "6"),  # in hundredths, and whole
        ("UGX", "5.49", 500, "5"),
        ("KWD", "5.125", 5130, "5.13"),  # in thousandths, and the last is 0
        ("HUF", "10.45", 1045, "10.45"),  # only payouts are whole
        ("TWD", "10.45", 1045, "10.45"),
    ],
)
def test_an_amount_is_what_stripe_would_be_asked_for(code: str, amount: str, minor: int, paid: str) -> None:
    assert to_minor(Decimal(amount), currency(code)) == minor
    assert from_minor(minor, currency(code)) == Decimal(paid)


@pytest.mark.parametrize("code", ["ETH", "usd", "US", "XTS", "", "XAU"])
def test_what_nobody_pays_invoices_in_is_refused(code: str) -> None:
    with pytest.raises(InvalidRequest, match="in capitals"):
        currency(code)


@pytest.mark.parametrize("code", ["CHF", "DKK", "EUR", "GBP", "HUF", "JPY", "PLN", "SEK", "USD"])
def test_the_least_that_can_be_charged_is_what_the_local_stripe_takes(code: str) -> None:
    minimum_minor = currency(code).minimum_minor
    assert minimum_minor == money.minimum_charge(code.lower())


def test_the_least_is_not_guessed_where_it_depends_on_a_rate() -> None:
    assert currency("BHD").minimum_minor is None
    assert currency("ISK").minimum_minor is None


@pytest.mark.parametrize(
    ("code", "shown_decimals"), [("USD", 2), ("JPY", 0), ("ISK", 0), ("KWD", 3), ("ETH", 18), ("USDC", 6)]
)
def test_amounts_of_any_account_can_be_shown(code: str, shown_decimals: int) -> None:
    assert account_currency(code).shown_decimals == shown_decimals
