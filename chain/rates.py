"""What an ETH costs: prices with their source and time, and how old they may be.

Every charge stores the price it was made with. A source answers from memory and never waits; where its newest price is
too old there is no price, and what depends on it is refused (promise 7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol

#: Decimals a price may have. With 18 of wei and 4 of basis points a charge then has at most 34: never rounded.
PRICE_DECIMALS = 12
ETH = "ETH"


class PriceUnknown(RuntimeError):
    """There is no price for this currency, or none that is fresh enough. The message says which."""


@dataclass(frozen=True, slots=True)
class EthPrice:
    """`value` units of `currency` for one ETH, as `source` gave it at `observed_at`.

    A feed that moves only with the market says the same for a while: `confirmed_at` is when it last did, and the age
    counts from there. `ages` is False for what the operator declared: it holds until it is declared otherwise, or until
    `until`. `reference` is what the source knows it by, such as the rounds of feeds: "ETH/USD:18446744073709562301".
    """

    currency: str
    value: Decimal
    source: str
    observed_at: datetime
    ages: bool = True
    confirmed_at: datetime | None = None
    until: datetime | None = None
    reference: str = ""

    def __post_init__(self) -> None:
        exponent = self.value.as_tuple().exponent
        if not self.value.is_finite() or self.value <= 0:
            raise ValueError(f"a price of ETH in {self.currency} is a positive number, not {self.value}")
        if not isinstance(exponent, int) or exponent < -PRICE_DECIMALS or self.value.adjusted() > PRICE_DECIMALS:
            raise ValueError(
                f"a price of ETH in {self.currency} has at most {PRICE_DECIMALS} digits on either side of the point"
            )
        if self.observed_at.tzinfo is None:
            raise ValueError("a price needs a time with a time zone")

    @property
    def cited(self) -> str:
        """The source with its reference: what a charge keeps of it, so that the price can be looked up again."""
        return f"{self.source} {self.reference}" if self.reference else self.source

    def age(self, now: datetime) -> timedelta:
        """Since the source last said so."""
        return now - (self.confirmed_at or self.observed_at)


class PriceSource(Protocol):
    """Where prices come from. `price` never waits; it raises PriceUnknown."""

    def price(self, currency: str) -> EthPrice: ...


class DeclaredPrices:
    """Prices that the operator declared; they do not age. ETH costs one ETH."""

    def __init__(self, per_eth: Mapping[str, Decimal], *, declared_at: datetime) -> None:
        self._prices = {
            currency: EthPrice(currency, value, "declared", declared_at, ages=False)
            for currency, value in {**per_eth, ETH: Decimal(1)}.items()
        }

    def price(self, currency: str) -> EthPrice:
        try:
            return self._prices[currency]
        except KeyError:
            raise PriceUnknown(f"No price of ETH in {currency} is declared.") from None


class FreshPrices:
    """Another source's prices: those that do not age, and those between `max_age_s` seconds old and as far ahead."""

    def __init__(
        self, source: PriceSource, *, max_age_s: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._source = source
        self._max_age = timedelta(seconds=max_age_s)
        self._now = now

    def price(self, currency: str) -> EthPrice:
        price = self._source.price(currency)
        if not price.ages:
            return price
        age = price.age(self._now())
        if not -self._max_age <= age <= self._max_age:
            raise PriceUnknown(
                f"The newest price of ETH in {currency} is {int(age.total_seconds())} s old; "
                f"at most {int(self._max_age.total_seconds())} s are allowed."
            )
        return price
