"""Which version of a card holds when, to the microsecond."""

from __future__ import annotations

from collections import UserDict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearinghouse.rates.book import CardConflict, RateBook
from clearinghouse.rates.card import CardVersion, Rate, RateUnknown, Tier
from clearinghouse.rates.units import Per
from tests.clearinghouse.rates.parts import NOW

US = timedelta(microseconds=1)
#: Close together, so that versions meet.
instants = st.integers(0, 6).map(lambda count: NOW + count * US)
#: (card, version, effective from), each number of a card once.
histories = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 8), instants), max_size=8, unique_by=lambda entry: entry[:2]
)


def version(card: str, number: int, effective_from: datetime, price: str = "1", currency: str = "USD") -> CardVersion:
    return CardVersion(card, number, currency, effective_from, (Rate(Per.SECOND, (Tier(None, Decimal(price)),)),))


@given(histories, instants)
def test_the_version_that_began_last_holds_and_of_those_the_highest(
    history: list[tuple[str, int, datetime]], at: datetime
) -> None:
    book = RateBook(version(*entry) for entry in history)
    for card in "ab":
        begun = [(start, number) for name, number, start in history if name == card and start <= at]
        if begun:
            assert book.at(card, at).version == max(begun)[1]
        else:
            with pytest.raises(RateUnknown):
                book.at(card, at)


def test_a_version_holds_from_its_instant_on_and_not_a_microsecond_before() -> None:
    book = RateBook([version("a", 1, NOW - 5 * US), version("a", 2, NOW)])
    assert book.at("a", NOW - US).version == 1
    assert book.at("a", NOW).version == 2
    assert [known.version for known in book.versions("a")] == [1, 2]
    assert book.versions("b") == ()


def test_a_card_that_is_not_there_has_no_price() -> None:
    book = RateBook([version("a", 1, NOW)])
    for card, at in (("a", NOW - US), ("b", NOW)):
        with pytest.raises(RateUnknown, match="no rate card"):
            book.at(card, at)


def test_an_older_book_keeps_its_word() -> None:
    book = RateBook([version("a", 1, NOW)])
    newer = book.with_version(version("a", 2, NOW, price="2"), now=NOW)
    assert newer.at("a", NOW).version == 2
    assert book.at("a", NOW).version == 1


def test_versions_that_contradict_each_other_are_refused() -> None:
    book = RateBook([version("a", 1, NOW)])
    with pytest.raises(CardConflict, match="two versions 1"):
        book.with_version(version("a", 1, NOW + US), now=NOW)
    with pytest.raises(CardConflict, match="in USD in version 1 and in EUR in version 2"):
        book.with_version(version("a", 2, NOW + US, currency="EUR"), now=NOW)


def test_what_was_charged_changes_by_a_correction_only() -> None:
    book = RateBook([version("a", 1, NOW)])
    late = version("a", 2, NOW, price="2")
    with pytest.raises(CardConflict, match="publish it as a correction"):
        book.with_version(late, now=NOW + US)
    assert book.with_version(late, now=NOW + US, is_correction=True).at("a", NOW) is late


def test_a_look_up_takes_the_same_time_however_many_rates_there_are() -> None:
    """Counted in look-ups, not in seconds."""
    rates = [Rate(Per.SECOND, (Tier(None, Decimal(1)),), application=f"app-{number}") for number in range(5_000)]
    card = replace(version("a", 1, datetime(2026, 1, 1, tzinfo=UTC)), rates=tuple(rates))
    asked = []

    class Counted(UserDict[Any, Rate]):
        def __getitem__(self, key: Any) -> Rate:
            asked.append(key)
            return super().__getitem__(key)

    object.__setattr__(card, "_by_names", Counted(card._by_names))
    assert card.rate("app-4999", "p", "m") is rates[4_999]
    assert len(asked) == 1
