"""Amounts and times as messages have them: for people, exact enough to act upon."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import Final

_DAY_S: Final = 86_400
_SHOWN: Final = Decimal("0.000001")
_DIGITS_SHOWN: Final = 4


def eth(wei: int) -> str:
    """Six places, cut and not rounded: a balance below a threshold is never shown as the threshold. Of what is smaller
    the first digits."""
    amount = Decimal(wei).scaleb(-18)
    is_tiny = wei and abs(amount) < _SHOWN
    exponent = Decimal(1).scaleb(amount.adjusted() - _DIGITS_SHOWN + 1) if is_tiny else _SHOWN
    text = f"{amount.quantize(exponent, rounding=ROUND_DOWN):f}"
    return f"{text.rstrip('0').rstrip('.')} ETH"


def span(seconds: int) -> str:
    """Two units at most: 2 days 3 hours, 45 minutes, 12 s."""
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60} minutes"
    if seconds < 2 * _DAY_S:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // _DAY_S} days {seconds % _DAY_S // 3600} h"


def percent(bps: int) -> str:
    """Of basis points, cut to a hundredth."""
    return f"{bps // 100}.{bps % 100:02d} %"
