"""Invoices in the database: rows as values, and the changes of how far they have got. Role clearinghouse_work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.customers.details import Collection
from settlement.invoices.owed import Line

Kind = Literal["usage", "subscription"]
State = Literal[
    "planned", "drafted", "itemized", "agreed", "finalized", "open", "paid", "void", "uncollectible", "carried",
    "nothing_due",
]  # fmt: skip
#: Before Stripe asks anybody for money.
IN_THE_MAKING: Final[tuple[State, ...]] = ("planned", "drafted", "itemized", "agreed")
#: There is something to do for us, whatever Stripe says.
TO_WALK: Final[tuple[State, ...]] = (*IN_THE_MAKING, "finalized")
#: What may still change at Stripe.
NOT_FINAL: Final[tuple[State, ...]] = (*TO_WALK, "open", "uncollectible")

_PROBLEM_CHARS_MAX: Final = 1000
_COLUMNS: Final = """
    invoice.id, gateway_id, (SELECT name FROM gateway WHERE gateway.id = gateway_id) AS gateway_name, kind, begins_at,
    ends_at, first_day, next_day, revision, invoice.currency, decimals, exact, total_minor, collection, net_days,
    is_taxed, po_number, memo, footer, payment_settings, invoice.created_at, state, state_at, claims_count,
    keys_spent_count, stripe_method_id, pay_attempts_count, pay_next_at, problem, problem_at, stripe_customer_id,
    stripe_invoice_id, number, hosted_url, pdf_url, tax_minor, remaining_minor, overpaid_minor, off_stripe_minor,
    finalized_at, sent_at, due_at, ended_at, booked_minor, credited_minor, seen_at, replaced_at
"""


@dataclass(frozen=True, slots=True)
class Invoice:
    """A row of `invoice`; migrations/sql/0001_invoices.sql says what each column is."""

    id: UUID
    gateway_id: UUID
    gateway_name: str
    kind: Kind
    begins_at: datetime
    ends_at: datetime
    first_day: date
    next_day: date
    revision: int
    currency: str
    decimals: int
    exact: Decimal
    total_minor: int
    collection: Collection
    net_days: int
    is_taxed: bool
    po_number: str
    memo: str
    footer: str
    payment_settings: Mapping[str, Any] | None
    created_at: datetime
    state: State
    state_at: datetime
    claims_count: int
    keys_spent_count: int
    stripe_method_id: str | None
    pay_attempts_count: int
    pay_next_at: datetime | None
    problem: str | None
    problem_at: datetime | None
    stripe_customer_id: str | None
    stripe_invoice_id: str | None
    number: str | None
    hosted_url: str | None
    pdf_url: str | None
    tax_minor: int
    remaining_minor: int | None
    overpaid_minor: int
    off_stripe_minor: int
    finalized_at: datetime | None
    sent_at: datetime | None
    due_at: datetime | None
    ended_at: datetime | None
    booked_minor: int
    credited_minor: int
    seen_at: datetime | None
    replaced_at: datetime | None

    @property
    def at_stripe(self) -> str:
        """Its id there, which it has from `drafted` on."""
        assert self.stripe_invoice_id is not None, "a draft was made"
        return self.stripe_invoice_id


@dataclass(frozen=True, slots=True)
class Choice:
    """Which periods are meant: those whose first day begins so (`2026-10`), those of one gateway; or all."""

    period: str = ""
    gateway_id: UUID | None = None

    @property
    def values(self) -> dict[str, Any]:
        return {"period": f"{self.period}%", "gateway_id": self.gateway_id}


#: For a WHERE with `Choice.values`.
CHOSEN: Final = "first_day::text LIKE :period AND (CAST(:gateway_id AS uuid) IS NULL OR gateway_id = :gateway_id)"


async def find(connection: AsyncConnection, invoice_id: UUID) -> Invoice | None:
    return await _one(connection, "WHERE invoice.id = :id", id=invoice_id)


async def find_at_stripe(connection: AsyncConnection, stripe_id: str) -> Invoice | None:
    return await _one(connection, "WHERE stripe_invoice_id = :id", id=stripe_id)


async def locked(connection: AsyncConnection, stripe_id: str) -> Invoice | None:
    """By Stripe's id, and nobody else changes it until the transaction ends."""
    return await _one(connection, "WHERE stripe_invoice_id = :id FOR NO KEY UPDATE OF invoice", id=stripe_id)


async def locked_by_id(connection: AsyncConnection, invoice_id: UUID) -> Invoice:
    """One that there is; nobody else changes it until the transaction ends."""
    found = await _one(connection, "WHERE invoice.id = :id FOR NO KEY UPDATE OF invoice", id=invoice_id)
    assert found is not None, "no row is ever removed"
    return found


async def newest(connection: AsyncConnection, choice: Choice, states: Sequence[str], count: int) -> list[Invoice]:
    """The newest periods first. No states: all."""
    where = f"""WHERE {CHOSEN} AND (state = ANY(:states) OR :states = '{{}}')
                ORDER BY first_day DESC, gateway_name, kind, revision DESC LIMIT :count"""
    rows = await connection.execute(_selected(where), {**choice.values, "states": list(states), "count": count})
    return [Invoice(**row) for row in rows.mappings()]


async def lines_of(connection: AsyncConnection, invoice_id: UUID) -> list[Line]:
    """In their order; positions count from 1."""
    query = """SELECT kind, description, exact, amount_minor, facts FROM invoice_line WHERE invoice_id = :id
                ORDER BY position"""
    return [Line(*row) for row in await connection.execute(text(query), {"id": invoice_id})]


async def events_of(connection: AsyncConnection, invoice_id: UUID) -> list[Mapping[str, Any]]:
    query = "SELECT at, state, said FROM invoice_event WHERE invoice_id = :id ORDER BY invoice_event.id"
    return [dict(row) for row in (await connection.execute(text(query), {"id": invoice_id})).mappings()]


async def to_walk(
    connection: AsyncConnection, choice: Choice, now: datetime, *, not_since: datetime | None
) -> list[UUID]:
    """Those with something to do, oldest first; what had a problem after `not_since` is left for later.

    Of an open one that is a charge which is due, or a saved card that was not charged for it yet.
    """
    query = f"""SELECT id FROM invoice LEFT JOIN saved_card USING (gateway_id)
                 WHERE (state = ANY(:states) OR state = 'open' AND (pay_next_at <= :now
                        OR collection = 'charge_automatically' AND payment_method_id <> coalesce(stripe_method_id, '')))
                   AND {CHOSEN}
                   AND (problem_at IS NULL OR state = 'open' OR CAST(:not_since AS timestamptz) IS NULL
                        OR problem_at < :not_since)
                 ORDER BY created_at, id"""  # noqa: S608 - our words
    values = {**choice.values, "states": list(TO_WALK), "now": now, "not_since": not_since}
    return list((await connection.execute(text(query), values)).scalars())


async def held(connection: AsyncConnection) -> list[Invoice]:
    """Those that do not go on by themselves, oldest first. A card that was declined is its customer's affair."""
    where = "WHERE problem IS NOT NULL AND state = ANY(:states) ORDER BY invoice.created_at, invoice.id"
    rows = await connection.execute(_selected(where), {"states": list(TO_WALK)})
    return [Invoice(**row) for row in rows.mappings()]


async def asking_for_balance(connection: AsyncConnection, gateway_id: UUID, until: datetime) -> list[Invoice]:
    """Those that ask, or asked, for what was owed at `until`: who is not paid first, then the oldest period.

    What was paid before is in the balance by then. A later one asks for it where it was carried.
    """
    where = """WHERE gateway_id = :gateway_id AND state NOT IN ('void', 'carried', 'nothing_due')
                 AND CASE WHEN begins_at < :until THEN state <> 'paid' OR state_at >= :until
                          ELSE EXISTS (SELECT FROM invoice_line
                                        WHERE invoice_id = invoice.id AND invoice_line.kind = 'carried') END
               ORDER BY state = 'paid', begins_at, kind, revision DESC"""
    rows = await connection.execute(_selected(where), {"gateway_id": gateway_id, "until": until})
    return [Invoice(**row) for row in rows.mappings()]


async def claim(connection: AsyncConnection, invoice_id: UUID, lease: timedelta) -> Invoice | None:
    """For whoever walks it now. None where somebody else does. It only saves work: nothing rests on its being kept."""
    query = """UPDATE invoice SET claimed_until = clock_timestamp() + :lease, claims_count = claims_count + 1
                WHERE id = :id AND (claimed_until IS NULL OR claimed_until <= clock_timestamp())"""
    if (await connection.execute(text(query), {"id": invoice_id, "lease": lease})).rowcount == 0:
        return None
    return await find(connection, invoice_id)


async def changed(connection: AsyncConnection, invoice: Invoice, **values: Any) -> Invoice | None:
    """As it is then. None where it is not in the state any more that we have seen, or was charged since: somebody else
    went on."""
    names = ", ".join(f"{name} = :new_{name}" for name in values)
    query = f"""UPDATE invoice SET {names} WHERE id = :id AND state = :state AND pay_attempts_count = :attempts_count
                   AND stripe_method_id IS NOT DISTINCT FROM CAST(:method_id AS text)"""  # noqa: S608 - our words
    was = {"id": invoice.id, "state": invoice.state, "method_id": invoice.stripe_method_id,
           "attempts_count": invoice.pay_attempts_count}  # fmt: skip
    given = {f"new_{name}": value for name, value in values.items()}
    if (await connection.execute(text(query), {**given, **was})).rowcount == 0:
        return None
    return await find(connection, invoice.id)


async def note_problem(connection: AsyncConnection, invoice_id: UUID, problem: str, *, key_is_spent: bool) -> None:
    """Why it does not go on; it is free for others, and begins its next call under another key where it must."""
    query = """UPDATE invoice SET problem = :problem, problem_at = clock_timestamp(), claimed_until = NULL,
                      keys_spent_count = keys_spent_count + :spent WHERE id = :id"""
    line = " ".join(problem.split())[:_PROBLEM_CHARS_MAX] or "it is not known why"
    await connection.execute(text(query), {"id": invoice_id, "problem": line, "spent": int(key_is_spent)})


async def give_back(connection: AsyncConnection, invoice_id: UUID, *, key_is_spent: bool = False) -> None:
    """What was claimed, is free again."""
    query = "UPDATE invoice SET claimed_until = NULL, keys_spent_count = keys_spent_count + :spent WHERE id = :id"
    await connection.execute(text(query), {"id": invoice_id, "spent": int(key_is_spent)})


async def _one(connection: AsyncConnection, where: str, **values: Any) -> Invoice | None:
    row = (await connection.execute(_selected(where), values)).mappings().one_or_none()
    return Invoice(**row) if row is not None else None


def _selected(where: str) -> Any:
    return text(f"SELECT {_COLUMNS} FROM invoice {where}")  # noqa: S608 - our words
