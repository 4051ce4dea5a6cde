"""What a call of a gateway would be charged by a rate card: for the command line and for the management API alike."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from chain.rates import EthPrice
from clearinghouse import rate_store
from clearinghouse.errors import InvalidRequest
from clearinghouse.ledger.money import parse_amount
from clearinghouse.rates.quote import START, Position, Quote, quote_call
from clearinghouse.rates.units import BASE_PER_UNIT, Per
from clearinghouse.rates.usage import Cost, Usage

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from clearinghouse.identity.gateways import Gateway
    from clearinghouse.rates.card import CardVersion


class Standing(NamedTuple):
    """What of a gateway a quote depends on."""

    may_be_below_cost: bool
    before: Position = START


async def standing_of(
    connection: AsyncConnection, gateway: Gateway, card: CardVersion | None, usage: Usage, at: datetime
) -> tuple[CardVersion, Standing]:
    """The card that holds for it then, unless one is given, and how far its month has come.

    InvalidRequest where it is on no card; RateUnknown where none holds then, or none of its rates is for such a call.
    """
    name, may_be_below_cost = await rate_store.card_of(connection, gateway.id)
    if card is None:
        if name is None:
            raise InvalidRequest(f"{gateway.name} is on no rate card: its calls are charged by its markup")
        card = (await rate_store.read_rules(connection)).book.at(name, at)
    meter = card.rate(*usage[:3]).meter
    return card, Standing(may_be_below_cost, await rate_store.position(connection, gateway.id, meter, at))


def quoted(card: CardVersion, standing: Standing, usage: Usage, cost: Cost, after: Fraction | None = None) -> Quote:
    """`after`: so many units, in place of where the gateway stands. ValueError where they are finer than measured."""
    per = card.rate(*usage[:3]).per
    before = standing.before if after is None else Position(whole(after * BASE_PER_UNIT[per]))
    return quote_call(card, usage, cost, before=before, may_be_below_cost=standing.may_be_below_cost)


def cost_of(card: CardVersion, ev_wei: int, eth_price: str | None) -> Cost:
    """ValueError without a price for what is worth something; InvalidRequest for what is no amount."""
    if eth_price is None and ev_wei:
        raise ValueError(f"what {ev_wei} wei cost depends on it")
    price = Decimal(1) if eth_price is None else parse_amount(eth_price, currency=card.currency)
    return Cost(ev_wei, EthPrice(card.currency, price, "given", datetime.now(UTC)))


def nanoseconds(seconds: Fraction | None) -> int | None:
    """ValueError where they are finer."""
    return None if seconds is None else whole(seconds * BASE_PER_UNIT[Per.SECOND])


def whole(value: Fraction) -> int:
    """ValueError where it is not."""
    if value.denominator != 1:
        raise ValueError("this is finer than it is measured")
    return value.numerator
