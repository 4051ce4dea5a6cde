"""How numbers are written where the reader lives. The facts are CLDR's, and a test compares them with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from clearinghouse.ledger.money import show_amount

_NO_BREAK: Final = "\u00a0"
_NARROW: Final = "\u202f"  # no-break as well
_MINUS: Final = "\u2212"


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """`group_min` is how many digits must stand left of the first separator for there to be any: 1234 but 12 345."""

    decimal: str
    group: str
    minus: str = "-"
    group_min: int = 1
    later_groups: int = 3  # digits in every group but the last, which has three
    currency_first: bool = False

    def number(self, amount: Decimal, decimals: int | None = None) -> str:
        """Every digit; with `decimals`, filled up with zeros to that many. ValueError where that would lose a digit."""
        whole, _, fraction = show_amount(amount.copy_abs()).partition(".")
        if decimals is not None:
            if len(fraction) > decimals:
                raise ValueError(f"{amount} has more than {decimals} decimals: round it first")
            fraction = fraction.ljust(decimals, "0")
        sign = self.minus if amount < 0 else ""
        return sign + self._grouped(whole) + (self.decimal + fraction if fraction else "")

    def money(self, amount: Decimal, currency: str, decimals: int) -> str:
        """With the currency's code rather than its symbol, as what $ means depends on who reads it, and with the minus
        at the number, whatever stands first."""
        number = self.number(amount, decimals)
        return f"{currency}{_NO_BREAK}{number}" if self.currency_first else f"{number}{_NO_BREAK}{currency}"

    def _grouped(self, whole: str) -> str:
        if len(whole) < 3 + self.group_min:
            return whole
        head, groups = whole[:-3], [whole[-3:]]
        while head:
            groups.append(head[-self.later_groups :])
            head = head[: -self.later_groups]
        return self.group.join(reversed(groups))


_POINT: Final = NumberFormat(".", ",", currency_first=True)
_COMMA: Final = NumberFormat(",", ".")
_COMMA_FROM_5: Final = NumberFormat(",", ".", group_min=2)
_SPACE: Final = NumberFormat(",", _NO_BREAK)
_SPACE_FROM_5: Final = NumberFormat(",", _NO_BREAK, group_min=2)
_NORDIC: Final = NumberFormat(",", _NO_BREAK, minus=_MINUS)
_SWISS: Final = NumberFormat(".", "\u2019", currency_first=True)
_INDIAN: Final = NumberFormat(".", ",", later_groups=2, currency_first=True)

FORMATS: Final[dict[str, NumberFormat]] = {
    "cs": _SPACE,
    "da": _COMMA,
    "de": _COMMA,
    "de-CH": _SWISS,
    "el": _COMMA,
    "en": _POINT,
    "en-IN": _INDIAN,
    "en-ZA": NumberFormat(",", _NO_BREAK, currency_first=True),
    "es": _COMMA_FROM_5,
    "es-AR": NumberFormat(",", ".", currency_first=True),
    "es-MX": _POINT,
    "fi": _NORDIC,
    "fr": NumberFormat(",", _NARROW),
    "hi": _INDIAN,
    "it": _COMMA_FROM_5,
    "it-CH": replace(_SWISS, group_min=2),
    "ja": _POINT,
    "ko": _POINT,
    "nb": _NORDIC,
    "nl": NumberFormat(",", ".", currency_first=True),
    "pl": _SPACE_FROM_5,
    "pt": NumberFormat(",", ".", currency_first=True),
    "pt-PT": _SPACE_FROM_5,
    "ru": _SPACE,
    "sv": _NORDIC,
    "tr": NumberFormat(",", ".", currency_first=True),
    "uk": _SPACE,
    "zh": _POINT,
}


def number_format(locale: str) -> NumberFormat:
    """For a BCP 47 tag such as de-CH, zh-Hans-CN or de_AT: its language and region, else its language, else English."""
    language, *rest = locale.replace("_", "-").split("-")
    language = language.lower()
    regions = [part.upper() for part in rest if len(part) == 2]
    for name in (*(f"{language}-{region}" for region in regions), language):
        if name in FORMATS:
            return FORMATS[name]
    return FORMATS["en"]
