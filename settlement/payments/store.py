"""Payments and refunds in the database: every change is one function there, which also writes its event."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.ids import uuid7
from settlement.payments.record import ACTOR, Payment, Refund, payment_of, refund_of

_SAID_CHARS_MAX: Final = 500


async def find_payment(connection: AsyncConnection, payment_id: UUID) -> Payment | None:
    return await _payment(connection, "WHERE id = :id", id=payment_id)


async def find_by_intent(connection: AsyncConnection, intent_id: str) -> Payment | None:
    return await _payment(connection, "WHERE stripe_intent_id = :id", id=intent_id)


async def transfers_awaited(connection: AsyncConnection, gateway_id: UUID) -> list[Payment]:
    """Bank transfers that a gateway has instructions for, oldest first."""
    return await _payments(connection, "WHERE gateway_id = :id AND method = 'bank_transfer' AND state = 'open'",
                           id=gateway_id)  # fmt: skip


async def gateway_of_customer(connection: AsyncConnection, customer_id: str) -> UUID | None:
    """None where it is no customer of ours."""
    query = text("SELECT gateway_id FROM customer WHERE stripe_customer_id = :id")
    found: UUID | None = (await connection.execute(query, {"id": customer_id})).scalar_one_or_none()
    return found


async def claim_payments(connection: AsyncConnection, *, lease: timedelta, count: int) -> list[Payment]:
    """Begins an attempt for what is due."""
    query = text("SELECT * FROM claim_payments(:lease, :count)")
    rows = (await connection.execute(query, {"lease": lease, "count": count})).mappings()
    return [payment_of(row) for row in rows]


async def note_asked(
    connection: AsyncConnection, payment: Payment, *, customer_id: str, method_id: str | None, renews: bool
) -> Payment:
    """Before Stripe is asked: with what, and under which key. What was noted before stays."""
    query = text("SELECT * FROM note_payment_asked(:id, :customer, :method, :renews, :actor)")
    values = {"id": payment.id, "customer": customer_id, "method": method_id, "renews": renews, "actor": ACTOR}
    return payment_of((await connection.execute(query, values)).mappings().one())


async def put_off(connection: AsyncConnection, payment: Payment, pause: timedelta, said: str) -> None:
    query = text("SELECT put_off_payment(:id, :pause, :said, :actor)")
    values = {"id": payment.id, "pause": pause, "said": said[:_SAID_CHARS_MAX], "actor": ACTOR}
    await connection.execute(query, values)


async def opened(
    connection: AsyncConnection,
    payment: Payment,
    *,
    session_id: str | None = None,
    intent_id: str | None = None,
    url: str | None = None,
    instructions: dict[str, Any] | None = None,
    expires_at: datetime | None = None,
) -> Payment:
    """It is there at Stripe. What is known of it stays as it was first said."""
    query = text(
        "SELECT * FROM open_payment(:id, :session, :intent, :url, CAST(:instructions AS jsonb), :expires_at, :actor)"
    )
    values = {
        "id": payment.id, "session": session_id, "intent": intent_id, "url": url, "expires_at": expires_at,
        "instructions": json.dumps(instructions) if instructions is not None else None, "actor": ACTOR,
    }  # fmt: skip
    return payment_of((await connection.execute(query, values)).mappings().one())


async def processing(
    connection: AsyncConnection, payment: Payment, *, session_id: str, intent_id: str | None, said: str
) -> bool:
    """Its page is done, and the bank has not answered. False where that was known, or where it has ended."""
    query = text("SELECT process_payment(:id, :session, :intent, :said, :actor)")
    values = {"id": payment.id, "session": session_id, "intent": intent_id, "said": said, "actor": ACTOR}
    return bool((await connection.execute(query, values)).scalar_one())


async def confirmed(connection: AsyncConnection, payment: Payment, *, intent_id: str, charge_id: str | None) -> str:
    """The money is there: "booked", "known" (it had been) or "other" (by another intent: it was paid twice)."""
    query = text("SELECT confirm_payment(:id, :entry, :intent, :charge, :actor)")
    values = {"id": payment.id, "entry": uuid7(), "intent": intent_id, "charge": charge_id, "actor": ACTOR}
    return str((await connection.execute(query, values)).scalar_one())


async def ended(
    connection: AsyncConnection,
    payment: Payment,
    state: str,
    *,
    intent_id: str | None = None,
    failure: str | None = None,
    said: str = "",
) -> bool:
    """Without money. False where it had ended before."""
    query = text("SELECT end_payment(:id, :state, :intent, :failure, :said, :actor)")
    values = {
        "id": payment.id, "state": state, "intent": intent_id, "failure": failure, "said": said[:_SAID_CHARS_MAX],
        "actor": ACTOR,
    }  # fmt: skip
    return bool((await connection.execute(query, values)).scalar_one())


async def claim_refunds(connection: AsyncConnection, *, lease: timedelta, count: int) -> list[Refund]:
    """Begins an attempt for what is due."""
    query = text("SELECT * FROM claim_refunds(:lease, :count)")
    return [refund_of(row) for row in (await connection.execute(query, {"lease": lease, "count": count})).mappings()]


async def note_refund_asked(connection: AsyncConnection, refund: Refund, *, renews: bool) -> Refund:
    """Before Stripe is asked."""
    query = text("SELECT * FROM note_refund_asked(:id, :renews)")
    return refund_of((await connection.execute(query, {"id": refund.id, "renews": renews})).mappings().one())


async def put_off_refund(connection: AsyncConnection, refund: Refund, pause: timedelta, said: str) -> None:
    query = text("SELECT put_off_refund(:id, :pause, :said)")
    await connection.execute(query, {"id": refund.id, "pause": pause, "said": said[:_SAID_CHARS_MAX]})


async def refuse_refund(connection: AsyncConnection, refund: Refund, said: str) -> None:
    query = text("SELECT refuse_refund(:id, :said, :actor)")
    await connection.execute(query, {"id": refund.id, "said": said[:_SAID_CHARS_MAX], "actor": ACTOR})


async def _payment(connection: AsyncConnection, where: str, **values: Any) -> Payment | None:
    found = await _payments(connection, where, **values)
    return found[0] if found else None


async def _payments(connection: AsyncConnection, where: str, **values: Any) -> list[Payment]:
    query = text(f"SELECT * FROM payment {where} ORDER BY id")  # noqa: S608 - our own words
    return [payment_of(row) for row in (await connection.execute(query, values)).mappings()]
