"""Between the books' amounts and Stripe's: exact, or refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from clearinghouse.errors import InvalidRequest
from clearinghouse.ledger.money import show_amount
from settlement.currencies import currency

#: Stripe takes at most so many minor units at once.
MAXIMUM_MINOR: Final = 99_999_999


def minor_of(amount: Decimal, code: str) -> int:
    """What Stripe is asked for. InvalidRequest where it cannot be paid: too fine, too little, too much."""
    minor = exact_minor(amount, code)
    least = currency(code).minimum_minor or 1
    if minor < least:
        raise InvalidRequest(f"{show_amount(amount)} {code} is too little: at least {show(least, code)} can be paid")
    if minor > MAXIMUM_MINOR:
        raise InvalidRequest(f"{show_amount(amount)} {code} is too much at once: at most {show(MAXIMUM_MINOR, code)}")
    return minor


def exact_minor(amount: Decimal, code: str) -> int:
    """However little, as what goes back may be. InvalidRequest where it is finer than what can be paid."""
    known = currency(code)
    if amount % known.unit:
        raise InvalidRequest(f"{show_amount(amount)} {code} cannot be paid: the smallest unit is {known.unit} {code}")
    return int(amount.scaleb(known.decimals))


def amount_of(minor: int, code: str) -> Decimal:
    """What Stripe's minor units of a currency (in any case of letters) are in the books."""
    return Decimal(minor).scaleb(-currency(code.upper()).decimals)


def show(minor: int, code: str) -> str:
    """`12.50 USD`."""
    return f"{show_amount(amount_of(minor, code))} {code.upper()}"
