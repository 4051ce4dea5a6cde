"""What calls should have been charged: each by its own card, as the cards were with a version, where its month was.

A month (UTC) is begun anew from its first call, also where a period begins within it: tiers and floors count from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from chain.rates import EthPrice
from clearinghouse.ids import show
from clearinghouse.ledger.money import EXACT
from clearinghouse.rates.card import Floor, Meter, RateUnknown
from clearinghouse.rates.quote import START, Position, Quote, quote_call
from clearinghouse.rates.rules import Rules
from clearinghouse.rates.units import Per
from clearinghouse.rates.usage import Cost, Usage
from settlement.rerating.refusals import NotToBeRerated


@dataclass(frozen=True, slots=True)
class Call:
    """An issuance that was charged by a card. `per` and `quantity` (in the unit's base) are what was sold."""

    id: UUID
    at: datetime
    ev_wei: int
    price: EthPrice
    charged: Decimal
    card: str
    per: Per
    quantity: int | None
    may_be_below_cost: bool
    names: tuple[str, str, str]


class Recharged(NamedTuple):
    """A row of rerated_call."""

    issuance_id: UUID
    charged: Decimal
    charge: Decimal
    rate_rule: int
    quantity: int | None
    at_least_cost: bool
    volume_before: int | None
    lead_before: Decimal | None


class Replay:
    """Calls of one gateway, in the order in which they were committed."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._positions: dict[Meter, Position] = {}
        self._month: tuple[int, int] | None = None

    def recharged(self, call: Call) -> Recharged:
        """Raises NotToBeRerated where its rate is by what was not recorded of it, or it has none."""
        at = call.at.astimezone(UTC)
        month = (at.year, at.month)
        if month != self._month:
            self._month, self._positions = month, {}
        try:
            rule = self._rules.at(call.card, call.at, *call.names)
            counts, rate = rule.rate.counts, rule.rate
            before = self._positions.get(rate.meter, START)
            quote = quote_call(
                rule.version, _usage(call), Cost(call.ev_wei, call.price), before=before if counts else START,
                may_be_below_cost=call.may_be_below_cost,
            )  # fmt: skip
        except RateUnknown as unknown:
            raise NotToBeRerated(
                f"{show('iss', call.id)} was sold per {call.per}, and nothing else was recorded of it: {unknown}"
            ) from unknown
        self._positions[rate.meter] = quote.after if counts else _beyond(before, quote)
        return Recharged(
            call.id, call.charged, quote.charge, rule.id, None if rate.per is Per.COST else quote.volume,
            not (rate.floor is Floor.NONE and call.may_be_below_cost), before.volume if counts else None,
            EXACT.subtract(before.rated, before.cost) if counts else None,
        )  # fmt: skip


def _beyond(before: Position, quote: Quote) -> Position:
    """A rate that needs no position is counted all the same, as the commit does: a further version may have tiers."""
    volume, rated, cost = quote.after
    return Position(before.volume + volume, EXACT.add(before.rated, rated), EXACT.add(before.cost, cost))


def _usage(call: Call) -> Usage:
    """Only what was sold was recorded."""
    usage = Usage(*call.names, requests=None)
    match call.per:
        case Per.SECOND | Per.MINUTE:
            return usage._replace(duration_ns=call.quantity)
        case Per.PIXEL_SECOND:
            return usage._replace(pixels=call.quantity)
        case Per.REQUEST:
            return usage._replace(requests=call.quantity)
        case Per.COST:
            return usage
