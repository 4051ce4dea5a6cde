"""Amounts of money: exact decimals, one spelling in and one spelling out.

Nothing here rounds. Amounts are computed in SQL or under `EXACT`: Python's default context silently keeps 28 digits,
and a charge of wei x price x markup has up to 34 after the point alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from typing import Final

from clearinghouse.errors import InvalidRequest

#: Raises decimal.Inexact rather than lose a digit. 40 digits before the point and 34 after it fit twice over.
EXACT: Final = Context(
    prec=160, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero]
)

_AMOUNT: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_CURRENCY: Final = re.compile(r"[A-Z]{3,8}", re.ASCII)

_WHOLE_DIGITS_MAX: Final = 15  # a thousand billions: far above any account, far below the database's 10^40
_FIAT_DECIMALS_MAX: Final = 12
_ETH_DECIMALS_MAX: Final = 18  # one wei
_INPUT_CHARS_MAX: Final = 64


def parse_currency(text: str) -> str:
    """`USD`, `EUR`, `ETH`…: 3 to 8 capital letters. InvalidRequest otherwise."""
    if _CURRENCY.fullmatch(text) is None:
        hint = f" (did you mean {text.upper()}?)" if _CURRENCY.fullmatch(text.upper()) else ""
        raise InvalidRequest(f"a currency is 3 to 8 capital letters, such as USD{hint}, not {_quote(text)}")
    return text


def parse_amount(text: str, *, currency: str, may_be_zero: bool = False) -> Decimal:
    """A decimal string such as "12.50": digits, perhaps a point and digits; no sign, exponent, space or grouping.

    At most 15 digits before the point, and after it 18 for ETH (one wei) and 12 for every other currency; trailing
    zeros count. InvalidRequest says which of these was violated.
    """
    found = _AMOUNT.fullmatch(text) if len(text) <= _INPUT_CHARS_MAX else None
    if found is None:
        raise InvalidRequest(f"an amount is a plain decimal number such as 12.50, not {_quote(text)}")
    whole, decimals = found[1], found[2] or ""
    if len(whole.lstrip("0")) > _WHOLE_DIGITS_MAX:
        raise InvalidRequest(f"the amount {text} is too large: at most {_WHOLE_DIGITS_MAX} digits before the point")
    decimals_max = _ETH_DECIMALS_MAX if currency == "ETH" else _FIAT_DECIMALS_MAX
    if len(decimals) > decimals_max:
        raise InvalidRequest(f"the amount {text} is too fine: {currency} has at most {decimals_max} decimals here")
    amount = Decimal(text)
    if not amount and not may_be_zero:
        raise InvalidRequest("the amount must be greater than 0")
    return amount


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Raises decimal.Inexact rather than lose a digit, and ValueError for a NaN or an infinity."""
    total = Decimal(0)
    for amount in amounts:
        if not amount.is_finite():
            raise ValueError(f"{amount} is no amount")
        total = EXACT.add(total, amount)
    return total


def show_amount(amount: Decimal) -> str:
    """Plain notation, every digit, no exponent, no trailing zeros: "9.9877", "0", "-3.5". ValueError for a NaN."""
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    elif not text[-1:].isdigit():
        raise ValueError(f"{amount} is no amount")
    return "0" if text == "-0" else text


def _quote(text: str) -> str:
    return repr(text if len(text) <= _INPUT_CHARS_MAX else text[:_INPUT_CHARS_MAX] + "…")
