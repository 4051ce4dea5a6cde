"""Rounded once, visibly, and nothing is lost: checked with fractions of whole numbers."""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.currencies import Currency, currency
from settlement.rounding import (
    DoesNotAddUp,
    average_rate,
    bill,
    from_minor,
    round_lines,
    rounded,
    rounding_line,
    to_minor,
)

CURRENCIES = st.sampled_from([currency(code) for code in ("USD", "JPY", "ISK", "UGX", "KWD")])
USD = currency("USD")


WIDE = Context(prec=200)


def exact(digits: int, places: int) -> Decimal:
    return Decimal(digits).scaleb(-places, context=WIDE)


#: Charges as they are made, wei x price x markup, and amounts that lie on or beside the half of a unit.
AMOUNTS = st.one_of(
    st.builds(exact, st.integers(-(10**33), 10**33), st.integers(0, 34)),
    st.builds(exact, st.integers(-2000, 2000), st.integers(0, 4)),
    st.builds(Decimal, st.sampled_from(["0.005", "-0.005", "0.5", "-0.5", "2.5", "0.004999999999", "0", "-0"])),
)
LINES = st.lists(AMOUNTS, max_size=12)


def total_of(amounts: list[Decimal]) -> Decimal:
    """By fractions, so that no context can lose a digit."""
    total = sum(map(Fraction, amounts), Fraction(0))
    return Decimal(int(total * 10**34)).scaleb(-34, context=WIDE)


def by_hand(amount: Decimal, unit: Fraction) -> Fraction:
    """Half away from zero."""
    units = floor(abs(Fraction(amount)) / unit + Fraction(1, 2))
    return units * unit if amount > 0 else -units * unit


@given(amount=AMOUNTS, money=CURRENCIES)
def test_an_amount_is_rounded_half_away_from_zero_to_what_can_be_paid(amount: Decimal, money: Currency) -> None:
    minor = to_minor(amount, money)
    assert Fraction(minor, 10**money.decimals) == by_hand(amount, Fraction(money.unit))
    assert minor % money.unit_minor == 0
    assert to_minor(from_minor(minor, money), money) == minor
    assert to_minor(amount.copy_negate(), money) == -minor


@given(amounts=LINES, money=CURRENCIES)
def test_lines_and_their_rounding_are_the_total_and_the_remainder_is_the_rest(
    amounts: list[Decimal], money: Currency
) -> None:
    made = round_lines(amounts, ledger_total=total_of(amounts), currency=money)
    assert made.lines_minor == tuple(to_minor(amount, money) for amount in amounts)
    assert sum(made.lines_minor) + made.rounding_minor == made.total_minor
    assert made.total_minor == to_minor(total_of(amounts), money)
    assert 2 * abs(made.rounding_minor) <= (len(amounts) + 1) * money.unit_minor, "half a unit for each, at most"
    paid = Fraction(made.total_minor, 10**money.decimals)
    assert paid + Fraction(made.remainder) == Fraction(made.exact) == sum(map(Fraction, amounts))
    assert 2 * abs(Fraction(made.remainder)) <= Fraction(money.unit)


@given(amounts=LINES, money=CURRENCIES, off=AMOUNTS.filter(bool))
def test_lines_that_are_not_what_the_books_say_are_never_issued(
    amounts: list[Decimal], money: Currency, off: Decimal
) -> None:
    ledger_total = total_of([*amounts, off])
    with pytest.raises(DoesNotAddUp, match="the books say"):
        round_lines(amounts, ledger_total=ledger_total, currency=money)
    with pytest.raises(DoesNotAddUp, match="the books say"):
        bill(amounts, ledger_total=ledger_total, carried=Decimal(0), minimum_minor=10**9, currency=money)


def test_the_last_digit_of_the_books_counts() -> None:
    amounts = [Decimal(10**15), exact(1, 34), Decimal(1)]
    assert round_lines(amounts, ledger_total=total_of(amounts), currency=USD).remainder == exact(1, 34)
    with pytest.raises(DoesNotAddUp):
        round_lines(amounts, ledger_total=Decimal("1000000000000001"), currency=USD)


@pytest.mark.parametrize(
    ("lines_minor", "difference"), [([333, 333, 333], 1), ([334, 334, 335], -3), ([332, 332, 333], 3)]
)
def test_rounding_by_others_is_believed_up_to_one_unit_a_line(lines_minor: list[int], difference: int) -> None:
    assert rounding_line(lines_minor, exact_total=Decimal("10.0047"), currency=USD) == difference


@pytest.mark.parametrize("lines_minor", [[335, 335, 334], [332, 332, 332], [1004 - 4 + 2], []])
def test_a_difference_of_more_than_one_unit_a_line_is_a_bug(lines_minor: list[int]) -> None:
    with pytest.raises(DoesNotAddUp, match="not rounding"):
        rounding_line(lines_minor, exact_total=Decimal("10.0047"), currency=USD)


def test_a_unit_is_what_can_be_paid_not_what_is_counted() -> None:
    assert rounding_line([500], exact_total=Decimal(6), currency=currency("ISK")) == 100
    with pytest.raises(DoesNotAddUp):
        rounding_line([400], exact_total=Decimal(6), currency=currency("ISK"))


@given(
    periods=st.lists(LINES, max_size=6),
    money=CURRENCIES,
    minimum_units=st.integers(0, 10**5),
)
def test_over_all_periods_what_was_used_is_what_was_charged_remained_and_is_carried(
    periods: list[list[Decimal]], money: Currency, minimum_units: int
) -> None:
    minimum_minor = minimum_units * money.unit_minor
    carried, charged, remained = Decimal(0), Fraction(0), Fraction(0)
    for amounts in periods:
        made = bill(
            amounts, ledger_total=total_of(amounts), carried=carried, minimum_minor=minimum_minor, currency=money
        )
        if made.invoice is not None:
            assert made.invoice.total_minor >= max(minimum_minor, 1)
            assert len(made.invoice.lines_minor) == len(amounts) + bool(carried)
            assert made.carried_forward == 0
            charged += Fraction(made.invoice.total_minor, 10**money.decimals)
            remained += Fraction(made.invoice.remainder)
        else:
            assert to_minor(made.carried_forward, money) < max(minimum_minor, money.unit_minor)
        carried = made.carried_forward
    used = sum((Fraction(amount) for amounts in periods for amount in amounts), Fraction(0))
    assert charged + remained + Fraction(carried) == used


def test_what_is_too_little_comes_with_the_next_invoice_as_its_last_line() -> None:
    small = Decimal("0.4949")
    first = bill([small], ledger_total=small, carried=Decimal(0), minimum_minor=50, currency=USD)
    assert (first.invoice, first.carried_forward) == (None, small)
    second = bill([small], ledger_total=small, carried=first.carried_forward, minimum_minor=50, currency=USD)
    assert second.invoice is not None
    assert second.invoice.lines_minor == (49, 49)
    assert (second.invoice.rounding_minor, second.invoice.total_minor) == (1, 99)
    assert second.invoice.remainder == Decimal("-0.0002")
    assert second.carried_forward == 0


def test_exactly_the_least_is_charged() -> None:
    amount = Decimal("0.495")  # 0.50 when rounded
    made = bill([amount], ledger_total=amount, carried=Decimal(0), minimum_minor=50, currency=USD)
    assert made.invoice is not None
    assert made.invoice.total_minor == 50


def test_credit_and_nothing_are_carried_and_not_charged() -> None:
    credit = bill([Decimal(-3)], ledger_total=Decimal(-3), carried=Decimal(1), minimum_minor=0, currency=USD)
    assert (credit.invoice, credit.carried_forward) == (None, Decimal(-2))
    nothing = bill([], ledger_total=Decimal(0), carried=Decimal(0), minimum_minor=0, currency=USD)
    assert (nothing.invoice, nothing.carried_forward) == (None, Decimal(0))


@pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_what_is_no_amount_is_an_error(amount: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        to_minor(Decimal(amount), USD)
    with pytest.raises(ValueError, match="no amount"):
        round_lines([Decimal(amount)], ledger_total=Decimal(0), currency=USD)


def test_the_least_is_not_negative() -> None:
    with pytest.raises(ValueError, match="below 0"):
        bill([], ledger_total=Decimal(0), carried=Decimal(0), minimum_minor=-1, currency=USD)


@given(amount=AMOUNTS, decimals=st.integers(0, 18))
def test_half_is_rounded_away_from_zero_and_nothing_else_is_moved(amount: Decimal, decimals: int) -> None:
    shown = rounded(amount, decimals)
    assert Fraction(shown) == by_hand(amount, Fraction(1, 10**decimals))
    assert shown.as_tuple().exponent == -decimals
    assert not str(shown).startswith("-0") or shown


@pytest.mark.parametrize(
    ("amount", "shown"), [("0.005", "0.01"), ("-0.005", "-0.01"), ("-0.0049", "0.00"), ("2.675", "2.68")]
)
def test_rounding_by_example(amount: str, shown: str) -> None:
    assert str(rounded(Decimal(amount), 2)) == shown


def test_an_average_rate_has_six_digits_wherever_they_begin() -> None:
    assert average_rate(Decimal("12.005"), Decimal("55296000000")) == Decimal("2.17104E-10")
    assert average_rate(Decimal("100"), Decimal("3")) == Decimal("33.3333")
    assert average_rate(Decimal("1"), Decimal("0")) is None
