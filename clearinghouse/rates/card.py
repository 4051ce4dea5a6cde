"""A rate card as a frozen value: its rates, their tiers, and which rate a call gets.

The most specific rate wins, and of what it says of a call the application counts most, then the pipeline, then the
model (SPECIFICITY): who agreed on a price for an application has it for all it does, unless a rate says more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from clearinghouse.pricing import BPS_DECIMALS
from clearinghouse.rates.units import BASE_PER_UNIT, UNIT_PRICE_DECIMALS_MAX, Per, from_base, show_fraction, to_grains

#: Which of application, pipeline and model a rate names: the order in which a call's rate is sought.
SPECIFICITY: Final = (
    (True, True, True),
    (True, True, False),
    (True, False, True),
    (True, False, False),
    (False, True, True),
    (False, True, False),
    (False, False, True),
    (False, False, False),
)

_Path = tuple[str | int, ...]


class RateUnknown(RuntimeError):
    """There is no price for this call: nothing may be charged, so nothing may be released (promise 7)."""


class CardProblem(ValueError):
    """A card cannot be so. `path` leads from the checked value to the field that is wrong."""

    def __init__(self, path: _Path, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


class Floor(StrEnum):
    """How far a charge is held at or above what the tickets cost. PERIOD and CALL never let a period cost more than
    it brings, at any time within it; they differ where tickets come in lumps, one being worth many calls.
    """

    #: A call is charged what the period's cost demands beyond what was charged already: a lump is paid for once.
    PERIOD = "period"
    #: Each call is charged its own cost at least, whatever the ones before brought.
    CALL = "call"
    #: Holds only where the gateway's plan allows it; elsewhere it is PERIOD.
    NONE = "none"


class Tier(NamedTuple):
    """The price of the units of a period beyond the tier before, up to and including `up_to` (in the unit's base).

    The last tier has no end: None.
    """

    up_to: int | None
    price: Decimal


class Meter(NamedTuple):
    """What a period's volume is counted by: all calls that one rate is for, whatever its card's version.

    A rate that changes what it is per begins to count anew.
    """

    per: Per
    application: str | None
    pipeline: str | None
    model: str | None

    def __str__(self) -> str:
        names = (self.application, self.pipeline, self.model)
        return f"{self.per}:" + "/".join("*" if name is None else name for name in names)


class Step(NamedTuple):
    """A tier, and what all below it costs: in grains, times the base per unit."""

    begin: int
    price_grains: int
    below: int


@dataclass(frozen=True, slots=True)
class Rate:
    """What calls that fit cost per unit. None for a name: any. Tiers are graduated: each prices its own units only.

    For Per.COST a price is what is charged per unit of cost: 1.05 is 500 basis points on top. `minimum_charge` is of a
    call that used or cost something. Raises CardProblem.
    """

    per: Per
    tiers: tuple[Tier, ...]
    application: str | None = None
    pipeline: str | None = None
    model: str | None = None
    floor: Floor = Floor.PERIOD
    minimum_charge: Decimal = Decimal(0)
    meter: Meter = field(init=False, repr=False, compare=False)
    minimum_grains: int = field(init=False, repr=False, compare=False)
    steps: tuple[Step, ...] = field(init=False, repr=False, compare=False)
    _price_grains_max: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _require_names(self)
        _require_tiers(self.tiers, self.per)
        if self.per is Per.COST and self.floor is not Floor.NONE:
            for index, tier in enumerate(self.tiers):
                if tier.price < 1:
                    raise CardProblem(("tiers", index), 'is below cost, which only floor = "none" may be')
        if not self.minimum_charge.is_finite() or self.minimum_charge < 0:
            raise CardProblem(("minimum_charge",), "is an amount of 0 or more")
        set_once = object.__setattr__  # frozen: derived values are set here and nowhere else
        set_once(self, "meter", Meter(self.per, self.application, self.pipeline, self.model))
        set_once(self, "minimum_grains", to_grains(self.minimum_charge))
        set_once(self, "steps", _steps_of(self.tiers))
        set_once(self, "_price_grains_max", max(step.price_grains for step in self.steps))

    @property
    def counts(self) -> bool:
        """Whether a charge depends on the calls before it: by its tier, or because the floor looks at sums.

        What is charged on top of each call's cost does not.
        """
        return self.per is not Per.COST or len(self.tiers) > 1 or self.tiers[0].price < 1

    @property
    def names(self) -> tuple[str | None, str | None, str | None]:
        return self.application, self.pipeline, self.model

    def total_grains(self, volume: int) -> int:
        """What the first `volume` of a period cost, rounded up to a grain; the grain matters to prices a minute only.

        A call is charged the difference of two totals, so that the roundings of a period never add up.
        """
        step = self.steps[self._tier_at(volume)]
        return -(-(step.below + step.price_grains * (volume - step.begin)) // BASE_PER_UNIT[self.per])

    def grains_max(self, volume: int) -> int:
        """What `volume` costs at most, wherever in a period it comes: at the dearest tier."""
        return -(-self._price_grains_max * volume // BASE_PER_UNIT[self.per])

    def split(self, begin: int, end: int) -> tuple[tuple[Tier, int], ...]:
        """The volume from `begin` to `end` by tier, those that have a part of it only."""
        parts = []
        for tier, step in zip(self.tiers, self.steps, strict=True):
            last = end if tier.up_to is None else min(end, tier.up_to)
            part = last - max(begin, step.begin)
            if part > 0:
                parts.append((tier, part))
        return tuple(parts)

    def _tier_at(self, volume: int) -> int:
        """Of the tier that the last of `volume` is in. There are few: a walk is faster than a search."""
        index = len(self.steps) - 1
        while index and volume <= self.steps[index].begin:
            index -= 1
        return index


@dataclass(frozen=True, slots=True)
class CardVersion:
    """A rate card from an instant on, until its next version. Raises CardProblem; what was valid never changes."""

    card: str
    version: int
    currency: str
    effective_from: datetime
    rates: tuple[Rate, ...]
    note: str = ""
    _by_names: Mapping[tuple[str | None, str | None, str | None], Rate] = field(init=False, repr=False, compare=False)
    _patterns: tuple[tuple[bool, bool, bool], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.version < 1:
            raise CardProblem(("version",), f"is a number from 1 on, not {self.version}")
        if self.effective_from.tzinfo is None:
            raise CardProblem(("effective_from",), "needs a time zone: local time would be a guess")
        if not self.rates:
            raise CardProblem(("rates",), "is empty: a card without a rate prices nothing")
        object.__setattr__(self, "_by_names", MappingProxyType(_by_names(self.rates)))
        used = {_pattern(rate.names) for rate in self.rates}
        object.__setattr__(self, "_patterns", tuple(pattern for pattern in SPECIFICITY if pattern in used))

    def rate(self, application: str, pipeline: str, model: str) -> Rate:
        """Of such a call: at most eight look-ups, however many rates there are. Raises RateUnknown."""
        rates = self._by_names
        for by_application, by_pipeline, by_model in self._patterns:
            names = (application if by_application else None, pipeline if by_pipeline else None,
                     model if by_model else None)  # fmt: skip
            if (found := rates.get(names)) is not None:
                return found
        raise RateUnknown(
            f"Version {self.version} of the rate card {self.card} has no rate for the application {application!r}, "
            f"pipeline {pipeline!r}, model {model!r}."
        )


def _pattern(names: tuple[str | None, str | None, str | None]) -> tuple[bool, bool, bool]:
    application, pipeline, model = names
    return application is not None, pipeline is not None, model is not None


def _by_names(rates: Sequence[Rate]) -> dict[tuple[str | None, str | None, str | None], Rate]:
    found: dict[tuple[str | None, str | None, str | None], int] = {}
    for index, rate in enumerate(rates):
        other = found.setdefault(rate.names, index)
        if other != index:
            raise CardProblem(("rates", index), f"is for the same calls as rates[{other}]: keep one of them")
    return {rate.names: rate for rate in rates}


def _require_names(rate: Rate) -> None:
    for name, value in zip(("application", "pipeline", "model"), rate.names, strict=True):
        if value == "":
            raise CardProblem((name,), "is empty: leave it out where any will do")


def _require_tiers(tiers: Sequence[Tier], per: Per) -> None:
    if not tiers:
        raise CardProblem(("tiers",), "is empty: give a price")
    begin = 0
    for index, tier in enumerate(tiers):
        if not tier.price.is_finite() or tier.price < 0:
            raise CardProblem(("tiers", index, "price"), "is an amount of 0 or more")
        _require_price_fits(tier.price, per, index)
        is_last = index == len(tiers) - 1
        if tier.up_to is None and not is_last:
            raise CardProblem(("tiers", index, "up_to"), "is missing: only the last tier has no end")
        if tier.up_to is not None and is_last:
            raise CardProblem(("tiers", index, "up_to"), "is on the last tier, which has no end")
        if tier.up_to is not None and tier.up_to <= begin:
            before = show_fraction(from_base(begin, per))
            raise CardProblem(("tiers", index, "up_to"), f"is not above {before}, where the tier before ends")
        begin = tier.up_to or begin


def _require_price_fits(price: Decimal, per: Per, index: int) -> None:
    decimals_max = BPS_DECIMALS if per is Per.COST else UNIT_PRICE_DECIMALS_MAX
    exponent = price.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -decimals_max:
        raise CardProblem(("tiers", index, "price"), f"has more than {decimals_max} decimals")


def _steps_of(tiers: Sequence[Tier]) -> tuple[Step, ...]:
    steps, begin, below = [], 0, 0
    for tier in tiers:
        price = to_grains(tier.price)
        steps.append(Step(begin, price, below))
        end = begin if tier.up_to is None else tier.up_to
        below += price * (end - begin)
        begin = end
    return tuple(steps)
