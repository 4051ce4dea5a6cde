from __future__ import annotations

from decimal import Decimal, Inexact

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.errors import InvalidRequest
from clearinghouse.ledger.money import EXACT, parse_amount, parse_currency, show_amount

AMOUNTS = st.integers(-(10**74), 10**74).flatmap(
    lambda units: st.integers(0, 34).map(lambda places: EXACT.scaleb(Decimal(units), -places))
)


@pytest.mark.parametrize(
    ("amount", "text"),
    [("9.987700", "9.9877"), ("0", "0"), ("0E-34", "0"), ("-0.00", "0"), ("-3.50", "-3.5"), ("100", "100"),
     ("1E+3", "1000"), ("1E-34", "0." + "0" * 33 + "1"), ("120.0", "120")],
)  # fmt: skip
def test_amounts_are_shown_plainly(amount: str, text: str) -> None:
    assert show_amount(Decimal(amount)) == text


@given(AMOUNTS)
def test_showing_an_amount_loses_no_digit(amount: Decimal) -> None:
    text = show_amount(amount)
    assert Decimal(text) == amount
    assert "E" not in text
    assert not (("." in text) and text.endswith(("0", ".")))


@pytest.mark.parametrize("nothing", ["NaN", "Infinity", "-Infinity", "sNaN"])
def test_what_is_no_amount_is_not_shown(nothing: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        show_amount(Decimal(nothing))


@given(st.decimals(min_value=0, max_value=10**14, places=12).filter(bool))
def test_what_is_shown_can_be_typed(amount: Decimal) -> None:
    assert parse_amount(show_amount(amount), currency="USD") == amount


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "-1", "1e3", "1,000", "1_000", ".5", "5.", "0x10", "٣", "NaN", "inf", "1.2.3", "1\n"]
)
def test_only_plain_decimals_are_amounts(text: str) -> None:
    with pytest.raises(InvalidRequest, match="plain decimal number"):
        parse_amount(text, currency="USD")


def test_a_huge_text_is_refused_without_being_repeated() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_amount("1" * 10_000, currency="USD")
    assert len(str(refused.value)) < 200


def test_an_amount_of_zero_is_refused_unless_asked_for() -> None:
    with pytest.raises(InvalidRequest, match="greater than 0"):
        parse_amount("0.00", currency="USD")
    assert parse_amount("0.00", currency="USD", may_be_zero=True) == 0


def test_one_wei_is_the_finest_amount_of_eth_and_twelve_decimals_of_other_money() -> None:
    assert parse_amount("0." + "0" * 17 + "1", currency="ETH") == Decimal("1e-18")
    assert parse_amount("0.000000000001", currency="USD") == Decimal("1e-12")
    with pytest.raises(InvalidRequest, match="at most 12 decimals"):
        parse_amount("0.0000000000001", currency="USD")
    with pytest.raises(InvalidRequest, match="at most 18 decimals"):
        parse_amount("0." + "0" * 18 + "1", currency="ETH")


def test_amounts_are_bounded() -> None:
    assert parse_amount("0" * 20 + "9" * 15, currency="USD") == 10**15 - 1
    with pytest.raises(InvalidRequest, match="too large"):
        parse_amount("1" + "0" * 15, currency="USD")


def test_currencies_are_three_to_eight_capitals() -> None:
    assert [parse_currency(text) for text in ("USD", "ETH", "LONGNAME")] == ["USD", "ETH", "LONGNAME"]
    for text in ("", "US", "usd", "US1", "TOOLONGNAME", "USD ", "ÜSD"):
        with pytest.raises(InvalidRequest, match="3 to 8 capital letters"):
            parse_currency(text)
    with pytest.raises(InvalidRequest, match="did you mean USD"):
        parse_currency("usd")


def test_exact_arithmetic_refuses_to_round() -> None:
    with pytest.raises(Inexact):
        EXACT.divide(Decimal(1), Decimal(3))
