"""What payments make of Stripe's objects, by their type; and which of ours are not final."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from settlement.payments.cards import method_changed, setup_changed
from settlement.payments.cash import cash_moved, cash_waits, customers_with_cash
from settlement.payments.disputes import charge_changed, dispute_changed
from settlement.payments.intents import intent_changed
from settlement.payments.refunds import refund_changed
from settlement.payments.sessions import session_changed
from settlement.stripe_link.desk import Handler, Sweepable

HANDLERS: Final[Mapping[str, Handler]] = {
    "checkout.session": session_changed,
    "payment_intent": intent_changed,
    "charge": charge_changed,
    "refund": refund_changed,
    "dispute": dispute_changed,
    "setup_intent": setup_changed,
    "payment_method": method_changed,
    "customer_cash_balance_transaction": cash_moved,
    "cash_balance": cash_waits,
}


def _ids(column: str, of: str) -> Sweepable:
    """In the order of the ids themselves."""

    async def sweepable(connection: AsyncConnection, after: str, count_max: int) -> Sequence[str]:
        query = text(
            f'SELECT {column} FROM {of} AND {column} COLLATE "C" > :after ORDER BY {column} COLLATE "C" LIMIT :count'  # noqa: S608
        )
        return list((await connection.execute(query, {"after": after, "count": count_max})).scalars())

    return sweepable


SWEEPABLES: Final[Mapping[str, Sweepable]] = {
    "checkout.session": _ids("stripe_session_id", "payment WHERE ended_at IS NULL AND stripe_session_id IS NOT NULL"),
    "payment_intent": _ids("stripe_intent_id", "payment WHERE ended_at IS NULL AND stripe_intent_id IS NOT NULL"),
    "refund": _ids("stripe_refund_id", "refund WHERE state = 'pending' AND stripe_refund_id IS NOT NULL"),
    "dispute": _ids("id", "dispute WHERE ended_at IS NULL"),
    "cash_balance": customers_with_cash,
}
