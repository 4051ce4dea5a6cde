"""What a rate is per, and amounts and quantities as the integers they are computed with.

An amount is a whole number of grains, 10^-34 of a currency: the finest digit that a charge has (clearinghouse.pricing).
A quantity is a whole number of its unit's base. So a call is rated in integers, and a Decimal is made once at the end.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final

from chain.rates import PRICE_DECIMALS
from clearinghouse.ledger.money import show_amount
from clearinghouse.pricing import BPS_DECIMALS, CHARGE_DECIMALS, EXACT, WEI_DECIMALS

GRAIN_DECIMALS: Final = CHARGE_DECIMALS
GRAIN: Final = Fraction(1, 10**GRAIN_DECIMALS)
#: Of what tickets are worth in a currency: wei times a price of ETH.
COST_DECIMALS: Final = WEI_DECIMALS + PRICE_DECIMALS
assert COST_DECIMALS + BPS_DECIMALS == GRAIN_DECIMALS

#: Decimals of a price: times a nanosecond it still fits into a grain. Only a price a minute, with its 60, may not.
UNIT_PRICE_DECIMALS_MAX: Final = 24


class Per(StrEnum):
    """What a price is for."""

    COST = "cost"
    SECOND = "second"
    MINUTE = "minute"
    #: A pixel as lv2v bills them: 1280 x 720 x 30 a second (chain.go_duration.PIXELS_PER_SECOND).
    PIXEL_SECOND = "720p-pixel-second"
    REQUEST = "request"


#: How many of the base make one unit. The base: 10^-30 of the currency, nanosecond, nanosecond, pixel, request.
BASE_PER_UNIT: Final[dict[Per, int]] = {
    Per.COST: 10**COST_DECIMALS,
    Per.SECOND: 10**9,
    Per.MINUTE: 60 * 10**9,
    Per.PIXEL_SECOND: 1,
    Per.REQUEST: 1,
}
assert UNIT_PRICE_DECIMALS_MAX + 9 <= GRAIN_DECIMALS


def to_grains(amount: Decimal) -> int:
    """ValueError for what is finer than a grain, or no number."""
    return _whole(amount, GRAIN_DECIMALS)


def from_grains(grains: int) -> Decimal:
    """The amount, without trailing zeros."""
    return EXACT.normalize(EXACT.scaleb(Decimal(grains), -GRAIN_DECIMALS))


def to_base(quantity: Decimal, per: Per) -> int:
    """A quantity in units of `per`, in its base. ValueError where that is not whole."""
    scaled = Fraction(quantity) * BASE_PER_UNIT[per]
    if scaled.denominator != 1:
        raise ValueError(f"{show_amount(quantity)} is finer than a {per} is measured")
    return scaled.numerator


def from_base(volume: int, per: Per) -> Fraction:
    """The quantity in units of `per`, exactly: a third of a minute is no decimal."""
    return Fraction(volume, BASE_PER_UNIT[per])


def show_fraction(value: Fraction) -> str:
    """All its digits where they end, as show_amount; else numerator/denominator in lowest terms."""
    twos, fives, rest = 0, 0, value.denominator
    while rest % 2 == 0:
        twos, rest = twos + 1, rest // 2
    while rest % 5 == 0:
        fives, rest = fives + 1, rest // 5
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    decimals = max(twos, fives)
    return show_amount(EXACT.scaleb(Decimal(value.numerator * 10**decimals // value.denominator), -decimals))


def _whole(value: Decimal, decimals: int) -> int:
    if not value.is_finite():
        raise ValueError(f"{value} is no amount")
    scaled = EXACT.scaleb(value, decimals)
    whole = int(scaled)
    if whole != scaled:
        raise ValueError(f"{value} has more than {decimals} decimals")
    return whole
