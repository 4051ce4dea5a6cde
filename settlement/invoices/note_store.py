"""Credit notes of ours in the database. Role clearinghouse_work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import bindparam

Gives = Literal["less_due", "credit", "refund", "outside"]
_COLUMNS: Final = """
    id, invoice_id, gives, amount_minor, total_minor, lines, reason, actor, created_at, state, keys_spent_count,
    problem, stripe_note_id, number, ended_at
"""
_PROBLEM_CHARS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class NewNote:
    """What is asked of Stripe: amounts in minor units, `total_minor` with tax. `lines`: Stripe's line, and its part."""

    id: UUID
    invoice_id: UUID
    gives: Gives
    amount_minor: int
    total_minor: int
    lines: Sequence[dict[str, Any]]
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class CreditNote(NewNote):
    """A row of `credit_note`."""

    created_at: datetime
    state: Literal["planned", "issued", "refused"]
    keys_spent_count: int
    problem: str | None
    stripe_note_id: str | None
    number: str | None
    ended_at: datetime | None


async def find_note(connection: AsyncConnection, note_id: UUID) -> CreditNote:
    """One that there is."""
    found = await _first(connection, "WHERE id = :id", id=note_id)
    assert found is not None, "no row is ever removed"
    return found


async def find_note_of(connection: AsyncConnection, invoice_id: UUID, reason: str) -> CreditNote | None:
    """By what names it, unless Stripe refused it."""
    where = "WHERE invoice_id = :id AND reason = :reason AND state <> 'refused'"
    return await _first(connection, where, id=invoice_id, reason=reason)


async def notes_of(connection: AsyncConnection, invoice_id: UUID) -> list[CreditNote]:
    """The oldest first."""
    return await _all(connection, "WHERE invoice_id = :id ORDER BY created_at, id", id=invoice_id)


async def notes_under_way(connection: AsyncConnection) -> list[CreditNote]:
    """Which somebody began, and are not issued; the oldest first."""
    return await _all(connection, "WHERE state = 'planned' ORDER BY created_at, id")


async def insert_note(connection: AsyncConnection, note: NewNote) -> None:
    """Raises IntegrityError where another of this invoice is under way, or has this reason."""
    values = asdict(note)
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    query = text(f"INSERT INTO credit_note ({names}) VALUES ({marks})")  # noqa: S608 - our words
    await connection.execute(query.bindparams(bindparam("lines", type_=JSONB)), values)


async def issued_note(connection: AsyncConnection, note_id: UUID, *, stripe_note_id: str, number: str) -> None:
    """It is at Stripe, and in the books. Nothing is done where that is known."""
    query = """UPDATE credit_note SET state = 'issued', stripe_note_id = :stripe_id, number = :number, problem = NULL,
                      ended_at = clock_timestamp() WHERE id = :id AND state = 'planned'"""
    await connection.execute(text(query), {"id": note_id, "stripe_id": stripe_note_id, "number": number})


async def refused_note(connection: AsyncConnection, note_id: UUID, why: str) -> bool:
    """Nothing was done. False where it had ended already."""
    query = """UPDATE credit_note SET state = 'refused', problem = :why, ended_at = clock_timestamp()
                WHERE id = :id AND state = 'planned'"""
    return (await connection.execute(text(query), {"id": note_id, "why": _line(why)})).rowcount == 1


async def held_note(connection: AsyncConnection, note_id: UUID, why: str, *, key_is_spent: bool) -> None:
    """Why it is not issued yet."""
    query = """UPDATE credit_note SET problem = :why, keys_spent_count = keys_spent_count + :spent
                WHERE id = :id AND state = 'planned'"""
    await connection.execute(text(query), {"id": note_id, "why": _line(why), "spent": int(key_is_spent)})


def _line(why: str) -> str:
    return " ".join(why.split())[:_PROBLEM_CHARS_MAX] or "it is not known why"


async def _first(connection: AsyncConnection, where: str, **values: Any) -> CreditNote | None:
    found = await _all(connection, where, **values)
    return found[0] if found else None


async def _all(connection: AsyncConnection, where: str, **values: Any) -> list[CreditNote]:
    query = text(f"SELECT {_COLUMNS} FROM credit_note {where}")  # noqa: S608 - our words
    return [CreditNote(**row) for row in (await connection.execute(query, values)).mappings()]
