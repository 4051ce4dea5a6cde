"""Currencies that can be billed: their minor units as Stripe counts them, what can be paid, and the least that can.

    USD 12.34 = 1234      JPY 12 = 12      ISK, UGX 12 = 1200, whole ones only      KWD 1.230 = 1230, the last digit 0

Source: Stripe, "Supported currencies": zero-decimal currencies, three-decimal currencies, special cases, minimum and
maximum charge amounts. UGX stands in its list of those without decimals, too; the special case is what its API takes,
and to believe the list would be to ask for a hundredth.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from clearinghouse.errors import InvalidRequest


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WITHOUT_DECIMALS: Final = _codes("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF")
_WITH_THREE_DECIMALS: Final = _codes("BHD JOD KWD OMR TND")
#: Counted in hundredths, paid in whole ones.
_WHOLE: Final = _codes("ISK UGX")
_WITH_TWO_DECIMALS: Final = _codes(
    """AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CNY COP CRC
    CVE CZK DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR JMD KES KGS KHR KYD KZT
    LAK LBP LKR LRD LSL MAD MDL MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN
    QAR RON RSD RUB SAR SBD SCR SEK SGD SHP SLE SOS SRD STD SZL THB TJS TOP TRY TTD TWD TZS UAH USD UYU UZS WST XCD XCG
    YER ZAR ZMW"""
)
#: In minor units. For others it is that of the currency that Stripe converts into, which only the operator knows.
_MINIMUM_MINOR: Final = {
    "AED": 200, "AUD": 50, "BGN": 100, "BRL": 50, "CAD": 50, "CHF": 50, "CZK": 1500, "DKK": 250, "EUR": 50, "GBP": 30,
    "HKD": 400, "HUF": 17_500, "INR": 50, "JPY": 50, "MXN": 1000, "MYR": 200, "NOK": 300, "NZD": 50, "PLN": 200,
    "RON": 200, "SEK": 300, "SGD": 50, "THB": 1000, "USD": 50,
}  # fmt: skip
#: Of what is not billed; others have those of most stablecoins.
_ACCOUNT_DECIMALS: Final = {"ETH": 18}


@dataclass(frozen=True, slots=True)
class Currency:
    """`decimals` of an amount make its minor units; amounts are paid with `paid_decimals` only, and zeros after them.

    `minimum_minor` is the least that can be charged, in minor units, or None where that is not known.
    """

    code: str
    decimals: int
    paid_decimals: int
    minimum_minor: int | None

    @property
    def unit(self) -> Decimal:
        """The smallest amount that can be paid, to which lines are rounded."""
        return Decimal(1).scaleb(-self.paid_decimals)

    @property
    def shown_decimals(self) -> int:
        """As people write it: ISK 12, whatever it is counted in, and KWD 1.230."""
        return self.decimals if self.paid_decimals else 0

    @property
    def unit_minor(self) -> int:
        """The same, in minor units: mostly 1."""
        return int(10 ** (self.decimals - self.paid_decimals))


def currency(code: str) -> Currency:
    """By its code in capitals. InvalidRequest for what is not billed, ETH among it: to guess would be wrong by 100."""
    minimum_minor = _MINIMUM_MINOR.get(code)
    if code in _WITH_TWO_DECIMALS:
        return Currency(code, 2, 2, minimum_minor)
    if code in _WITHOUT_DECIMALS:
        return Currency(code, 0, 0, minimum_minor)
    if code in _WHOLE:
        return Currency(code, 2, 0, minimum_minor)
    if code in _WITH_THREE_DECIMALS:
        return Currency(code, 3, 2, minimum_minor)
    raise InvalidRequest(f"nothing is billed in {code[:64]!r}: name a currency of payments in capitals, such as USD")


def account_currency(code: str) -> Currency:
    """As `currency`, and also what an account may be in though nobody is billed in it: ETH to the wei, others to the
    millionth.
    """
    try:
        return currency(code)
    except InvalidRequest:
        decimals = _ACCOUNT_DECIMALS.get(code, 6)
        return Currency(code, decimals, decimals, None)
