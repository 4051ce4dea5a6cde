"""All rate cards with all their versions, and what of them is valid at an instant.

Of a card's versions the one with the latest `effective_from` that has come is valid; where two begin at one instant,
the higher number, which is how a version is corrected.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import datetime

from clearinghouse.rates.card import CardVersion, RateUnknown


class CardConflict(ValueError):
    """A version does not go with those that exist."""


class HoldsForThePast(CardConflict):
    """It would hold for calls that were charged by another version: only a correction may."""


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

    def with_version(self, new: CardVersion, *, now: datetime, is_correction: bool = False) -> RateBook:
        """The book with one version more.

        Raises CardConflict where the number is taken, the currency another, or it would hold for calls already charged
        and is not meant as a correction, which a period has to be rated anew for (settlement.rerating).
        """
        if new.effective_from < now and not is_correction:
            raise HoldsForThePast(
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
