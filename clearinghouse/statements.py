"""Statements as their gateway reads them: of periods that were closed, which never change. Newest first.

Reads only, in the caller's transaction. Settlement closes periods; `clearinghouse statements` makes some of any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from clearinghouse import ids
from clearinghouse.cells import csv_rows, text_cell
from clearinghouse.errors import NotFound
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import EXACT, exact_sum, show_amount

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

#: Twenty years of weeks.
PERIODS_MAX_COUNT: Final = 1000
CSV_COLUMNS: Final = (
    "period", "row", "at", "kind", "reference", "description", "app", "pipeline", "model", "markup_bps", "tickets",
    "calls", "ev_wei", "amount", "currency",
)  # fmt: skip
_SELECT: Final = """
    SELECT first_day, begins_at, ends_at, time_zone, currency, opening, usage, closing
      FROM billing_period WHERE gateway_id = :gateway_id
"""
_MOVEMENTS: Final = """
    SELECT id, kind, reason, created_at, CASE WHEN destination = :gateway_id THEN amount ELSE -amount END AS amount
      FROM transfer WHERE (source = :gateway_id OR destination = :gateway_id)
                      AND created_at >= :begins_at AND created_at < :ends_at ORDER BY created_at, id
"""
_LINES: Final = """
    SELECT app, pipeline, model, markup_bps, calls_count, tickets_count, ev_wei, charge
      FROM billing_line WHERE gateway_id = :gateway_id AND begins_at = :begins_at
     ORDER BY app, pipeline, model, markup_bps
"""


async def list_statements(connection: AsyncConnection, gateway_id: UUID) -> dict[str, Any]:
    """What there is to be read, without movements and lines."""
    query = text(f"{_SELECT} ORDER BY begins_at DESC LIMIT {PERIODS_MAX_COUNT}")
    rows = (await connection.execute(query, {"gateway_id": gateway_id})).mappings()
    return {"items": [_summary(row) for row in rows]}


async def get_statement(connection: AsyncConnection, gateway_id: UUID, period: str) -> dict[str, Any]:
    """Of the period that is called so: by its first day. NotFound where it is not closed, or is of another gateway."""
    query = text(f"{_SELECT} AND first_day::text = :period")
    found = await connection.execute(query, {"gateway_id": gateway_id, "period": period})
    row = found.mappings().one_or_none()
    if row is None:
        raise NotFound(f"no period that begins on {period[:64]!r} is closed: GET /v1/statements has those that are")
    values = {"gateway_id": gateway_id, "begins_at": row["begins_at"], "ends_at": row["ends_at"]}
    movements = (await connection.execute(text(_MOVEMENTS), values)).mappings().all()
    lines = (await connection.execute(text(_LINES), values)).mappings().all()
    usage = exact_sum(line["charge"] for line in lines)
    left = EXACT.subtract(exact_sum([row["opening"], *(movement["amount"] for movement in movements)]), usage)
    if (usage, left) != (row["usage"], row["closing"]):
        raise RuntimeError(f"the statement of {period} for {ids.show('gw', gateway_id)} does not balance")
    return {**_summary(row), "movements": list(map(_movement, movements)), "lines": list(map(_line, lines))}


def statement_csv(statement: Mapping[str, Any]) -> bytes:
    """What `get_statement` gave: the amounts of all rows but the last add up to the last one's."""
    fixed = {"period": statement["period"], "currency": statement["currency"]}
    rows = ([(row | fixed).get(column, "") for column in CSV_COLUMNS] for row in _csv_rows(statement))
    return csv_rows([CSV_COLUMNS, *rows])


def _csv_rows(statement: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    yield {"row": "opening", "at": statement["begins_at"], "amount": statement["opening"]}
    for movement in statement["movements"]:
        yield {"row": "movement", **movement, "description": text_cell(movement["description"])}
    for line in statement["lines"]:
        names = {name: text_cell(line[name]) for name in ("app", "pipeline", "model")}
        counts = {name: str(line[name]) for name in ("markup_bps", "tickets", "calls", "ev_wei")}
        yield {"row": "usage", **names, **counts, "amount": _negative(line["amount"])}
    yield {"row": "closing", "at": statement["ends_at"], "amount": statement["closing"]}


def _negative(amount: str) -> str:
    return amount if amount == "0" else f"-{amount}"


def _summary(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "period": row["first_day"].isoformat(),
        "begins_at": rfc3339(row["begins_at"]),
        "ends_at": rfc3339(row["ends_at"]),
        "time_zone": row["time_zone"],
        "currency": row["currency"],
        "opening": show_amount(row["opening"]),
        "usage": show_amount(row["usage"]),
        "closing": show_amount(row["closing"]),
    }


def _movement(row: Mapping[Any, Any]) -> dict[str, str]:
    return {
        "at": rfc3339(row["created_at"]),
        "kind": row["kind"],
        "amount": show_amount(row["amount"]),
        "reference": ids.show("tr", row["id"]),
        "description": row["reason"],
    }


def _line(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "app": row["app"],
        "pipeline": row["pipeline"],
        "model": row["model"],
        "markup_bps": row["markup_bps"],
        "calls": row["calls_count"],
        "tickets": row["tickets_count"],
        "ev_wei": str(int(row["ev_wei"])),
        "amount": show_amount(row["charge"]),
    }
