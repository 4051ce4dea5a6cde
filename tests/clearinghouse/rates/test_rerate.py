"""A period rated anew: no difference by the same cards, the exact difference by a corrected one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.rates.book import RateBook
from clearinghouse.rates.card import CardVersion, Floor, Rate, RateUnknown, Tier
from clearinghouse.rates.quote import START
from clearinghouse.rates.rerate import ChargedCall, quotes, rerate
from clearinghouse.rates.units import Per
from clearinghouse.rates.usage import Cost, Usage
from tests.clearinghouse.rates.parts import ETH_USD, NOW, calls, cards

HOUR = timedelta(hours=1)
periods = st.lists(st.tuples(calls, st.booleans()), max_size=10)


def charged(book: RateBook, period: list[tuple[tuple[Usage, Cost], bool]]) -> list[ChargedCall]:
    """The calls as the signing path would have charged them, one an hour."""
    found: list[ChargedCall] = []
    unpriced = [ChargedCall(NOW + HOUR * index, *call, Decimal(0), allowed) for index, (call, allowed) in
                enumerate(period)]  # fmt: skip
    for call, quote in quotes(unpriced, book=book, card="standard"):
        found.append(call._replace(charge=quote.charge))
    return found


@given(cards(), cards(version=2, effective_from=NOW + 3 * HOUR), periods)
def test_rating_anew_by_the_same_cards_changes_nothing(
    first: CardVersion, second: CardVersion, period: list[tuple[tuple[Usage, Cost], bool]]
) -> None:
    book = RateBook([first, second])
    rerating = rerate(charged(book, period), book=book, card="standard")
    assert rerating.difference == 0
    assert [line.difference for line in rerating.lines] == [Decimal(0)] * len(rerating.lines)


@given(cards(), cards(version=2), periods)
def test_the_lines_are_the_sums_of_their_calls(
    wrong: CardVersion, right: CardVersion, period: list[tuple[tuple[Usage, Cost], bool]]
) -> None:
    was = charged(RateBook([wrong]), period)
    should = charged(RateBook([right]), period)
    rerating = rerate(was, book=RateBook([wrong, right]), card="standard")
    assert len({line.key for line in rerating.lines}) == len(rerating.lines)
    assert list(rerating.lines) == sorted(rerating.lines, key=lambda line: (*line.key[:2], str(line.key.meter)))
    for line in rerating.lines:
        mine = [
            index
            for index, call in enumerate(was)
            if (*call.usage[:2], right.rate(*call.usage[:3]).meter) == line.key
        ]  # fmt: skip
        assert line.calls == len(mine)
        assert line.ev_wei == sum(was[index].cost.ev_wei for index in mine)
        assert Fraction(line.charged) == sum(Fraction(was[index].charge) for index in mine)
        assert Fraction(line.rated) == sum(Fraction(should[index].charge) for index in mine)
        assert Fraction(line.difference) == Fraction(line.rated) - Fraction(line.charged)
        assert line.average_rate is None or line.average_rate * line.quantity == Fraction(line.rated)
    assert sum(line.calls for line in rerating.lines) == len(was)
    assert Fraction(rerating.difference) == sum(
        (Fraction(now.charge) - Fraction(then.charge) for now, then in zip(should, was, strict=True)), Fraction(0)
    )
    assert sum(position.volume for position in rerating.positions.values()) == sum(
        line.volume for line in rerating.lines
    )


def per_second(version: int, price: str) -> CardVersion:
    rate = Rate(Per.SECOND, (Tier(None, Decimal(price)),), floor=Floor.NONE)
    return CardVersion("standard", version, "USD", NOW, (rate,))


def test_a_price_ten_times_too_high_is_given_back() -> None:
    wrong, right = per_second(1, "0.1"), per_second(2, "0.01")
    usage = Usage("app", "video", "m", duration_ns=5 * 10**9)
    was = charged(RateBook([wrong]), [((usage, Cost(10**9, ETH_USD)), True)] * 3)
    rerating = rerate(was, book=RateBook([wrong, right]), card="standard")
    (line,) = rerating.lines
    assert (line.charged, line.rated, line.difference) == (Decimal("1.5"), Decimal("0.15"), Decimal("-1.35"))
    assert (line.quantity, line.average_rate, line.ev_wei) == (Fraction(15), Fraction("0.01"), 3 * 10**9)
    assert (rerating.currency, line.key.application, line.key.pipeline) == ("USD", "app", "video")


def test_calls_out_of_their_order_would_be_priced_by_the_wrong_tiers() -> None:
    call = ChargedCall(NOW, Usage("", "", "", duration_ns=1), Cost(0, ETH_USD), Decimal(0))
    with pytest.raises(ValueError, match="comes after one at"):
        rerate([call, call._replace(at=NOW - HOUR)], book=RateBook([per_second(1, "1")]), card="standard")


def test_a_call_without_a_price_stops_it() -> None:
    call = ChargedCall(NOW - HOUR, Usage("", "", "", duration_ns=1), Cost(0, ETH_USD), Decimal(0))
    with pytest.raises(RateUnknown):
        rerate([call], book=RateBook([per_second(1, "1")]), card="standard")


def test_an_empty_period_has_no_lines() -> None:
    rerating = rerate([], book=RateBook(), card="standard")
    assert (rerating.currency, rerating.lines, rerating.difference) == (None, (), Decimal(0))


def test_a_period_is_rated_call_by_call_in_the_memory_of_its_meters() -> None:
    """The calls come from a generator that lets go of each; nothing is read before it is asked for."""
    book = RateBook([replace(per_second(1, "1"))])
    given_out = []

    def stream() -> object:
        for number in range(3):
            given_out.append(number)
            yield ChargedCall(NOW, Usage("", "", "", duration_ns=10**9), Cost(0, ETH_USD), Decimal(1))

    rated = quotes(stream(), book=book, card="standard")  # type: ignore[arg-type]
    _, first = next(rated)
    assert given_out == [0]
    assert first.before == START
    assert [quote.before.volume for _, quote in rated] == [10**9, 2 * 10**9]
