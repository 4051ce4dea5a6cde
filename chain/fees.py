"""What is owed and how many tickets pay it: pure and exact (remote-signer protocol, sections 3.1 to 3.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

from chain.go_duration import PIXELS_PER_SECOND, pixels, started_seconds
from chain.messages import Price

LIVE: Final = "live"
LV2V: Final = "lv2v"
FIXED: Final = "fixed"
UNTYPED: Final = ""

#: What the first call of a session is billed, and a call whose clock does not advance.
LIVE_PRELOAD_S: Final = 10
LV2V_PRELOAD_S: Final = 60
LV2V_PRELOAD_PIXELS: Final = LV2V_PRELOAD_S * PIXELS_PER_SECOND

#: The unit a price must be given in, by job type. An untyped job counts its own pixels and takes no maxPrice.
PRICE_UNITS: Final = {LIVE: "seconds", LV2V: "720p-pixel-seconds", FIXED: "fixed"}

#: Enough for any price in wei, and small enough that the exact number is cheap: "1e999999999" would fill the memory.
PRICE_TEXT_CHARS_MAX: Final = 100
PRICE_EXPONENT_MAX: Final = 100
_JSON_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


class JobTypeError(ValueError):
    """The type is none of live, lv2v, fixed and the empty one. Text as go-livepeer's."""


class PriceFormatError(ValueError):
    """A maxPrice that cannot be one. Text as go-livepeer's; where a cap of ours refuses, it says which."""


@dataclass(frozen=True, slots=True)
class MaxPrice:
    """A price limit as the caller wrote it: `price` is the text of a JSON number."""

    price: str
    currency: str
    unit: str


def billable_units(job_type: str, elapsed_ns: int, in_pixels: int) -> int:
    """Units a call is billed: pixels for lv2v and the untyped job, seconds for live, calls for fixed.

    `elapsed_ns` is the time since the session's last paid call, 0 for a new session. A result of zero or less
    means that nothing can be billed; the caller refuses it. Raises JobTypeError for another type.
    """
    if job_type == LV2V:
        return pixels(elapsed_ns) if elapsed_ns > 0 else LV2V_PRELOAD_PIXELS
    if job_type == LIVE:
        return started_seconds(elapsed_ns) if elapsed_ns > 0 else LIVE_PRELOAD_S
    if job_type == FIXED:
        return 1
    if job_type == UNTYPED:
        return in_pixels
    raise JobTypeError("invalid job type")


class Ratio(Protocol):
    """A fraction, reduced or not; its denominator is positive."""

    @property
    def numerator(self) -> int: ...

    @property
    def denominator(self) -> int: ...


def fee_wei(units: int, initial_price: Price) -> Fraction:
    """The fee, exactly: at the price the session began with, whatever the orchestrator asks now.

    The caller has refused prices that are not positive; pixels_per_unit of zero raises ZeroDivisionError.
    """
    return Fraction(units * initial_price.price_per_unit, initial_price.pixels_per_unit)


def tickets_needed(*, balance: Ratio, fee: Ratio, ev: Ratio) -> int:
    """Tickets that bring `balance` up to the larger of fee and one ticket's expected value; all in wei.

    0 means that nothing is due: enough is there, or a ticket is worth nothing. The number is not bounded (a 64-bit one
    would wrap, section 10, A15): the caller refuses what is too many. Raises ValueError for a negative `ev`.
    """
    ev_n, ev_d = ev.numerator, ev.denominator
    if ev_n < 0:
        raise ValueError("a ticket's expected value is not negative")
    if ev_n == 0:
        return 0
    due_n, due_d = fee.numerator, fee.denominator
    if due_n * ev_d < ev_n * due_d:
        due_n, due_d = ev_n, ev_d
    # gap = due - balance, and the number is ceil(gap / ev); as integers, because Fraction reduces at every step
    gap_n = due_n * balance.denominator - balance.numerator * due_d
    if gap_n <= 0:
        return 0
    return -(-gap_n * ev_d // (due_d * balance.denominator * ev_n))


def balance_after(*, balance: Fraction, num_tickets: int, ev: Fraction, fee: Fraction) -> Fraction:
    """balance + num_tickets * ev - fee, exactly; all in wei (section 3.5).

    As integers over one denominator, because Fraction reduces at every step. A session's balance has mostly its
    tickets' denominator already.
    """
    ev_n, ev_d = ev.numerator, ev.denominator
    balance_n, balance_d = balance.numerator, balance.denominator
    if balance_d == ev_d:
        credit_n, credit_d = balance_n + num_tickets * ev_n, ev_d
    else:
        credit_n, credit_d = balance_n * ev_d + num_tickets * ev_n * balance_d, balance_d * ev_d
    return Fraction(credit_n * fee.denominator - fee.numerator * credit_d, credit_d * fee.denominator)


def parse_max_price(max_price: MaxPrice, job_type: str) -> Fraction:
    """The limit in wei per unit of `job_type`, exactly.

    Raises PriceFormatError for a price that is not a positive decimal, a currency other than wei, a type without a
    unit, and a unit other than the type's, in this order.
    """
    price = _positive_decimal(max_price.price)
    if max_price.currency.strip().lower() != "wei":
        raise PriceFormatError("maxPrice.currency must be wei")
    unit = PRICE_UNITS.get(job_type)
    if unit is None:
        raise PriceFormatError("maxPrice requires payment type live, lv2v, or fixed")
    if max_price.unit.strip().lower() != unit:
        raise PriceFormatError(f"maxPrice.unit must be {unit} for payment type {job_type}")
    return price


def _positive_decimal(text: str) -> Fraction:
    """The exact value of a JSON number. Lengths are checked before anything is computed."""
    if len(text) > PRICE_TEXT_CHARS_MAX:
        raise PriceFormatError(
            f"maxPrice.price must be a positive decimal of at most {PRICE_TEXT_CHARS_MAX} characters, got {len(text)}"
        )
    match = _JSON_NUMBER.fullmatch(text)
    if match is None:
        raise PriceFormatError("maxPrice.price must be a positive decimal")
    sign, whole, decimals, exponent_text = match.groups(default="")
    exponent = int(exponent_text or 0)
    if abs(exponent) > PRICE_EXPONENT_MAX:
        raise PriceFormatError(
            f"maxPrice.price must be a positive decimal with an exponent of at most {PRICE_EXPONENT_MAX} either way, "
            f"got {exponent}"
        )
    digits = int(whole + decimals)
    if sign or digits == 0:
        raise PriceFormatError("maxPrice.price must be a positive decimal")
    shift = exponent - len(decimals)
    return Fraction(digits * 10**shift) if shift >= 0 else Fraction(digits, 10**-shift)
