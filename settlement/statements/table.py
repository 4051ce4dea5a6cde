"""Statements as CSV: every digit, one row for each thing that the balance is made of.

    row       what else it has
    opening   at, amount
    movement  at, kind, reference, description, amount (negative where money went)
    usage     app, pipeline, model, rate, quantity, unit, calls, ev_wei, amount (negative: it is taken off)
    closing   at, amount

The amounts of all rows but the last add up to the last one's. What an invoice demands is not part of the balance: it is
on the PDF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clearinghouse.cells import csv_rows, text_cell
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settlement.statements.statement import Movement, Statement, UsageLine

COLUMNS: Final = (
    "statement", "row", "at", "kind", "reference", "description", "app", "pipeline", "model", "rate", "quantity",
    "unit", "calls", "ev_wei", "amount", "currency",
)  # fmt: skip


def statement_csv(statement: Statement) -> bytes:
    """With a header row. Times are RFC 3339 in UTC; texts are escaped as clearinghouse/cells.py says."""
    fixed = {"statement": text_cell(statement.number), "currency": text_cell(statement.currency.code)}
    rows = ([(fixed | row).get(column, "") for column in COLUMNS] for row in _rows(statement))
    return csv_rows([COLUMNS, *rows])


def _rows(statement: Statement) -> Iterator[dict[str, str]]:
    period = statement.period
    yield {"row": "opening", "at": rfc3339(period.begin), "amount": show_amount(statement.opening)}
    yield from map(_movement, statement.sorted_movements())
    yield from map(_usage, statement.sorted_lines())
    yield {"row": "closing", "at": rfc3339(period.end), "amount": show_amount(statement.closing)}


def _movement(movement: Movement) -> dict[str, str]:
    return {
        "row": "movement",
        "at": rfc3339(movement.at),
        "kind": movement.kind,
        "reference": text_cell(movement.reference),
        "description": text_cell(movement.description),
        "amount": show_amount(movement.amount),
    }


def _usage(line: UsageLine) -> dict[str, str]:
    return {
        "row": "usage",
        "app": text_cell(line.app),
        "pipeline": text_cell(line.pipeline),
        "model": text_cell(line.model),
        "rate": text_cell(line.rate),
        "quantity": show_amount(line.quantity),
        "unit": text_cell(line.unit),
        "calls": str(line.calls),
        "ev_wei": str(line.ev_wei),
        "amount": show_amount(line.amount.copy_negate()),
    }
