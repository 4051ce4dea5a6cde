"""Amounts in minor units, and the one rounding that Stripe does: half away from zero."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Final

from settlement.stripe_local.errors import StripeError

AMOUNT_MAX: Final = 99_999_999
#: The smallest charge, in minor units; 50 where a currency is not named. Stripe's own list is longer.
_MINIMUM: Final = {"chf": 50, "dkk": 250, "eur": 50, "gbp": 30, "huf": 17_500, "jpy": 50, "pln": 200, "sek": 300}


def minimum_charge(currency: str) -> int:
    """The smallest amount that can be charged."""
    return _MINIMUM.get(currency, 50)


def rounded(value: Decimal) -> int:
    """To whole minor units, half away from zero."""
    return int(value.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def product(unit_amount: str, quantity: str) -> int:
    """Quantity times price of a unit (in minor units, up to 12 decimals), rounded once."""
    with localcontext(prec=60):
        return rounded(Decimal(unit_amount) * Decimal(quantity))


def share(amount: int, percent: str | float, *, inclusive: bool = False) -> int:
    """The tax on an amount: on top of it, or the part of it that is tax. Rounded once."""
    rate = Decimal(str(percent))
    with localcontext(prec=60):
        return rounded(amount * rate / (100 + rate) if inclusive else amount * rate / 100)


def plain(value: str) -> str:
    """A decimal as Stripe writes it: without trailing zeros."""
    text = format(Decimal(value), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def require_chargeable(amount: int, currency: str) -> None:
    """Raises StripeError for an amount that no card can be charged with."""
    if amount < minimum_charge(currency):
        text = f"Amount must convert to at least {minimum_charge(currency)} minor units of {currency}."
        raise StripeError(text, code="amount_too_small", param="amount")
    if amount > AMOUNT_MAX:
        raise StripeError("Amount must be no more than 99999999.", code="amount_too_large", param="amount")
