"""From exact amounts to an invoice: the one place where money is rounded.

    exact   3.3349   3.3349   3.3349  = 10.0047    each line once, half away from zero, to the smallest unit to be paid
    lines     3.33     3.33     3.33  + 0.01 rounding = 10.00    charged; 0.0047 remain, and are posted as rounding

What is too little to charge is not rounded: it is carried forward to the last digit, and billed once it is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_UP, Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Final

from clearinghouse.ledger.money import EXACT, exact_sum, show_amount
from settlement.currencies import Currency

#: decimal.ROUND_HALF_UP is half away from zero: -0.005 becomes -0.01. An amount too long for it is an error.
_ROUNDING: Final = Context(
    prec=EXACT.prec, rounding=ROUND_HALF_UP, Emax=MAX_EMAX, Emin=MIN_EMIN,
    traps=[InvalidOperation, Overflow, DivisionByZero],
)  # fmt: skip


class DoesNotAddUp(Exception):
    """Lines and their total differ by more than rounding explains. A bug: nothing may be issued, somebody must look."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Lines in minor units, in the order given, with the line that makes them the total: an invoice to the cent.

    `total_minor` is the sum of `lines_minor` and `rounding_minor`. `remainder` is what `exact` has more than it, at
    most half the smallest unit that can be paid; to post it is what lets the books balance to the last digit.
    """

    lines_minor: tuple[int, ...]
    rounding_minor: int
    total_minor: int
    exact: Decimal
    remainder: Decimal


@dataclass(frozen=True, slots=True)
class Bill:
    """What becomes of a period: an invoice, or an amount that the next period begins with. One of the two is nothing.

    In `invoice` the last line is what was carried here, unless that is 0.
    """

    invoice: Rounded | None
    carried_forward: Decimal


def rounded(amount: Decimal, decimals: int) -> Decimal:
    """Half away from zero, with exactly so many decimals; never -0. ValueError for a NaN or an infinity."""
    if not amount.is_finite():
        raise ValueError(f"{amount} is no amount")
    result = _ROUNDING.quantize(amount, Decimal(1).scaleb(-decimals))
    return result if result else result.copy_abs()


def quotient(amount: Decimal, divisor: Decimal, decimals: int) -> Decimal:
    """`amount` / `divisor` to so many decimals. decimal.DivisionByZero where there is nothing to divide by."""
    return rounded(_ROUNDING.divide(amount, divisor), decimals)


def average_rate(amount: Decimal, quantity: Decimal, *, digits: int = 6) -> Decimal | None:
    """`amount` per unit, to so many significant digits: to be read, never to be charged by. None of no quantity."""
    if not quantity:
        return None
    return Context(prec=digits, rounding=ROUND_HALF_UP).plus(_ROUNDING.divide(amount, quantity))


def to_minor(amount: Decimal, currency: Currency) -> int:
    """In minor units, rounded half away from zero to what can be paid. ValueError for a NaN or an infinity."""
    return int(_ROUNDING.scaleb(rounded(amount, currency.paid_decimals), currency.decimals))


def from_minor(amount_minor: int, currency: Currency) -> Decimal:
    """The reverse, exactly."""
    return EXACT.scaleb(Decimal(amount_minor), -currency.decimals)


def rounding_line(lines_minor: Sequence[int], *, exact_total: Decimal, currency: Currency) -> int:
    """What, in minor units, makes these lines the total, rounded once. The lines may have been rounded by others.

    Raises DoesNotAddUp where it is more than one unit that can be paid for each line.
    """
    difference_minor = to_minor(exact_total, currency) - sum(lines_minor)
    if abs(difference_minor) > len(lines_minor) * currency.unit_minor:
        raise DoesNotAddUp(
            f"{len(lines_minor)} lines are {show_amount(from_minor(sum(lines_minor), currency))} {currency.code}, "
            f"their total is {show_amount(exact_total)}: that is not rounding"
        )
    return difference_minor


def round_lines(amounts: Sequence[Decimal], *, ledger_total: Decimal, currency: Currency) -> Rounded:
    """The amounts of the lines, exact, as they are invoiced. `ledger_total` comes from the books, not from the lines.

    Raises DoesNotAddUp where the lines are not the total to the last digit, before anything is rounded.
    """
    exact = exact_sum(amounts)
    if exact != ledger_total:
        raise DoesNotAddUp(
            f"the lines are {show_amount(exact)} {currency.code}, the books say {show_amount(ledger_total)}"
        )
    lines_minor = tuple(to_minor(amount, currency) for amount in amounts)
    rounding_minor = rounding_line(lines_minor, exact_total=exact, currency=currency)
    total_minor = sum(lines_minor) + rounding_minor
    return Rounded(
        lines_minor=lines_minor,
        rounding_minor=rounding_minor,
        total_minor=total_minor,
        exact=exact,
        remainder=EXACT.subtract(exact, from_minor(total_minor, currency)),
    )


def bill(
    amounts: Sequence[Decimal], *, ledger_total: Decimal, carried: Decimal, minimum_minor: int, currency: Currency
) -> Bill:
    """The invoice over a period's lines and what was `carried` into it, if together they can be charged.

    `ledger_total` is the period's, without what was carried. Less than `minimum_minor`, nothing, or credit (a total
    below 0) is carried on. Raises DoesNotAddUp as `round_lines` does, also where nothing is charged; ValueError for a
    minimum below 0.
    """
    if minimum_minor < 0:
        raise ValueError(f"the least that can be charged is not below 0: {minimum_minor}")
    lines = [*amounts, carried] if carried else amounts
    invoice = round_lines(lines, ledger_total=EXACT.add(ledger_total, carried), currency=currency)
    if invoice.total_minor >= max(minimum_minor, currency.unit_minor):
        return Bill(invoice, Decimal(0))
    return Bill(None, invoice.exact)
