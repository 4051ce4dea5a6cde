"""All rate cards with all their versions, and what of them is valid at an instant.

Of a card's versions the one with the latest `effective_from` that has come is valid; where two begin at one instant,
the higher number, which is how a version is corrected.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

from clearinghouse.rates.card import CardVersion, Rate, RateUnknown
from clearinghouse.rates.quote import START, Position, Quote, charge_max, quote_call
from clearinghouse.rates.usage import Cost, Usage


class CardConflict(ValueError):
    """A version does not go with those that exist."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cards as valid from `valid_from` until before `valid_until`; None is no bound. What the signing path holds.

    Nothing in it ever changes; a newer book gives a newer snapshot. Look-ups take the same time however much is in it.
    """

    cards: Mapping[str, CardVersion]
    valid_from: datetime | None
    valid_until: datetime | None

    def is_valid_at(self, at: datetime) -> bool:
        """Whether it may be used for a call at that time; else ask the book for another."""
        return (self.valid_from is None or self.valid_from <= at) and (
            self.valid_until is None or at < self.valid_until
        )

    def card(self, name: str) -> CardVersion:
        """Raises RateUnknown."""
        try:
            return self.cards[name]
        except KeyError:
            raise RateUnknown(f"There is no rate card {name} that is valid at that time.") from None

    def rate(self, card: str, application: str, pipeline: str, model: str) -> Rate:
        """The most specific one. Raises RateUnknown."""
        return self.card(card).rate(application, pipeline, model)

    def quote(
        self, card: str, usage: Usage, cost: Cost, *, before: Position = START, may_be_below_cost: bool = False
    ) -> Quote:
        """What `quote_call` says, by this card."""
        return quote_call(self.card(card), usage, cost, before=before, may_be_below_cost=may_be_below_cost)

    def charge_max(self, card: str, usage: Usage, cost: Cost) -> Decimal:
        """What a call is charged at most, wherever in its period it comes: for the gate before signing."""
        return charge_max(self.card(card), usage, cost)


class RateBook:
    """Immutable: `with_version` gives another. Raises CardConflict for versions that contradict each other."""

    __slots__ = ("_starts", "_versions")

    def __init__(self, versions: Iterable[CardVersion] = ()) -> None:
        by_card: dict[str, list[CardVersion]] = {}
        for version in versions:
            by_card.setdefault(version.card, []).append(version)
        for known in by_card.values():
            _require_consistent(known)
            known.sort(key=lambda version: (version.effective_from, version.version))
        self._versions = {card: tuple(known) for card, known in by_card.items()}
        self._starts = {card: [version.effective_from for version in known] for card, known in self._versions.items()}

    def versions(self, card: str) -> tuple[CardVersion, ...]:
        """In the order in which they take effect; none of an unknown card."""
        return self._versions.get(card, ())

    def at(self, card: str, instant: datetime) -> CardVersion:
        """The version valid then. Raises RateUnknown."""
        count = bisect_right(self._starts.get(card, ()), instant)
        if count == 0:
            raise RateUnknown(f"There is no rate card {card} that is valid at {instant.isoformat()}.")
        return self._versions[card][count - 1]

    def snapshot(self, instant: datetime) -> Snapshot:
        """All cards valid then, and for how long this stays so."""
        cards: dict[str, CardVersion] = {}
        begun, coming = [], []
        for card, starts in self._starts.items():
            count = bisect_right(starts, instant)
            if count:
                cards[card] = self._versions[card][count - 1]
                begun.append(starts[count - 1])
            coming += starts[count : count + 1]
        return Snapshot(MappingProxyType(cards), max(begun, default=None), min(coming, default=None))

    def quote(
        self,
        card: str,
        usage: Usage,
        cost: Cost,
        at: datetime,
        *,
        before: Position = START,
        may_be_below_cost: bool = False,
    ) -> Quote:
        """What a call at that time is charged (clearinghouse.rates.quote.quote_call). Raises RateUnknown."""
        return quote_call(self.at(card, at), usage, cost, before=before, may_be_below_cost=may_be_below_cost)

    def with_version(self, new: CardVersion, *, now: datetime, is_correction: bool = False) -> RateBook:
        """The book with one version more.

        Raises CardConflict where the number is taken, the currency another, or it would hold for calls already charged
        and is not meant as a correction, which a period has to be rated anew for (clearinghouse.rates.rerate).
        """
        if new.effective_from < now and not is_correction:
            raise CardConflict(
                f"version {new.version} of the rate card {new.card} would hold from {new.effective_from.isoformat()}, "
                "for calls that were charged by another: let it begin later, or publish it as a correction"
            )
        return RateBook([*(version for known in self._versions.values() for version in known), new])


def _require_consistent(versions: list[CardVersion]) -> None:
    first = versions[0]
    numbers: set[int] = set()
    for version in versions:
        if version.version in numbers:
            raise CardConflict(f"the rate card {version.card} has two versions {version.version}: number one anew")
        numbers.add(version.version)
        if version.currency != first.currency:
            raise CardConflict(
                f"the rate card {version.card} is in {first.currency} in version {first.version} and in "
                f"{version.currency} in version {version.version}: a card keeps its currency"
            )
