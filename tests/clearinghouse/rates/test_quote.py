"""What a call is charged: exact, explained to the last digit, and never below cost unless a plan says so."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.fees import FIXED, LIVE, LV2V, UNTYPED, JobTypeError, billable_units
from chain.rates import EthPrice
from clearinghouse import pricing
from clearinghouse.rates.card import CardVersion, Floor, Rate, RateUnknown, Tier
from clearinghouse.rates.quote import START, Position, Quote, quote_call
from clearinghouse.rates.rules import Rule
from clearinghouse.rates.units import GRAIN, Per, show_fraction, to_grains
from clearinghouse.rates.usage import Cost, Usage, Work, usage_of_call
from clearinghouse.rating import by_rule
from tests.clearinghouse.rates.parts import (
    ETH_USD,
    NOW,
    calls,
    cards,
    exact_total,
    one_rate_card,
    positions,
    prices,
    rates,
    slow_total,
    usages,
)

FREE = Cost(0, ETH_USD)
S = 10**9
#: A cent, at ETH_USD's twin of 1 dollar an ETH.
ONE_USD = EthPrice("USD", Decimal(1), "test", NOW)


def cents(count: int) -> Cost:
    return Cost(count * 10**16, ONE_USD)


def seconds(count: int) -> Usage:
    return Usage("", "", "", duration_ns=count * S)


def per_second(price: str, floor: Floor = Floor.PERIOD, minimum: str = "0") -> CardVersion:
    rate = Rate(Per.SECOND, (Tier(None, Decimal(price)),), floor=floor, minimum_charge=Decimal(minimum))
    return one_rate_card(rate)


def in_turn(card: CardVersion, period: list[tuple[Usage, Cost]], *, allowed: bool = False) -> list[Quote]:
    """The quotes of calls that one rate is for."""
    quotes, before = [], START
    for usage, cost in period:
        quotes.append(quote_call(card, usage, cost, before=before, may_be_below_cost=allowed))
        before = quotes[-1].after
    return quotes


def total(amounts: list[Decimal]) -> Fraction:
    return sum(map(Fraction, amounts), Fraction(0))


@given(
    ev_wei=st.integers(0, 2**128),
    markup_bps=st.integers(0, 1_000_000),
    minimum=prices(12),
    price=st.decimals(Decimal("1e-12"), Decimal("1e9"), places=12),
)
def test_a_markup_on_cost_charges_what_a_gateways_own_markup_does(
    ev_wei: int, markup_bps: int, minimum: Decimal, price: Decimal
) -> None:
    tier = Tier(None, Decimal(10_000 + markup_bps).scaleb(-4))
    card = one_rate_card(Rate(Per.COST, (tier,), minimum_charge=minimum))
    eth = EthPrice("USD", price, "test", NOW)
    quote = quote_call(card, Usage("", "", ""), Cost(ev_wei, eth))
    wanted = pricing.charge(ev_wei, price=eth, markup_bps=markup_bps, minimum_charge=minimum) if ev_wei else Decimal(0)
    assert quote.charge == wanted


@given(rates(minimum=False), usages, st.integers(0, 10**11))
def test_usage_is_priced_by_the_tiers_it_falls_into(rate: Rate, usage: Usage, begin: int) -> None:
    quote = quote_call(one_rate_card(rate), usage, FREE, before=Position(begin), may_be_below_cost=True)
    wanted = slow_total(rate, begin + quote.volume) - slow_total(rate, begin)
    assert Fraction(quote.usage_amount) == wanted
    assert quote.rounding == wanted - exact_total(rate, begin + quote.volume) + exact_total(rate, begin)


@given(rates(), calls, positions, st.booleans())
def test_every_number_of_a_quote_adds_up(rate: Rate, call: tuple[Usage, Cost], before: Position, allowed: bool) -> None:
    quote = quote_call(one_rate_card(rate), *call, before=before, may_be_below_cost=allowed)
    assert sum(part.quantity for part in quote.parts) == quote.quantity
    assert sum((part.amount for part in quote.parts), Fraction(0)) + quote.rounding == Fraction(quote.usage_amount)
    assert abs(quote.rounding) < GRAIN
    assert rate.per is Per.MINUTE or quote.rounding == 0, "only a 60th may have no last digit"
    assert Fraction(quote.rated) + Fraction(quote.by_floor) == Fraction(quote.charge)
    assert Fraction(quote.cost) + Fraction(quote.margin) == Fraction(quote.charge)
    assert Fraction(quote.after.rated) - Fraction(before.rated) == Fraction(quote.rated)
    assert Fraction(quote.after.cost) - Fraction(before.cost) == Fraction(quote.cost)
    assert quote.after.volume - before.volume == quote.volume
    assert quote.charge >= 0
    exponent = quote.charge.as_tuple().exponent
    assert isinstance(exponent, int)
    assert -exponent <= pricing.CHARGE_DECIMALS, "the books have no more digits"


@given(rates(minimum=False), st.lists(calls, min_size=1, max_size=6), st.booleans(), st.randoms(use_true_random=False))
def test_a_period_costs_the_same_however_it_is_cut_into_calls(
    rate: Rate, period: list[tuple[Usage, Cost]], allowed: bool, random: Random
) -> None:
    if rate.floor is Floor.CALL:
        rate = Rate(rate.per, rate.tiers)
    card = one_rate_card(rate)
    quotes = in_turn(card, period, allowed=allowed)
    again = in_turn(card, sorted(period, key=lambda _: random.random()), allowed=allowed)
    volume, cost = quotes[-1].after.volume, Fraction(quotes[-1].after.cost)
    usage = slow_total(rate, volume)
    wanted = usage if quotes[0].floor is Floor.NONE else max(usage, cost)
    assert total([quote.charge for quote in quotes]) == wanted
    assert total([quote.charge for quote in again]) == wanted


@given(st.lists(st.tuples(cards(), calls), min_size=1, max_size=8))
def test_a_period_is_never_below_its_cost_at_any_time_and_whatever_becomes_of_the_card(
    period: list[tuple[CardVersion, tuple[Usage, Cost]]],
) -> None:
    """Promise 1: what the tickets so far are worth was debited, where no plan allows less."""
    before, charged, cost = START, Fraction(0), Fraction(0)
    for card, (usage, costs_) in period:
        rate = card.rate(usage.application, usage.pipeline, usage.model)
        quote = quote_call(one_rate_card(rate), usage, costs_, before=before)
        before = quote.after
        charged += Fraction(quote.charge)
        cost += Fraction(quote.cost)
        assert charged >= cost


@given(cards(), calls, positions, st.booleans())
def test_no_position_makes_a_call_dearer_than_the_gate_before_signing_took_it_for(
    card: CardVersion, call: tuple[Usage, Cost], before: Position, allowed: bool
) -> None:
    quote = quote_call(card, *call, before=before, may_be_below_cost=allowed)
    rule = Rule(1, quote.rate, card)
    assert quote.charge <= by_rule(rule, *call, may_be_below_cost=allowed).charge


@settings(max_examples=30)
@given(cards(), calls, positions)
def test_the_precision_of_the_caller_makes_no_difference(
    card: CardVersion, call: tuple[Usage, Cost], before: Position
) -> None:
    wanted = quote_call(card, *call, before=before)
    with localcontext() as narrow:
        narrow.prec = 3
        quote = quote_call(card, *call, before=before)
        assert quote == wanted
        assert quote.explanation() == wanted.explanation()


def test_a_ticket_that_is_worth_many_calls_is_paid_for_once() -> None:
    """A call in ten buys a ticket of 10 cents, and each is sold at 1.1 cents: the ten cost 11 cents, not almost 20."""
    period = [(seconds(1), cents(10))] + [(seconds(1), cents(0))] * 9
    quotes = in_turn(per_second("0.011"), period)
    assert quotes[0].charge == Decimal("0.1")
    assert quotes[0].by_floor == Decimal("0.089")
    assert [quote.charge for quote in quotes[1:9]] == [Decimal(0)] * 8
    assert quotes[9].charge == Decimal("0.01")
    strict = in_turn(per_second("0.011", Floor.CALL), period)
    assert total([quote.charge for quote in strict]) == Fraction("0.199")


def test_below_cost_needs_the_cards_word_and_the_plans() -> None:
    call = (seconds(1), cents(10))
    for floor in Floor:
        assert quote_call(per_second("0.01", floor), *call).charge == Decimal("0.1")
    assert quote_call(per_second("0.01", Floor.NONE), *call, may_be_below_cost=True).charge == Decimal("0.01")
    assert quote_call(per_second("0.01", Floor.NONE), *call).floor is Floor.PERIOD
    assert quote_call(per_second("0.01"), *call, may_be_below_cost=True).charge == Decimal("0.1")


def test_a_minimum_charge_is_of_calls_that_used_or_cost_something() -> None:
    card = per_second("0.01", minimum="0.05")
    assert quote_call(card, seconds(1), FREE).charge == Decimal("0.05")
    assert quote_call(card, seconds(6), FREE).charge == Decimal("0.06")
    assert quote_call(card, seconds(0), cents(1)).charge == Decimal("0.05")
    assert quote_call(card, seconds(0), FREE).charge == 0


def test_tiers_are_graduated_and_the_edge_belongs_to_the_tier_below() -> None:
    tiers = (Tier(10, Decimal(0)), Tier(20, Decimal(2)), Tier(None, Decimal(1)))
    card = one_rate_card(Rate(Per.REQUEST, tiers))
    charges = [
        quote_call(card, Usage("", "", "", requests=1), FREE, before=Position(before)).charge
        for before in (0, 9, 10, 19, 20, 10**30)
    ]
    assert charges == [0, 0, 2, 2, 1, 1]
    quote = quote_call(card, Usage("", "", "", requests=30), FREE)
    assert [part.quantity for part in quote.parts] == [Fraction(10)] * 3
    assert [part.amount for part in quote.parts] == [Fraction(0), Fraction(20), Fraction(10)]


def test_a_price_a_minute_is_exact_over_a_period_and_within_a_grain_at_each_call() -> None:
    """Ten cents a minute are no decimal a second; a thousand hours of seconds are 6000 dollars to the digit."""
    card = one_rate_card(Rate(Per.MINUTE, (Tier(None, Decimal("0.1")),)))
    first, second, third = in_turn(card, [(seconds(1), FREE)] * 3)
    assert [quote.rounding for quote in (first, second, third)] == [GRAIN / 3, GRAIN / 3, -2 * GRAIN / 3]
    assert total([first.charge, second.charge, third.charge]) == Fraction("0.005")
    last = quote_call(card, seconds(1), FREE, before=Position(3_599_999 * S))
    assert last.after.volume == 3_600_000 * S
    assert slow_total(card.rates[0], last.after.volume) == 6000


def test_a_rate_by_what_was_not_measured_is_no_rate() -> None:
    with pytest.raises(RateUnknown, match="per second, which was not measured"):
        quote_call(per_second("1"), Usage("", "", "", pixels=5), FREE)


def test_a_cost_in_another_currency_and_values_that_cannot_be_are_bugs() -> None:
    eur = EthPrice("EUR", Decimal(1), "test", NOW)
    with pytest.raises(ValueError, match="is in USD, the cost in EUR"):
        quote_call(per_second("1"), seconds(1), Cost(1, eur))
    with pytest.raises(ValueError, match="not worth -1 wei"):
        quote_call(per_second("1"), seconds(1), Cost(-1, ETH_USD))
    with pytest.raises(ValueError, match="cannot have used -"):
        quote_call(per_second("1"), seconds(-1), FREE)
    with pytest.raises(ValueError, match="come to -1"):
        quote_call(per_second("1"), seconds(1), FREE, before=Position(-1))
    with pytest.raises(ValueError, match="more than 34 decimals"):
        to_grains(Decimal("1e-35"))
    with pytest.raises(ValueError, match="is no amount"):
        to_grains(Decimal("NaN"))


def test_the_explanation_is_plain_strings_and_loses_no_digit() -> None:
    card = one_rate_card(Rate(Per.MINUTE, (Tier(None, Decimal("0.1")),), pipeline="video"))
    usage = Usage("app", "video", "", duration_ns=S)
    assert quote_call(card, usage, Cost(10**12, ETH_USD)).explanation() == {
        "card": "standard",
        "version": 1,
        "currency": "USD",
        "rate": "minute:*/video/*",
        "per": "minute",
        "quantity": "1/60",
        "quantity_before": "0",
        "parts": [{"price": "0.1", "quantity": "1/60", "amount": "1/600"}],
        "rounding": show_fraction(GRAIN / 3),
        "usage_amount": "0.0016666666666666666666666666666667",
        "minimum_charge": "0",
        "rated": "0.0016666666666666666666666666666667",
        "ev_wei": "1000000000000",
        "eth_price": "3141.592653589",
        "eth_price_source": "test",
        "cost": "0.003141592653589",
        "floor": "period",
        "by_floor": "0.0014749259869223333333333333333333",
        "charge": "0.003141592653589",
        "margin": "0",
    }


@given(st.fractions())
def test_a_fraction_is_shown_with_all_its_digits_or_as_a_fraction(value: Fraction) -> None:
    assert Fraction(show_fraction(value)) == value


@pytest.mark.parametrize(
    ("job_type", "elapsed_ns", "in_pixels", "wanted"),
    [
        (LIVE, 0, 0, Usage("a", "p", "m", duration_ns=10 * S)),
        (LIVE, 4_100_000_000, 0, Usage("a", "p", "m", duration_ns=5 * S)),
        (LV2V, 0, 0, Usage("a", "p", "m", duration_ns=60 * S, pixels=60 * 27_648_000)),
        (LV2V, 5_000_000_000, 0, Usage("a", "p", "m", duration_ns=5 * S, pixels=5 * 27_648_000)),
        (UNTYPED, 7, 1234, Usage("a", "p", "m", pixels=1234)),
        (FIXED, 7, 0, Usage("a", "p", "m")),
    ],
)
def test_usage_is_what_the_network_bills_for(job_type: str, elapsed_ns: int, in_pixels: int, wanted: Usage) -> None:
    units = billable_units(job_type, elapsed_ns, in_pixels)
    names = {"application": "a", "pipeline": "p", "model": "m"}
    work = Work(units, elapsed_ns)
    assert usage_of_call(job_type, work, is_first=True, **names) == wanted
    later = usage_of_call(job_type, work, is_first=False, **names)
    assert later == wanted._replace(requests=0 if job_type in (LIVE, LV2V) else 1)


def test_usage_of_an_unknown_job_or_of_less_than_nothing_is_refused() -> None:
    names = {"application": "a", "pipeline": "p", "model": "m"}
    with pytest.raises(JobTypeError):
        usage_of_call("other", Work(1, 0), is_first=True, **names)
    with pytest.raises(ValueError, match="-1 units"):
        usage_of_call(LIVE, Work(-1, 0), is_first=True, **names)
