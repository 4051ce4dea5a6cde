"""What a reconciliation found, as plain values: sections, what each compared, and how things differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from clearinghouse.ledger.money import EXACT

WEI: Final = "wei"
#: Differences of one name in one section that are described; all are counted and summed.
DESCRIBED_MAX_COUNT: Final = 1000


class Period(NamedTuple):
    """[begins_at, ends_at), in UTC."""

    begins_at: datetime
    ends_at: datetime


class Amount(NamedTuple):
    """Exact, and with a sign. `unit` is wei, or the currency that `value` is in: in dollars, not in cents."""

    value: Decimal
    unit: str


@dataclass(frozen=True, slots=True)
class Compared:
    """How much was looked at on one side."""

    what: str
    count: int
    sums: tuple[Amount, ...] = ()


class Difference(NamedTuple):
    """`name` is what scripts look for, `link` a command or an address that shows it. `amount` is None where nobody
    tells how much it is about.
    """

    name: str
    subject: str
    amount: Amount | None
    detail: str
    link: str


@dataclass(frozen=True, slots=True)
class Total:
    """Of all differences of one name. `sums` are those of their amounts, with their signs."""

    name: str
    count: int
    sums: tuple[Amount, ...]


@dataclass(slots=True)
class Section:
    """`not_compared` says what was left out, and why; where nothing was compared, `compared` is empty."""

    name: str
    title: str
    compared: list[Compared] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict, init=False)
    _sums: dict[tuple[str, str], Decimal] = field(default_factory=dict, init=False)

    @property
    def is_compared(self) -> bool:
        return bool(self.compared)

    @property
    def differences_count(self) -> int:
        """All of them, also those that are not described."""
        return sum(self._counts.values())

    @property
    def totals(self) -> list[Total]:
        return [
            Total(name, count, tuple(Amount(value, unit) for (of, unit), value in self._sums.items() if of == name))
            for name, count in self._counts.items()
        ]

    def differs(self, one: Difference) -> None:
        """Counted, and described unless there are too many of its name already."""
        count = self._counts[one.name] = self._counts.get(one.name, 0) + 1
        if one.amount is not None:
            self._add(one.name, one.amount)
        if count <= DESCRIBED_MAX_COUNT:
            self.differences.append(one)

    def leave_out(self, why: str) -> Section:
        self.not_compared.append(why)
        return self

    def _add(self, name: str, amount: Amount) -> None:
        key = (name, amount.unit)
        self._sums[key] = EXACT.add(self._sums.get(key, Decimal(0)), amount.value)


@dataclass(frozen=True, slots=True)
class Report:
    """`taken_at`: the instant that the books are seen at."""

    period: Period
    taken_at: datetime
    sections: Sequence[Section]

    @property
    def differences_count(self) -> int:
        return sum(section.differences_count for section in self.sections)


def wei(value: Decimal | int) -> Amount:
    return Amount(Decimal(value), WEI)


def by_unit(rows: Iterable[tuple[str, Decimal]]) -> tuple[Amount, ...]:
    """Sums of a query, one for each currency."""
    return tuple(Amount(Decimal(value), unit) for unit, value in rows)
