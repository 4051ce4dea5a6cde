"""What a call is charged by its rate, with every number that explains it.

    usage ─▶ volume ─▶ tiers ─▶ minimum ─▶ rated ┐
    n·EV  ─▶ price of ETH ──────────────▶ cost   ┴▶ floor ─▶ charge

Tiers and the floor depend on what came before in the period: the Position. Whoever debits by a quote reads the position
and writes the one after it in the same transaction. The gate before signing knows no position: clearinghouse.rating.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from clearinghouse.ledger.money import show_amount
from clearinghouse.rates.card import CardVersion, Floor, Rate, RateUnknown
from clearinghouse.rates.units import (
    BASE_PER_UNIT,
    GRAIN_DECIMALS,
    Per,
    from_base,
    from_grains,
    show_fraction,
    to_grains,
)
from clearinghouse.rates.usage import Cost, Usage

_GRAINS_PER_COST: Final[int] = 10**GRAIN_DECIMALS // BASE_PER_UNIT[Per.COST]


class Position(NamedTuple):
    """How far a period has come on a meter (clearinghouse.rates.card.Meter): sums over its calls so far.

    `volume` is in the base of the meter's unit, `rated` and `cost` are in the card's currency.
    """

    volume: int = 0
    rated: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)


START: Final = Position()


class TierPart(NamedTuple):
    """The part of a quantity that one tier prices, in units; `amount` is exact."""

    price: Decimal
    quantity: Fraction
    amount: Fraction


class Quote(NamedTuple):
    """A charge, and how it came about. Amounts are in `currency` and have at most 34 decimals."""

    card: str
    version: int
    currency: str
    rate: Rate
    usage: Usage
    costs: Cost
    #: The rate's, unless that is NONE and the plan does not allow it.
    floor: Floor
    #: In the base of the rate's unit.
    volume: int
    #: By the tiers.
    usage_amount: Decimal
    #: That, and at least the minimum charge.
    rated: Decimal
    #: What the tickets are worth.
    cost: Decimal
    charge: Decimal
    before: Position
    after: Position

    @property
    def quantity(self) -> Fraction:
        """In the rate's unit."""
        return from_base(self.volume, self.rate.per)

    @property
    def by_floor(self) -> Decimal:
        """What the floor added; below 0 what it had added earlier in the period and this call now uses up."""
        return from_grains(to_grains(self.charge) - to_grains(self.rated))

    @property
    def margin(self) -> Decimal:
        """The charge less the cost."""
        return from_grains(to_grains(self.charge) - to_grains(self.cost))

    @property
    def parts(self) -> tuple[TierPart, ...]:
        """The quantity by tier."""
        split = self.rate.split(self.before.volume, self.after.volume)
        quantities = [(tier.price, from_base(volume, self.rate.per)) for tier, volume in split]
        return tuple(TierPart(price, quantity, Fraction(price) * quantity) for price, quantity in quantities)

    @property
    def rounding(self) -> Fraction:
        """`usage_amount` less the exact sum of its parts: nothing, or between -10^-34 and 10^-34.

        Over a period's calls it stays there, because each is charged the difference of two rounded totals.
        """
        return Fraction(self.usage_amount) - sum((part.amount for part in self.parts), Fraction(0))

    def explanation(self) -> dict[str, object]:
        """The same as plain strings, for JSON. No digit is lost: what is no decimal is written as a fraction."""
        rate, eth = self.rate, self.costs.eth
        return {
            "card": self.card,
            "version": self.version,
            "currency": self.currency,
            "rate": str(rate.meter),
            "per": rate.per.value,
            "quantity": show_fraction(self.quantity),
            "quantity_before": show_fraction(from_base(self.before.volume, rate.per)),
            "parts": [
                {
                    "price": show_amount(part.price),
                    "quantity": show_fraction(part.quantity),
                    "amount": show_fraction(part.amount),
                }
                for part in self.parts
            ],
            "rounding": show_fraction(self.rounding),
            "usage_amount": show_amount(self.usage_amount),
            "minimum_charge": show_amount(rate.minimum_charge),
            "rated": show_amount(self.rated),
            "ev_wei": str(self.costs.ev_wei),
            "eth_price": show_amount(eth.value),
            "eth_price_source": eth.cited,
            "cost": show_amount(self.cost),
            "floor": self.floor.value,
            "by_floor": show_amount(self.by_floor),
            "charge": show_amount(self.charge),
            "margin": show_amount(self.margin),
        }


def quote_call(
    card: CardVersion, usage: Usage, cost: Cost, *, before: Position = START, may_be_below_cost: bool = False
) -> Quote:
    """The charge for a call that comes after `before`. `may_be_below_cost` is what the gateway's plan allows.

    The currency is the card's, so the cost must be priced in it. Raises RateUnknown where the card has no rate for the
    call, or one by what was not measured, and ValueError for another currency or a position that cannot be.
    """
    rate = card.rate(usage.application, usage.pipeline, usage.model)
    cost_grains = _cost_grains(card, cost)
    volume = volume_of(rate, usage, cost_grains)
    if before.volume < 0:
        raise ValueError(f"a period cannot have come to {before.volume}")
    usage_grains = rate.total_grains(before.volume + volume) - rate.total_grains(before.volume)
    rated = max(usage_grains, rate.minimum_grains) if volume or cost_grains else 0
    rated_before, cost_before = to_grains(before.rated), to_grains(before.cost)
    floor = Floor.PERIOD if rate.floor is Floor.NONE and not may_be_below_cost else rate.floor
    charge = _floored(floor, rated=rated, cost=cost_grains, rated_before=rated_before, cost_before=cost_before)
    return Quote(
        card=card.card,
        version=card.version,
        currency=card.currency,
        rate=rate,
        usage=usage,
        costs=cost,
        floor=floor,
        volume=volume,
        usage_amount=from_grains(usage_grains),
        rated=from_grains(rated),
        cost=from_grains(cost_grains),
        charge=from_grains(charge),
        before=before,
        after=Position(
            before.volume + volume, from_grains(rated_before + rated), from_grains(cost_before + cost_grains)
        ),
    )


def volume_of(rate: Rate, usage: Usage, cost_grains: int) -> int:
    """What of the call the rate is by, in the base of its unit. Raises RateUnknown where it was not measured."""
    measured = {
        Per.COST: cost_grains // _GRAINS_PER_COST,
        Per.SECOND: usage.duration_ns,
        Per.MINUTE: usage.duration_ns,
        Per.PIXEL_SECOND: usage.pixels,
        Per.REQUEST: usage.requests,
    }[rate.per]
    if measured is None:
        raise RateUnknown(f"The rate {rate.meter} is per {rate.per}, which was not measured of this call.")
    if measured < 0:
        raise ValueError(f"a call cannot have used {measured}")
    return measured


def _cost_grains(card: CardVersion, cost: Cost) -> int:
    if cost.eth.currency != card.currency:
        raise ValueError(f"the rate card {card.card} is in {card.currency}, the cost in {cost.eth.currency}")
    return cost.grains()


def _floored(floor: Floor, *, rated: int, cost: int, rated_before: int, cost_before: int) -> int:
    """The charge in grains; never below 0, because neither sum of a period ever falls.

    PERIOD: the calls so far were charged the larger of the two sums, and so are these with this one.
    """
    match floor:
        case Floor.NONE:
            return rated
        case Floor.CALL:
            return max(rated, cost)
        case Floor.PERIOD:
            return max(rated_before + rated, cost_before + cost) - max(rated_before, cost_before)
