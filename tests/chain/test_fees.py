"""Units, fees, ticket counts and price limits."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.fees import (
    JobTypeError,
    MaxPrice,
    PriceFormatError,
    balance_after,
    billable_units,
    fee_wei,
    parse_max_price,
    tickets_needed,
)
from chain.messages import Price

S = 1_000_000_000
CERTAIN = 2**256 - 1
RATIONALS = st.fractions(min_value=-(10**30), max_value=10**30, max_denominator=10**24)


@pytest.mark.parametrize(
    ("job_type", "elapsed_ns", "in_pixels", "units"),
    [
        ("lv2v", 0, 0, 1_658_880_000),
        ("lv2v", -1, 0, 1_658_880_000),
        ("lv2v", 60 * S, 0, 1_658_880_000),
        ("lv2v", 5_123_456_789, 0, 141_653_333),
        ("lv2v", 1, 0, 0),
        ("lv2v", 36, 0, 0),
        ("lv2v", 37, 0, 1),
        ("lv2v", 140_625, 0, 3887),  # exactly 3888; binary64 falls just short of it, and Go truncates
        ("lv2v", 1_032_156_250, 0, 28_537_055),  # 28537056 if the nanoseconds were divided in one step
        ("lv2v", 1_032_296_875, 0, 28_540_944),  # 28540943 likewise
        ("live", 0, 0, 10),
        ("live", -5 * S, 0, 10),
        ("live", 1, 0, 1),
        ("live", 12 * S, 0, 12),
        ("live", 12 * S + 1, 0, 13),
        ("fixed", 99 * S, 1_000_000, 1),
        ("fixed", 0, 0, 1),
        ("", 99 * S, 1000, 1000),
        ("", 0, 0, 0),
    ],
)
def test_billable_units(job_type: str, elapsed_ns: int, in_pixels: int, units: int) -> None:
    assert billable_units(job_type, elapsed_ns, in_pixels) == units


@pytest.mark.parametrize("job_type", ["bogus", "LIVE", "live "])
def test_another_job_type_is_refused(job_type: str) -> None:
    with pytest.raises(JobTypeError, match="invalid job type"):
        billable_units(job_type, 0, 1)


def _binary64(exact: Fraction) -> Fraction:
    """The nearest number with 53 significant bits, ties to even: what one step of Go's arithmetic leaves."""
    if exact == 0:
        return exact
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length() - 53
    for shift in (exponent, exponent + 1):
        scaled = exact / Fraction(2) ** shift
        whole = round(scaled)  # Fraction rounds half to even
        if whole <= 2**53:
            return whole * Fraction(2) ** shift
    raise AssertionError(exact)


#: Durations that make a whole number of pixels: the only ones where rounding decides.
WHOLE_PIXELS_NS = st.integers(1, 10**8).map(lambda count: count * 15_625)


@given(st.one_of(st.integers(1, 10**12), st.integers(1, 2**63 - 1), WHOLE_PIXELS_NS))
def test_units_are_what_binary64_arithmetic_gives_step_by_step(elapsed_ns: int) -> None:
    whole_s, rest_ns = divmod(elapsed_ns, S)
    seconds = _binary64(_binary64(Fraction(whole_s)) + _binary64(Fraction(rest_ns, S)))
    pixels = _binary64(27_648_000 * seconds)
    assert billable_units("lv2v", elapsed_ns, 0) == pixels.numerator // pixels.denominator
    assert billable_units("live", elapsed_ns, 0) == -(-seconds.numerator // seconds.denominator)


def test_a_duration_saturates_where_gos_does() -> None:
    assert billable_units("live", 10**30, 0) == billable_units("live", 2**63 - 1, 0)


def test_a_fee_is_exact_at_the_initial_price() -> None:
    assert fee_wei(1000, Price(150, 175)) == Fraction(6000, 7)
    assert fee_wei(2500, Price(150, 175)) == Fraction(15000, 7)
    assert fee_wei(10, Price(3, 1)) == 30


@pytest.mark.parametrize(
    ("balance", "fee", "ev", "count"),
    [
        ("1", "5", "1", 4),
        ("1/4", "2", "1", 2),
        ("-5", "2", "1", 7),
        ("0", "2", "1", 2),
        ("2", "1", "1", 0),
        ("2", "2", "1", 0),
        ("0", "10", "5", 2),
        ("0", "4", "5", 1),
        ("0", "6000/7", "35", 25),
        ("125/7", "15000/7", "35", 61),
        ("0", "300", "35", 9),
        ("0", "30", "35", 1),
        ("5", "36", "35", 1),
        ("0", "3", "3", 1),
        ("1000", "1", "1", 0),
        ("0", "1000", "0", 0),
    ],
)
def test_tickets_needed(balance: str, fee: str, ev: str, count: int) -> None:
    assert tickets_needed(balance=Fraction(balance), fee=Fraction(fee), ev=Fraction(ev)) == count


@given(RATIONALS, RATIONALS.map(abs), RATIONALS.map(abs))
def test_tickets_needed_is_the_least_number_that_covers_fee_and_one_ticket(
    balance: Fraction, fee: Fraction, ev: Fraction
) -> None:
    count = tickets_needed(balance=balance, fee=fee, ev=ev)
    due = max(fee, ev)
    if ev == 0 or balance >= due:
        assert count == 0
    else:
        assert balance + count * ev >= due
        assert balance + (count - 1) * ev < due


class Unreduced(NamedTuple):
    numerator: int
    denominator: int


@given(RATIONALS, RATIONALS.map(abs), RATIONALS.map(abs), st.integers(1, 10**30))
def test_fractions_need_not_be_reduced(balance: Fraction, fee: Fraction, ev: Fraction, factor: int) -> None:
    unreduced = [Unreduced(part.numerator * factor, part.denominator * factor) for part in (balance, fee, ev)]
    count = tickets_needed(balance=unreduced[0], fee=unreduced[1], ev=unreduced[2])
    assert count == tickets_needed(balance=balance, fee=fee, ev=ev)


def test_a_number_of_tickets_beyond_64_bits_does_not_wrap() -> None:
    assert tickets_needed(balance=Fraction(0), fee=Fraction(2**64 + 1), ev=Fraction(1)) == 2**64 + 1
    assert tickets_needed(balance=Fraction(0), fee=Fraction(2**64), ev=Fraction(1)) == 2**64


def test_a_negative_expected_value_is_a_bug() -> None:
    with pytest.raises(ValueError, match="not negative"):
        tickets_needed(balance=Fraction(0), fee=Fraction(1), ev=Fraction(-1))


@pytest.mark.parametrize(
    ("price", "unit", "job_type", "value"),
    [
        ("101.2", "seconds", "live", Fraction(506, 5)),
        ("7", "720p-pixel-seconds", "lv2v", Fraction(7)),
        ("3", " Fixed ", "fixed", Fraction(3)),
        ("0.5", "fixed", "fixed", Fraction(1, 2)),
        ("1.25e3", "fixed", "fixed", Fraction(1250)),
        ("1E+2", "fixed", "fixed", Fraction(100)),
        ("12e-3", "fixed", "fixed", Fraction(12, 1000)),
        ("1e100", "fixed", "fixed", Fraction(10**100)),
    ],
)
def test_a_price_limit_is_read_exactly(price: str, unit: str, job_type: str, value: Fraction) -> None:
    assert parse_max_price(MaxPrice(price, " WEI ", unit), job_type) == value


@pytest.mark.parametrize(
    "price",
    [
        "wat",
        "",
        "-1",
        "0",
        "-0",
        "0.0",
        "0e5",
        "1/2",
        "01",
        "1.",
        ".5",
        "1e",
        "+1",
        " 1",
        "1_0",
        "١",
        "NaN",
        "0x10",
        "1\n",
    ],
)
def test_what_is_no_positive_decimal_is_no_price(price: str) -> None:
    with pytest.raises(PriceFormatError, match=r"^maxPrice\.price must be a positive decimal$"):
        parse_max_price(MaxPrice(price, "wei", "fixed"), "fixed")


@pytest.mark.parametrize(
    "price", ["1e999999", "1e-999999999", "1e999999999999999999", "1e101", "9" * 101, "1" + "0" * 10**6]
)
def test_a_price_that_would_fill_the_memory_is_refused_at_once_with_the_cap(price: str) -> None:
    begun_ns = time.perf_counter_ns()
    with pytest.raises(PriceFormatError, match=r"maxPrice\.price must be a positive decimal .*100"):
        parse_max_price(MaxPrice(price, "wei", "fixed"), "fixed")
    assert time.perf_counter_ns() - begun_ns < S


@pytest.mark.parametrize(
    ("limit", "job_type", "message"),
    [
        (MaxPrice("wat", "", ""), "", "maxPrice.price must be a positive decimal"),
        (MaxPrice("3", "", "fixed"), "fixed", "maxPrice.currency must be wei"),
        (MaxPrice("3", "usd", "fixed"), "", "maxPrice.currency must be wei"),
        (MaxPrice("3", "wei", "fixed"), "", "maxPrice requires payment type live, lv2v, or fixed"),
        (MaxPrice("3", "wei", "fixed"), "live", "maxPrice.unit must be seconds for payment type live"),
        (MaxPrice("3", "wei", ""), "lv2v", "maxPrice.unit must be 720p-pixel-seconds for payment type lv2v"),
        (MaxPrice("3", "wei", "seconds"), "fixed", "maxPrice.unit must be fixed for payment type fixed"),
    ],
)
def test_price_limits_are_checked_in_a_fixed_order(limit: MaxPrice, job_type: str, message: str) -> None:
    with pytest.raises(PriceFormatError) as refused:
        parse_max_price(limit, job_type)
    assert str(refused.value) == message


#: Tickets of any value, and those of a session: with real odds, and a balance of them less whole fees.
BALANCES_AND_EVS = st.tuples(RATIONALS, RATIONALS) | st.tuples(
    st.integers(0, 10**20), st.integers(1, CERTAIN).map(lambda win_prob: Fraction(10**16 * win_prob, CERTAIN))
).map(lambda drawn: (drawn[1] - drawn[0], drawn[1]))


@given(BALANCES_AND_EVS, RATIONALS, st.integers(0, 100))
def test_the_balance_after_a_payment_is_what_fractions_say(
    balance_and_ev: tuple[Fraction, Fraction], fee: Fraction, num_tickets: int
) -> None:
    balance, ev = balance_and_ev
    after = balance_after(balance=balance, num_tickets=num_tickets, ev=ev, fee=fee)
    assert str(after) == str(balance + num_tickets * ev - fee)  # in lowest terms: this is how a state has it
