"""Prices: exact, dated, and refused when too old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from chain.rates import DeclaredPrices, EthPrice, FreshPrices, PriceUnknown

NOON = datetime(2026, 4, 7, 12, tzinfo=UTC)


class Feed:
    """Gives one price, observed at noon."""

    def price(self, currency: str) -> EthPrice:
        return EthPrice(currency, Decimal("3000.5"), "feed", NOON)


def at(seconds: int) -> FreshPrices:
    return FreshPrices(Feed(), max_age_s=300, now=lambda: NOON + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [0, 300, -300])
def test_a_fresh_price_is_given_as_it_was_observed(seconds: int) -> None:
    assert at(seconds).price("USD") == EthPrice("USD", Decimal("3000.5"), "feed", NOON)


@pytest.mark.parametrize("seconds", [301, -301])
def test_a_price_too_old_or_from_the_future_is_no_price(seconds: int) -> None:
    with pytest.raises(PriceUnknown, match="300 s are allowed"):
        at(seconds).price("USD")


def test_a_declared_price_does_not_age() -> None:
    declared = DeclaredPrices({"USD": Decimal(3000)}, declared_at=NOON)
    years_later = FreshPrices(declared, max_age_s=1, now=lambda: NOON + timedelta(days=1000))
    assert years_later.price("USD").value == 3000
    assert years_later.price("ETH").value == 1


def test_a_currency_without_a_declared_price_has_none() -> None:
    with pytest.raises(PriceUnknown, match="JPY"):
        DeclaredPrices({}, declared_at=NOON).price("JPY")


@pytest.mark.parametrize("value", ["0", "-1", "NaN", "Infinity", "1e-13", "1e13"])
def test_what_is_no_price_or_cannot_be_exact_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="price of ETH in USD"):
        EthPrice("USD", Decimal(value), "feed", NOON)


def test_a_price_needs_a_time_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        EthPrice("USD", Decimal(1), "feed", datetime(2026, 4, 7))  # noqa: DTZ001
