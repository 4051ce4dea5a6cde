"""Amounts, durations and exact numbers as people write them on a command line: 2.5eth, 8gwei, 7d, 0.001."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

import typer

_WEI: Final = {"": 1, "wei": 1, "gwei": 10**9, "eth": 10**18}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_NUMBER: Final = re.compile(r"([0-9]{1,40}(?:\.[0-9]{1,40})?)\s*([A-Za-z]*)")


def number(text: str) -> Fraction:
    """An exact number that is not negative."""
    value, unit = _split(text, "a number such as 100 or 0.5")
    if unit:
        raise typer.BadParameter(f"{text!r} is a number with a unit; write the number alone")
    return value


def price_wei(text: str) -> Fraction:
    """Wei for a unit of work, where parts of a wei are fine."""
    value, unit = _split(text, "an amount such as 2.5eth, 8gwei or 8000000000")
    if unit not in _WEI:
        raise typer.BadParameter(f"{text!r} has an unknown unit; there are wei, gwei and eth")
    return value * _WEI[unit]


def amount_wei(text: str) -> int:
    """Wei, of which there are no parts; without a unit it is wei."""
    wei = price_wei(text)
    if wei.denominator != 1:
        raise typer.BadParameter(f"{text!r} is a part of a wei, which cannot be divided")
    return wei.numerator


def duration_s(text: str) -> int:
    """Seconds, of a number with a unit."""
    value, unit = _split(text, "a duration such as 7d, 12h, 30m or 90s")
    if unit not in _SECONDS:
        raise typer.BadParameter(f"{text!r} needs one of the units s, m, h and d")
    return int(value * _SECONDS[unit])


def eth(wei: int) -> str:
    """For people: 6 places, or more where it would be nothing."""
    value = Decimal(wei).scaleb(-18)
    return f"{value:.6f} ETH" if not wei or abs(wei) >= 10**12 else f"{wei} wei"


def _split(text: str, example: str) -> tuple[Fraction, str]:
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not {example}")
    return Fraction(found[1]), found[2].lower()
