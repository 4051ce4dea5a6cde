"""A statement as JSON: every digit, amounts as decimal strings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from settlement.statements.books import Account
    from settlement.statements.statement import Movement, UsageLine


def statement_document(account: Account) -> dict[str, Any]:
    """opening + movements - usage = closing. What is not final ends where the books ended when it was asked for."""
    statement = account.statement
    span = statement.period
    return {
        "number": statement.number,
        "begins_at": rfc3339(span.begin),
        "ends_at": rfc3339(span.end),
        "time_zone": span.zone,
        "is_final": account.is_final,
        "currency": statement.currency.code,
        "opening": show_amount(statement.opening),
        "movements": [_movement(movement) for movement in statement.sorted_movements()],
        "lines": [_line(line) for line in statement.sorted_lines()],
        "usage": show_amount(statement.usage),
        "closing": show_amount(statement.closing),
    }


def _movement(movement: Movement) -> dict[str, str]:
    return {
        "at": rfc3339(movement.at),
        "kind": movement.kind,
        "amount": show_amount(movement.amount),
        "reference": movement.reference,
        "description": movement.description,
    }


def _line(line: UsageLine) -> dict[str, Any]:
    return {
        "app": line.app,
        "pipeline": line.pipeline,
        "model": line.model,
        "rate": line.rate,
        "quantity": show_amount(line.quantity),
        "unit": line.unit,
        "calls": line.calls,
        "ev_wei": str(line.ev_wei),
        "amount": show_amount(line.amount),
    }
