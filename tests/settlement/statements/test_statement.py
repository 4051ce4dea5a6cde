"""A statement balances or cannot be made; what it shows adds up as well."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given

from clearinghouse.errors import InvalidRequest
from clearinghouse.ledger.money import EXACT
from settlement.currencies import Currency
from settlement.rounding import DoesNotAddUp
from settlement.statements.figures import figures_of
from settlement.statements.statement import Demand, Movement, Span, Statement, UsageLine
from tests.settlement.statements.examples import LINES, OCTOBER, amounts, example, invoice, statements


def test_a_statement_that_does_not_balance_cannot_be_made_and_says_by_how_much() -> None:
    whole = example()
    with pytest.raises(DoesNotAddUp, match=r"0\.00000000000000000001 is missing"):
        replace(whole, closing=whole.closing + Decimal("1e-20"))


@given(statements(), amounts.filter(bool))
def test_no_part_can_change_alone(statement: Statement, change: Decimal) -> None:
    with pytest.raises(DoesNotAddUp):
        replace(statement, closing=EXACT.add(statement.closing, change))


@given(statements())
def test_what_is_shown_adds_up_and_is_the_exact_amount_rounded_once(statement: Statement) -> None:
    figures = figures_of(statement)
    for shown in (figures.balance, figures.usage):
        assert sum(map(Fraction, shown.rows)) + Fraction(shown.rounding) == Fraction(shown.total)
    exact_usage = sum(Fraction(line.amount) for line in statement.lines)
    assert Fraction(figures.usage.total) == half_away(exact_usage, statement.currency)
    assert Fraction(figures.balance.total) == half_away(Fraction(statement.closing), statement.currency)


def half_away(amount: Fraction, currency: Currency) -> Fraction:
    units, rest = divmod(abs(amount) / Fraction(currency.unit), 1)
    whole = (units + (rest >= Fraction(1, 2))) * Fraction(currency.unit)
    return -whole if amount < 0 else whole


def test_a_movement_at_the_begin_is_of_the_period_and_one_at_the_end_is_of_the_next() -> None:
    grant = Movement(OCTOBER.begin, "grant", Decimal(1))
    assert example(movements=(grant,)).movements == (grant,)
    last = replace(grant, at=OCTOBER.end - timedelta(microseconds=1))
    assert example(movements=(last,)).movements == (last,)
    with pytest.raises(ValueError, match="not of this period"):
        example(movements=(replace(grant, at=OCTOBER.end),))


def test_what_an_invoice_demands_is_all_explained() -> None:
    demand = invoice().demand
    assert demand is not None
    with pytest.raises(DoesNotAddUp, match=r"0\.01 is missing"):
        replace(demand, amount=demand.amount + Decimal("0.01"))
    tenth_cent = Demand((("Usage", Decimal("1.001")),), Decimal("1.001"), date(2026, 11, 15))
    with pytest.raises(ValueError, match=r"EUR 1\.001 cannot be paid: that takes 2 decimals"):
        example(demand=tenth_cent)


def test_what_is_no_amount_or_no_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN is no amount"):
        replace(LINES[0], amount=Decimal("NaN"))
    with pytest.raises(ValueError, match="cannot be negative"):
        UsageLine("a", "b", Decimal(1), -1, 1, Decimal(1), "seconds")
    with pytest.raises(ValueError, match="no time zone"):
        example(issued_at=datetime(2026, 11, 1))  # noqa: DTZ001 - what is refused
    with pytest.raises(ValueError, match="ends after it begins"):
        Span(OCTOBER.end, OCTOBER.begin, "UTC")
    with pytest.raises(InvalidRequest):
        Span(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), "Europe/Nowhere")
    with pytest.raises(ValueError, match="lower-case letters"):
        Movement(OCTOBER.begin, "Top up", Decimal(1))
