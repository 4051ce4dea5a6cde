"""What a call costs its gateway: n·EV in wei, at the price of ETH, plus the markup. Pure, exact, never rounded."""

from __future__ import annotations

from decimal import MAX_PREC, Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache

from chain.rates import PRICE_DECIMALS, EthPrice

WEI_DECIMALS = 18
BPS_DECIMALS = 4
CHARGE_DECIMALS = WEI_DECIMALS + PRICE_DECIMALS + BPS_DECIMALS

#: Wide enough for any product here; a result that does not fit is an error, never a rounded amount.
EXACT = Context(prec=400, traps=[Inexact, InvalidOperation])
assert EXACT.prec <= MAX_PREC


def charge(ev_wei: int, *, price: EthPrice, markup_bps: int, minimum_charge: Decimal) -> Decimal:
    """The charge in the price's currency for tickets worth `ev_wei`: at least `minimum_charge`, exact to the digit."""
    return max(_marked_up(ev_wei, price.value, markup_bps), minimum_charge)


@lru_cache(1024)  # the tickets of an offer are worth the same, call after call, at a price that holds for a while
def _marked_up(ev_wei: int, price: Decimal, markup_bps: int) -> Decimal:
    """Normalised: prices that are equal, however they are written, give the same digits."""
    scaled_price = int(EXACT.scaleb(price, PRICE_DECIMALS))
    units = ev_wei * scaled_price * (10**BPS_DECIMALS + markup_bps)
    return EXACT.normalize(EXACT.scaleb(Decimal(units), -CHARGE_DECIMALS))
