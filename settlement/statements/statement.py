"""A statement as values. It cannot be made unless it balances, to the last digit:

opening + movements - usage = closing
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Final

from clearinghouse.ledger.money import EXACT, exact_sum, show_amount
from settlement.currencies import Currency
from settlement.rounding import DoesNotAddUp, rounded
from settlement.time_zones import time_zone

_KIND: Final = re.compile(r"[a-z][a-z_]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Party:
    """Who issues a statement, or gets it. `lines` are printed below the name: address, e-mail, tax id."""

    name: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """What a statement is over: a period, or any other time. `begin` <= t < `end`; both are shown in `zone`.

    ValueError for instants without a zone or a span of no length; InvalidRequest for an unknown zone.
    """

    begin: datetime
    end: datetime
    zone: str

    def __post_init__(self) -> None:
        _require_zoned(self.begin, self.end)
        if self.begin >= self.end:
            raise ValueError(f"a statement ends after it begins, not {self.begin} to {self.end}")
        time_zone(self.zone)

    def __contains__(self, instant: datetime) -> bool:
        return self.begin <= instant < self.end


@dataclass(frozen=True, slots=True)
class Movement:
    """Money that came (`amount` > 0) or went, other than for usage: a top-up, a refund, an expired grant.

    `kind` is as the ledger has it, such as `grant` or `credit_note`; `reference` names the entry.
    """

    at: datetime
    kind: str
    amount: Decimal
    reference: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        _require_zoned(self.at)
        _require_finite(self.amount)
        if _KIND.fullmatch(self.kind) is None:
            raise ValueError(f"a kind of movement is lower-case letters and underscores, not {self.kind!r}")


@dataclass(frozen=True, slots=True)
class UsageLine:
    """What one application used of one pipeline under one rule (`rate`) of the rate card.

    `quantity` is in `unit` (seconds, pixels, requests…), `ev_wei` the expected value of its tickets, and `amount` what
    it costs, exactly, in the statement's currency.
    """

    app: str
    pipeline: str
    amount: Decimal
    ev_wei: int
    calls: int
    quantity: Decimal
    unit: str
    model: str = ""
    rate: str = ""

    def __post_init__(self) -> None:
        _require_finite(self.amount, self.quantity)
        if self.ev_wei < 0 or self.calls < 0 or self.quantity < 0:
            raise ValueError(f"quantity, calls and ev_wei cannot be negative: {self}")


#: All that there is to them, so that two that compare as equal are.
_LINE_ORDER: Final = attrgetter("app", "pipeline", "model", "rate", "unit", "amount", "ev_wei", "calls", "quantity")
_MOVEMENT_ORDER: Final = attrgetter("at", "reference", "kind", "amount", "description")


@dataclass(frozen=True, slots=True)
class Demand:
    """What makes a statement an invoice: an amount due, and how it comes about. All amounts are in minor units whole.

    `items` are what it consists of: usage as shown, tax, what was carried forward. DoesNotAddUp if they are not all.
    """

    items: tuple[tuple[str, Decimal], ...]
    amount: Decimal
    due_on: date
    pay_to: tuple[str, ...] = ()
    purchase_order: str = ""

    def __post_init__(self) -> None:
        _require_sum("the items of the amount due", (part for _, part in self.items), self.amount)


@dataclass(frozen=True, slots=True)
class Statement:
    """One gateway's account over one period. `issued_at` is printed and is the PDF's date: give it, and keep it.

    `locale` decides how numbers are written (locales.py). ValueError for what cannot be; DoesNotAddUp for what does
    not add up.
    """

    number: str
    issuer: Party
    customer: Party
    period: Span
    issued_at: datetime
    currency: Currency
    opening: Decimal
    movements: tuple[Movement, ...]
    lines: tuple[UsageLine, ...]
    closing: Decimal
    locale: str = "en"
    notes: tuple[str, ...] = ()
    demand: Demand | None = None

    def __post_init__(self) -> None:
        _require_zoned(self.issued_at)
        for movement in self.movements:
            if movement.at not in self.period:
                raise ValueError(f"{movement.kind} {movement.reference} at {movement.at} is not of this period")
        parts = [self.opening, *(movement.amount for movement in self.movements), self.usage.copy_negate()]
        _require_sum("opening and movements less usage", parts, self.closing)
        if self.demand is not None:
            _require_payable(self.currency, self.demand.amount, *(part for _, part in self.demand.items))

    @property
    def usage(self) -> Decimal:
        """All lines together, exactly."""
        return exact_sum(line.amount for line in self.lines)

    def sorted_lines(self) -> list[UsageLine]:
        """By application, pipeline, model and rate, then by all else: one order, whichever they were read in."""
        return sorted(self.lines, key=_LINE_ORDER)

    def sorted_movements(self) -> list[Movement]:
        """By time, then by all else."""
        return sorted(self.movements, key=_MOVEMENT_ORDER)


def _require_sum(what: str, parts: Iterable[Decimal], whole: Decimal) -> None:
    parts = list(parts)
    _require_finite(whole, *parts)
    total = exact_sum(parts)
    if total != whole:
        difference = show_amount(EXACT.subtract(whole, total))
        raise DoesNotAddUp(f"{what} make {show_amount(total)}, not {show_amount(whole)}: {difference} is missing")


def _require_finite(*amounts: Decimal) -> None:
    for amount in amounts:
        if not amount.is_finite():
            raise ValueError(f"{amount} is no amount")


def _require_payable(currency: Currency, *amounts: Decimal) -> None:
    for amount in amounts:
        if rounded(amount, currency.paid_decimals) != amount:
            raise ValueError(
                f"{currency.code} {show_amount(amount)} cannot be paid: that takes {currency.paid_decimals} decimals"
            )


def _require_zoned(*instants: datetime) -> None:
    for instant in instants:
        if instant.tzinfo is None:
            raise ValueError(f"{instant} has no time zone, so it is no instant")
