"""The numbers a statement shows: each rounded once, and what rounding took or gave as a line of its own.

So that whoever adds up a printed column gets its printed total, while the exact amounts stay in the books (and in the
CSV).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clearinghouse.ledger.money import exact_sum
from settlement.rounding import from_minor, round_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from settlement.currencies import Currency
    from settlement.statements.statement import Statement


@dataclass(frozen=True, slots=True)
class Column:
    """`rows` and `rounding` add up to `total`, and every one of them could be paid."""

    rows: tuple[Decimal, ...]
    rounding: Decimal
    total: Decimal


@dataclass(frozen=True, slots=True)
class Figures:
    """`balance` has the opening, each movement, the usage (negative) as rows, and the closing as its total."""

    balance: Column
    usage: Column


def figures_of(statement: Statement) -> Figures:
    """In the order of `sorted_lines` and `sorted_movements`."""
    usage = column([line.amount for line in statement.sorted_lines()], statement.currency)
    movements = [movement.amount for movement in statement.sorted_movements()]
    return Figures(column([statement.opening, *movements, statement.usage.copy_negate()], statement.currency), usage)


def column(amounts: Sequence[Decimal], currency: Currency) -> Column:
    """The total is the exact sum, rounded once."""
    rounded = round_lines(amounts, ledger_total=exact_sum(amounts), currency=currency)
    return Column(
        tuple(from_minor(row_minor, currency) for row_minor in rounded.lines_minor),
        from_minor(rounded.rounding_minor, currency),
        from_minor(rounded.total_minor, currency),
    )
