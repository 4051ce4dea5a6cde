"""What ETH did cost, and what is earned with it. Exact and pure: fractions, rounded only where they are shown.

charged           what the calls were charged, and what re-rating changed of it since
cost as priced    their expected value, each at the price of ETH that it was charged at
margin as priced  charged - cost as priced: what was meant to be earned
cost as bought    the same expected value, at what the ETH of the period did cost: all that was paid, fees included,
                  over all that was bought
margin as bought  charged - cost as bought
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final
from uuid import UUID

from chain.rates import ETH
from clearinghouse.ledger.money import EXACT, exact_sum
from settlement.currencies import account_currency
from settlement.treasury.records import Trade

#: Decimals of prices and of what follows from them, where they are shown.
RATE_DECIMALS: Final = 12
_WEI_OF_AN_ETH: Final = 10**18


@dataclass(frozen=True, slots=True)
class Used:
    """Calls of a gateway, or of several: amounts in `currency`, exact. `rerated` is what re-rating changed since."""

    currency: str
    calls_count: int
    ev_wei: int
    charged: Decimal
    rerated: Decimal
    cost_as_priced: Decimal


@dataclass(frozen=True, slots=True)
class Margin:
    """`cost_as_bought` is None where no ETH was bought with this currency."""

    used: Used
    cost_as_bought: Fraction | None

    @property
    def as_priced(self) -> Decimal:
        return EXACT.subtract(self._charged, self.used.cost_as_priced)

    @property
    def as_bought(self) -> Fraction | None:
        return None if self.cost_as_bought is None else Fraction(self._charged) - self.cost_as_bought

    @property
    def _charged(self) -> Decimal:
        return EXACT.add(self.used.charged, self.used.rerated)


@dataclass(frozen=True, slots=True)
class GatewayMargin:
    gateway_id: UUID
    gateway: str
    margin: Margin


def price_of(trades: Iterable[Trade]) -> Fraction:
    """Of one ETH, on average, in the one currency that all were paid in: all that was paid over all that was bought.

    ZeroDivisionError where there are none.
    """
    known = list(trades)
    assert len({trade.currency for trade in known}) <= 1, "amounts of different currencies have no sum"
    paid = sum(
        (Fraction(trade.paid_minor, 10 ** account_currency(trade.currency).decimals) for trade in known), Fraction(0)
    )
    return paid * _WEI_OF_AN_ETH / sum(trade.bought_wei for trade in known)


def prices_by_currency(trades: Iterable[Trade]) -> dict[str, Fraction]:
    """Of every currency that something was bought with. Who is charged in ETH costs what they are charged in."""
    known = list(trades)
    currencies = dict.fromkeys(trade.currency for trade in known)
    bought = {each: price_of(trade for trade in known if trade.currency == each) for each in currencies}
    return {**bought, ETH: Fraction(1)}


def margin_of(used: Used, price: Fraction | None) -> Margin:
    """`price` of one ETH, in the currency of `used`."""
    return Margin(used, None if price is None else used.ev_wei * price / _WEI_OF_AN_ETH)


def total_of(parts: Iterable[Used]) -> Used:
    """Of one currency, to the last digit. There is at least one."""
    known = list(parts)
    (currency,) = {each.currency for each in known}
    return Used(
        currency=currency,
        calls_count=sum(each.calls_count for each in known),
        ev_wei=sum(each.ev_wei for each in known),
        charged=exact_sum(each.charged for each in known),
        rerated=exact_sum(each.rerated for each in known),
        cost_as_priced=exact_sum(each.cost_as_priced for each in known),
    )


def to_decimals(value: Fraction | Decimal, decimals: int) -> Decimal:
    """Rounded once, half away from zero, to so many decimals."""
    exact = Fraction(value)
    units, rest = divmod(abs(exact.numerator) * 10**decimals, exact.denominator)
    units += 2 * rest >= exact.denominator
    return EXACT.scaleb(Decimal(-units if exact < 0 else units), -decimals)
