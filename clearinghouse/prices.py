"""Prices in memory, one over the other: what the signing path asks, and it never waits.

    an operator's override, until it expires            OverriddenPrices
      └─ refused while a second opinion disagrees       CheckedPrices
           └─ refused when too old                      chain.rates.FreshPrices
                └─ what a feed said last                FedPrices, or chain.rates.DeclaredPrices

Nothing here asks anybody: price_watch.py does, and tells these what it learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal

from chain.chainlink import BASE, FeedReading
from chain.rates import ETH, EthPrice, PriceSource, PriceUnknown
from clearinghouse.ledger.money import show_amount

OVERRIDE_SOURCE: Final = "override"
_WHOLE_BPS: Final = 10_000


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Override:
    """What an operator set in place of every source."""

    currency: str
    value: Decimal
    set_at: datetime
    until: datetime
    actor: str
    reason: str

    def as_price(self) -> EthPrice:
        return EthPrice(self.currency, self.value, OVERRIDE_SOURCE, self.set_at, ages=False, until=self.until)


@dataclass(frozen=True, slots=True)
class Opinion:
    """A second source's price of an ETH in a currency, as it was given at `at`."""

    value: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """A source's price and a second opinion on it. `difference_bps` is of the source's price, rounded up."""

    price: EthPrice
    opinion: Opinion
    difference_bps: int
    max_bps: int

    @property
    def is_agreed(self) -> bool:
        return self.difference_bps <= self.max_bps

    def __str__(self) -> str:
        return (
            f"{self.price.source} says {show_amount(self.price.value)} {self.price.currency} and the second opinion "
            f"{show_amount(self.opinion.value)}: {self.difference_bps} basis points apart, {self.max_bps} are allowed"
        )


def compare(price: EthPrice, opinion: Opinion, *, max_bps: int) -> Comparison:
    """Exact: a difference of a billionth of a basis point too much is too much."""
    distance = abs(Fraction(opinion.value) - Fraction(price.value)) / Fraction(price.value) * _WHOLE_BPS
    return Comparison(price, opinion, -(-distance.numerator // distance.denominator), max_bps)


class FedPrices:
    """What a feed said last; ETH costs one ETH. A currency that the newest reading has no price for has none."""

    def __init__(self) -> None:
        self._prices: dict[str, EthPrice] = {}
        self._missing: dict[str, str] = {}
        #: Why there was nothing newer; None while the feed is read.
        self.trouble: str | None = "it was not read yet"
        self._eth = EthPrice(ETH, Decimal(1), "declared", _now(), ages=False)

    def learn(self, reading: FeedReading) -> None:
        self._prices, self._missing, self.trouble = dict(reading.prices), dict(reading.missing), None

    def price(self, currency: str) -> EthPrice:
        if currency == ETH:
            return self._eth
        found = self._prices.get(currency)
        if found is not None:
            return found
        if currency in self._missing:
            raise PriceUnknown(f"There is no price of ETH in {currency}: {self._missing[currency]}.")
        if self.trouble is not None and not self._prices:
            raise PriceUnknown(f"There is no price of ETH in {currency}: {self.trouble}.")
        raise PriceUnknown(f"There is no feed for the price of ETH in {currency}.")


class CheckedPrices:
    """Another source's prices. With `refuse`, not those that a second opinion disagrees with, for as long as it does.

    Other currencies are computed from the price in USD: where they have no second opinion of their own, that on USD
    speaks for them. An opinion counts for `max_age_s`, so that one lost answer changes nothing.
    """

    def __init__(
        self,
        source: PriceSource,
        *,
        max_bps: int,
        max_age_s: int,
        on_disagreement: Literal["feed", "refuse"],
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._source = source
        self._max_bps, self._max_age = max_bps, timedelta(seconds=max_age_s)
        self._refuses = on_disagreement == "refuse"
        self._now = now
        self._opinions: dict[str, Opinion] = {}
        self._compared: dict[str, Comparison] = {}

    def learn(self, currency: str, opinion: Opinion) -> None:
        self._opinions[currency] = opinion

    def comparison(self, currency: str) -> Comparison | None:
        """Of the price as it is now, in this currency or in USD. None where there is no opinion, or no price.

        So a price that jumps is compared before it is used once, with the opinion there is.
        """
        compared = currency if currency in self._opinions else BASE
        opinion = self._opinions.get(compared)
        if opinion is None or self._now() - opinion.at > self._max_age:
            return None
        try:
            price = self._source.price(compared)
        except PriceUnknown:
            return None
        known = self._compared.get(compared)
        if known is None or known.price is not price or known.opinion is not opinion:
            known = self._compared[compared] = compare(price, opinion, max_bps=self._max_bps)
        return known

    def price(self, currency: str) -> EthPrice:
        price = self._source.price(currency)
        if self._refuses and currency != ETH:
            comparison = self.comparison(currency)
            if comparison is not None and not comparison.is_agreed:
                raise PriceUnknown(f"The price of ETH in {currency} is in doubt: {comparison}.")
        return price


class OverriddenPrices:
    """Another source's prices, but what an operator set while that holds. It ends by itself, at the second."""

    def __init__(self, source: PriceSource, *, now: Callable[[], datetime] = _now) -> None:
        self._source = source
        self._now = now
        self._overrides: dict[str, tuple[Override, EthPrice]] = {}

    def learn(self, overrides: Iterable[Override]) -> None:
        """All there are; those that are not named are no more."""
        self._overrides = {each.currency: (each, each.as_price()) for each in overrides}

    def in_force(self) -> list[Override]:
        now = self._now()
        return [override for override, _ in self._overrides.values() if now < override.until]

    def left_s(self, currency: str) -> float | None:
        """How long the override of this currency still holds; None without one."""
        found = self._overrides.get(currency)
        left_s = (found[0].until - self._now()).total_seconds() if found is not None else 0
        return left_s if left_s > 0 else None

    def price(self, currency: str) -> EthPrice:
        found = self._overrides.get(currency)
        if found is not None and self._now() < found[0].until:
            return found[1]
        return self._source.price(currency)
