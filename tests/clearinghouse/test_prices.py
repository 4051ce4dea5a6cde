"""Prices in memory: which layer speaks, when it falls silent, and what a second opinion does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.chainlink import FeedReading
from chain.quorum import Block
from chain.rates import ETH, EthPrice, FreshPrices, PriceUnknown
from clearinghouse.prices import CheckedPrices, FedPrices, Opinion, OverriddenPrices, Override, compare

NOON = datetime(2026, 4, 7, 12, tzinfo=UTC)
BLOCK = Block(b"\x01" * 32, 7, 7, 1)


def price(value: str, currency: str = "USD", **more: Any) -> EthPrice:
    return EthPrice(currency, Decimal(value), "chainlink", NOON, **more)


def reading(*prices: EthPrice, **missing: str) -> FeedReading:
    return FeedReading(BLOCK, {each.currency: each for each in prices}, missing)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


# --- what the feed said -----------------------------------------------------------------------------------------------


def test_the_feeds_newest_word_is_the_price_and_eth_costs_one_eth() -> None:
    fed = FedPrices()
    with pytest.raises(PriceUnknown, match="not read yet"):
        fed.price("USD")
    fed.learn(reading(price("3000")))
    fed.learn(reading(price("3100.5")))
    assert fed.price("USD").value == Decimal("3100.5")
    assert fed.price(ETH).value == 1


def test_a_price_that_the_newest_reading_does_not_have_is_gone_at_once_and_says_why() -> None:
    fed = FedPrices()
    fed.learn(reading(price("3000")))
    fed.learn(reading(USD="the chain's sequencer is down"))
    with pytest.raises(PriceUnknown, match="sequencer is down"):
        fed.price("USD")
    with pytest.raises(PriceUnknown, match="no feed for the price of ETH in CHF"):
        fed.price("CHF")


def test_the_age_counts_from_when_the_feed_last_confirmed_its_price() -> None:
    clock = Clock()
    fed = FedPrices()
    fresh = FreshPrices(fed, max_age_s=300, now=clock)
    clock.advance(3000)
    fed.learn(reading(price("3000", confirmed_at=clock.now)))
    clock.advance(300)
    assert fresh.price("USD").observed_at == NOON
    clock.advance(1)
    with pytest.raises(PriceUnknown, match="301 s old"):
        fresh.price("USD")


# --- a second opinion -------------------------------------------------------------------------------------------------


def checked(fed: FedPrices, clock: Clock, how: Any = "refuse") -> CheckedPrices:
    return CheckedPrices(fed, max_bps=200, max_age_s=300, on_disagreement=how, now=clock)


@given(st.integers(1, 10**8), st.integers(1, 10**8))
def test_a_difference_is_compared_exactly_and_shown_rounded_up(feed: int, opinion: int) -> None:
    comparison = compare(price(str(feed)), Opinion(Decimal(opinion), NOON), max_bps=200)
    exact = Fraction(abs(feed - opinion) * 10_000, feed)
    assert comparison.is_agreed == (exact <= 200)
    assert 0 <= comparison.difference_bps - exact < 1


@pytest.mark.parametrize(
    ("opinion", "is_used"), [("3060", True), ("2940", True), ("3060.0001", False), ("2700", False)]
)
def test_a_price_that_is_in_doubt_is_refused_and_says_by_how_much(opinion: str, is_used: bool) -> None:
    fed, clock = FedPrices(), Clock()
    layer = checked(fed, clock)
    fed.learn(reading(price("3000")))
    layer.learn("USD", Opinion(Decimal(opinion), NOON))
    if is_used:
        assert layer.price("USD").value == 3000
        return
    with pytest.raises(PriceUnknown, match=rf"in doubt: chainlink says 3000 USD and the second opinion {opinion}: "):
        layer.price("USD")
    assert layer.price(ETH).value == 1


def test_a_price_that_jumps_is_compared_before_it_is_used_once() -> None:
    fed, clock = FedPrices(), Clock()
    layer = checked(fed, clock)
    layer.learn("USD", Opinion(Decimal(3000), NOON))
    fed.learn(reading(price("3000")))
    assert layer.price("USD").value == 3000
    fed.learn(reading(price("3300")))
    with pytest.raises(PriceUnknown, match="in doubt"):
        layer.price("USD")


def test_a_newer_opinion_takes_the_place_of_the_one_before_it() -> None:
    fed, clock = FedPrices(), Clock()
    layer = checked(fed, clock)
    fed.learn(reading(price("3000")))
    layer.learn("USD", Opinion(Decimal(3000), NOON))
    assert layer.price("USD").value == 3000
    layer.learn("USD", Opinion(Decimal(2700), NOON))
    with pytest.raises(PriceUnknown, match="in doubt"):
        layer.price("USD")


def test_with_the_policy_feed_a_disagreement_is_known_and_the_feed_is_used() -> None:
    fed, clock = FedPrices(), Clock()
    layer = checked(fed, clock, "feed")
    fed.learn(reading(price("3000")))
    layer.learn("USD", Opinion(Decimal(2700), NOON))
    comparison = layer.comparison("USD")
    assert comparison is not None
    assert (comparison.is_agreed, comparison.difference_bps) == (False, 1000)
    assert layer.price("USD").value == 3000


def test_an_opinion_on_usd_speaks_for_currencies_that_are_computed_from_it_unless_they_have_their_own() -> None:
    fed, clock = FedPrices(), Clock()
    layer = checked(fed, clock)
    fed.learn(reading(price("3000"), price("2500", "EUR")))
    layer.learn("USD", Opinion(Decimal(2700), NOON))
    with pytest.raises(PriceUnknown, match="ETH in EUR is in doubt"):
        layer.price("EUR")
    layer.learn("EUR", Opinion(Decimal(2500), NOON))
    assert layer.price("EUR").value == 2500


def test_an_opinion_counts_for_as_long_as_a_price_and_then_no_more() -> None:
    fed, clock = FedPrices(), Clock()
    layer = checked(fed, clock)
    fed.learn(reading(price("3000")))
    layer.learn("USD", Opinion(Decimal(2700), NOON))
    clock.advance(300)
    with pytest.raises(PriceUnknown, match="in doubt"):
        layer.price("USD")
    clock.advance(1)
    assert layer.price("USD").value == 3000


# --- an override ------------------------------------------------------------------------------------------------------


def override(value: str, *, seconds: int, currency: str = "USD") -> Override:
    return Override(currency, Decimal(value), NOON, NOON + timedelta(seconds=seconds), "cli:alice", "at night")


def test_an_override_stands_above_everything_and_ends_by_itself_at_the_second() -> None:
    fed, clock = FedPrices(), Clock()
    layer = OverriddenPrices(checked(fed, clock), now=clock)
    layer.learn([override("3210.5", seconds=60)])
    found = layer.price("USD")
    assert (found.value, found.source, found.observed_at, found.ages) == (Decimal("3210.5"), "override", NOON, False)
    assert found.until == NOON + timedelta(seconds=60)
    assert layer.left_s("USD") == 60
    fed.learn(reading(price("3000")))
    clock.advance(59.999)
    assert layer.price("USD").value == Decimal("3210.5")
    clock.advance(0.001)
    assert layer.price("USD").value == 3000
    assert (layer.in_force(), layer.left_s("USD")) == ([], None)


def test_an_override_that_was_cleared_is_no_more_and_others_are_untouched() -> None:
    fed, clock = FedPrices(), Clock()
    layer = OverriddenPrices(fed, now=clock)
    fed.learn(reading(price("3000")))
    layer.learn([override("1", seconds=60), override("2", seconds=60, currency="CHF")])
    layer.learn([override("2", seconds=60, currency="CHF")])
    assert [layer.price(currency).value for currency in ("USD", "CHF")] == [3000, 2]
