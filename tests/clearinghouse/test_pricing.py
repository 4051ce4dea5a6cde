"""What a call costs: exact to the last digit, whatever the price and the markup."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from chain.rates import EthPrice
from clearinghouse.pricing import CHARGE_DECIMALS, charge

NOW = datetime(2026, 4, 7, tzinfo=UTC)
PRICES = st.decimals(Decimal("1e-12"), Decimal("1e9"), places=12, allow_nan=False)


@given(ev_wei=st.integers(1, 2**128), price=PRICES, markup_bps=st.integers(0, 1_000_000))
def test_a_charge_is_the_exact_product(ev_wei: int, price: Decimal, markup_bps: int) -> None:
    amount = charge(ev_wei, price=EthPrice("USD", price, "test", NOW), markup_bps=markup_bps, minimum_charge=Decimal(0))
    assert Fraction(amount) == Fraction(ev_wei, 10**18) * Fraction(price) * Fraction(10_000 + markup_bps, 10_000)
    assert -amount.as_tuple().exponent <= CHARGE_DECIMALS


@given(ev_wei=st.integers(1, 10**15), minimum=st.decimals(0, 10, places=6))
def test_a_charge_is_never_below_the_minimum(ev_wei: int, minimum: Decimal) -> None:
    price = EthPrice("USD", Decimal(3000), "test", NOW)
    amount = charge(ev_wei, price=price, markup_bps=0, minimum_charge=minimum)
    assert amount == max(minimum, charge(ev_wei, price=price, markup_bps=0, minimum_charge=Decimal(0)))


def test_a_charge_has_the_same_digits_however_its_price_is_written() -> None:
    """The one that is remembered stands for the others."""
    for price in ("3000", "3000.00", "3E+3"):
        amount = charge(
            10**9, price=EthPrice("USD", Decimal(price), "test", NOW), markup_bps=0, minimum_charge=Decimal(0)
        )
        assert str(amount) == "0.000003"
