"""Average prices and margins are exact, and gateways add up to their total, whatever the amounts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.treasury.margins import Used, margin_of, price_of, prices_by_currency, to_decimals, total_of
from settlement.treasury.records import Trade

#: Of each currency how many minor units are one.
UNITS: Final = {"USD": 100, "JPY": 1, "KWD": 1000}
WEI: Final = st.integers(1, 10**24)
#: As charges are: with up to 34 decimals.
AMOUNTS: Final = st.integers(0, 10**48).map(lambda grains: Decimal(grains).scaleb(-34))
TRADES: Final = st.lists(st.tuples(st.sampled_from(sorted(UNITS)), st.integers(1, 10**14), WEI), max_size=6)
USED: Final = st.lists(st.tuples(WEI, AMOUNTS, AMOUNTS, AMOUNTS), min_size=1, max_size=6)


def trade(currency: str, paid_minor: int, bought_wei: int) -> Trade:
    return Trade("kraken", "TX-1", currency, paid_minor, 0, bought_wei, datetime(2026, 10, 5, tzinfo=UTC))


@given(TRADES, USED)
def test_all_that_was_paid_is_what_all_that_was_bought_did_cost_and_gateways_add_up(
    bought: list[tuple[str, int, int]], used: list[tuple[int, Decimal, Decimal, Decimal]]
) -> None:
    prices = prices_by_currency(trade(*each) for each in bought)
    assert prices.pop("ETH") == 1
    for currency, price in prices.items():
        paid = sum(Fraction(minor, UNITS[currency]) for code, minor, _ in bought if code == currency)
        assert price * sum(wei for code, _, wei in bought if code == currency) == paid * 10**18

    price = prices.get("USD")
    parts = [Used("USD", 1, wei, charged, rerated, cost) for wei, charged, rerated, cost in used]
    margins, total = [margin_of(each, price) for each in parts], margin_of(total_of(parts), price)
    assert Fraction(total.as_priced) == sum(Fraction(each.as_priced) for each in margins)
    assert Fraction(total.as_priced) == sum(Fraction(a) + Fraction(b) - Fraction(c) for _, a, b, c in used)
    if price is None:
        assert total.as_bought is None
    else:
        assert total.as_bought == sum(each.as_bought for each in margins if each.as_bought is not None)
        assert total.cost_as_bought == sum(wei for wei, *_ in used) * price / 10**18


@pytest.mark.parametrize(
    ("value", "shown"),
    [(Fraction(1, 3), "0.33"), (Fraction(-1, 200), "-0.01"), (Fraction(1, 200), "0.01"), (Fraction(-1, 201), "0.00")],
)
def test_what_is_shown_is_rounded_half_away_from_zero(value: Fraction, shown: str) -> None:
    assert f"{to_decimals(value, 2):f}" == shown


def test_amounts_of_different_currencies_have_no_average_price() -> None:
    with pytest.raises(AssertionError, match="different currencies"):
        price_of([trade("USD", 1, 1), trade("JPY", 1, 1)])
