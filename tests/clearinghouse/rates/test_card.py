"""Which rate a call gets, and what no card may say."""

from __future__ import annotations

import itertools
from dataclasses import FrozenInstanceError, replace
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.rates.card import SPECIFICITY, CardProblem, CardVersion, Floor, Rate, RateUnknown, Tier
from clearinghouse.rates.units import Per
from tests.clearinghouse.rates.parts import APPLICATIONS, MODELS, NOW, PIPELINES, cards, one_rate_card

ONE = (Tier(None, Decimal(1)),)


def fits(rate: Rate, names: tuple[str, str, str]) -> bool:
    return all(wanted in {None, name} for wanted, name in zip(rate.names, names, strict=True))


@given(cards(), st.tuples(*map(st.sampled_from, (APPLICATIONS, PIPELINES, MODELS))))
def test_the_most_specific_rate_wins(card: CardVersion, names: tuple[str, str, str]) -> None:
    """Of those that fit: naming the application counts most, then the pipeline, then the model."""
    wanted = max(
        (rate for rate in card.rates if fits(rate, names)), key=lambda rate: [name is not None for name in rate.names]
    )
    assert card.rate(*names) is wanted


def test_all_eight_kinds_of_rates_are_sought_in_the_stated_order() -> None:
    assert sorted(SPECIFICITY, reverse=True) == list(SPECIFICITY)
    assert set(SPECIFICITY) == set(itertools.product((True, False), repeat=3))


def test_a_call_that_no_rate_is_for_has_no_price() -> None:
    card = one_rate_card(Rate(Per.SECOND, ONE, pipeline="p"))
    assert card.rate("any", "p", "any").pipeline == "p"
    with pytest.raises(RateUnknown, match=r"Version 1 of the rate card standard .* 'a', pipeline 'q', model 'm'"):
        card.rate("a", "q", "m")
    with pytest.raises(RateUnknown):
        card.rate("a", "", "m")


def test_a_meter_counts_on_across_versions_and_anew_in_another_unit() -> None:
    rate = Rate(Per.SECOND, ONE, pipeline="p")
    assert rate.meter == replace(rate, tiers=(Tier(None, Decimal(2)),), floor=Floor.CALL).meter
    assert rate.meter != replace(rate, per=Per.MINUTE).meter
    assert rate.meter != replace(rate, model="m").meter
    assert str(rate.meter) == "second:*/p/*"


def test_a_card_cannot_be_changed() -> None:
    card = one_rate_card(Rate(Per.SECOND, ONE))
    with pytest.raises(FrozenInstanceError):
        card.version = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        card.rates[0].minimum_charge = Decimal(0)  # type: ignore[misc]
    with pytest.raises(TypeError):
        card._by_names[None, None, None] = card.rates[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("rate", "path", "message"),
    [
        ({"tiers": ()}, ("tiers",), "is empty"),
        ({"tiers": (Tier(None, Decimal(-1)),)}, ("tiers", 0, "price"), "0 or more"),
        ({"tiers": (Tier(None, Decimal("NaN")),)}, ("tiers", 0, "price"), "0 or more"),
        ({"tiers": (Tier(None, Decimal("1e-25")),)}, ("tiers", 0, "price"), "more than 24 decimals"),
        ({"tiers": (Tier(None, Decimal("1.00001")),), "per": Per.COST}, ("tiers", 0, "price"), "more than 4 decimals"),
        ({"tiers": (Tier(None, Decimal("0.9999")),), "per": Per.COST}, ("tiers", 0), "below cost"),
        ({"tiers": (Tier(5, Decimal(1)),)}, ("tiers", 0, "up_to"), "last tier"),
        ({"tiers": (*ONE, *ONE)}, ("tiers", 0, "up_to"), "is missing"),
        ({"tiers": (Tier(0, Decimal(1)), *ONE)}, ("tiers", 0, "up_to"), "not above 0"),
        (
            {"tiers": (Tier(3 * 10**9, Decimal(1)), Tier(3 * 10**9, Decimal(2)), *ONE)},
            ("tiers", 1, "up_to"),
            "not above 3, where",
        ),
        ({"minimum_charge": Decimal(-1)}, ("minimum_charge",), "0 or more"),
        ({"minimum_charge": Decimal("Infinity")}, ("minimum_charge",), "0 or more"),
        ({"model": ""}, ("model",), "leave it out"),
    ],
)
def test_what_no_rate_may_say_is_told_with_its_field(
    rate: dict[str, object], path: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(CardProblem, match=message) as raised:
        Rate(**{"per": Per.SECOND, "tiers": ONE, **rate})  # type: ignore[arg-type]
    assert raised.value.path == path


def test_below_cost_may_be_said_where_the_plan_has_the_last_word() -> None:
    assert Rate(Per.COST, (Tier(None, Decimal(0)),), floor=Floor.NONE).floor is Floor.NONE


@pytest.mark.parametrize(
    ("card", "path", "message"),
    [
        ({"version": 0}, ("version",), "from 1 on"),
        ({"effective_from": datetime(2026, 12, 1)}, ("effective_from",), "time zone"),  # noqa: DTZ001
        ({"rates": ()}, ("rates",), "prices nothing"),
        (
            {"rates": (Rate(Per.COST, ONE), Rate(Per.COST, ONE, model="m"), Rate(Per.SECOND, ONE))},
            ("rates", 2),
            r"same calls as rates\[0\]",
        ),
    ],
)
def test_what_no_card_may_say_is_told_with_its_field(
    card: dict[str, object], path: tuple[str | int, ...], message: str
) -> None:
    fields = {"card": "c", "version": 1, "currency": "USD", "effective_from": NOW, "rates": (Rate(Per.SECOND, ONE),)}
    with pytest.raises(CardProblem, match=message) as raised:
        CardVersion(**{**fields, **card})  # type: ignore[arg-type]
    assert raised.value.path == path
