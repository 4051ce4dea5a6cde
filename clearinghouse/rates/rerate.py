"""A period rated anew: what its calls should have been charged, and the difference to what they were.

Where a card was wrong, its correction is published, the period is rated by it, and the differences become a credit note
and a new invoice. Rating by the same cards gives no difference, so it may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from clearinghouse.rates.book import RateBook
from clearinghouse.rates.card import Meter
from clearinghouse.rates.quote import START, Position, Quote
from clearinghouse.rates.units import from_base, from_grains, to_grains
from clearinghouse.rates.usage import Cost, Usage


class ChargedCall(NamedTuple):
    """A call as it was charged, at its issuance's time. `may_be_below_cost` is what the plan allowed then."""

    at: datetime
    usage: Usage
    cost: Cost
    charge: Decimal
    may_be_below_cost: bool = False


class LineKey(NamedTuple):
    """What becomes a line of an invoice: one per application and pipeline, and per rate."""

    application: str
    pipeline: str
    meter: Meter


class Line(NamedTuple):
    """Sums over the calls of a line; amounts in the card's currency, exact."""

    key: LineKey
    calls: int
    #: In the base of the meter's unit.
    volume: int
    ev_wei: int
    cost: Decimal
    #: As it was charged, and as it should have been.
    charged: Decimal
    rated: Decimal

    @property
    def difference(self) -> Decimal:
        """To be charged in addition; below 0: to be given back."""
        return from_grains(to_grains(self.rated) - to_grains(self.charged))

    @property
    def quantity(self) -> Fraction:
        """In the meter's unit."""
        return from_base(self.volume, self.key.meter.per)

    @property
    def average_rate(self) -> Fraction | None:
        """What a unit should have been charged on average; None where none was used."""
        return Fraction(self.rated) / self.quantity if self.volume else None


class Rerating(NamedTuple):
    """Lines in the order of their keys, and how far the period has come on each meter."""

    currency: str | None
    lines: tuple[Line, ...]
    positions: Mapping[Meter, Position]

    @property
    def difference(self) -> Decimal:
        """Of all lines."""
        return from_grains(sum(to_grains(line.difference) for line in self.lines))


def quotes(
    calls: Iterable[ChargedCall], *, book: RateBook, card: str, positions: dict[Meter, Position] | None = None
) -> Iterator[tuple[ChargedCall, Quote]]:
    """Each call with its quote by `book`, as it would have been at its time. `positions` is kept up to date.

    The calls of one gateway, in the order of their times: ValueError otherwise. Raises RateUnknown. Needs memory for
    the meters only, however many calls there are.
    """
    positions = {} if positions is None else positions
    latest: datetime | None = None
    for call in calls:
        if latest is not None and call.at < latest:
            raise ValueError(f"a call at {call.at.isoformat()} comes after one at {latest.isoformat()}")
        latest = call.at
        version = book.at(card, call.at)
        meter = version.rate(*call.usage[:3]).meter
        quote = book.quote(
            card, call.usage, call.cost, call.at,
            before=positions.get(meter, START), may_be_below_cost=call.may_be_below_cost,
        )  # fmt: skip
        positions[meter] = quote.after
        yield call, quote


def rerate(calls: Iterable[ChargedCall], *, book: RateBook, card: str) -> Rerating:
    """The calls of one period of one gateway, from the period's first on, rated by `book`. Raises as `quotes` does."""
    positions: dict[Meter, Position] = {}
    sums: dict[LineKey, _Sums] = {}
    currency = None
    for call, quote in quotes(calls, book=book, card=card, positions=positions):
        currency = quote.currency
        key = LineKey(call.usage.application, call.usage.pipeline, quote.rate.meter)
        sums.setdefault(key, _Sums()).add(call, quote)
    lines = tuple(sums[key].line(key) for key in sorted(sums, key=lambda key: (key[0], key[1], str(key.meter))))
    return Rerating(currency, lines, positions)


@dataclass(slots=True)
class _Sums:
    """Integers, because a million calls are summed. Amounts are in grains."""

    calls: int = 0
    volume: int = 0
    ev_wei: int = 0
    amounts: dict[str, int] = field(default_factory=lambda: {"cost": 0, "charged": 0, "rated": 0})

    def add(self, call: ChargedCall, quote: Quote) -> None:
        self.calls += 1
        self.volume += quote.volume
        self.ev_wei += call.cost.ev_wei
        for name, amount in (("cost", quote.cost), ("charged", call.charge), ("rated", quote.charge)):
            self.amounts[name] += to_grains(amount)

    def line(self, key: LineKey) -> Line:
        amounts = {name: from_grains(grains) for name, grains in self.amounts.items()}
        return Line(key, self.calls, self.volume, self.ev_wei, **amounts)
