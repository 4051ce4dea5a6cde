"""The standing of a gateway: what it has, what it may still spend, which granted credit ends when.

An account has its gateway's id. Reads need only SELECT; `set_limit` runs in role clearinghouse_admin.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from uuid import UUID

from psycopg.errors import CheckViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from clearinghouse import ids
from clearinghouse.errors import Conflict, InvalidRequest, NotFound
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

WITHIN_LIMIT_CONSTRAINT: Final = "account_within_credit_limit"


class LimitBelowDebt(Conflict):
    """The gateway owes more than the new limit would allow."""

    what_next = "Grant credit first, or set a limit of at least what is owed."


@dataclass(frozen=True, slots=True)
class CreditLot:
    """Credit that expires; `remaining` is what usage has left of it so far. `id` is the transfer's that gave it."""

    id: UUID
    amount: Decimal
    remaining: Decimal
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """One account at one instant, in `currency`. `available` = balance + credit limit is what a call may cost at most.

    It is negative where money that was taken back left less than that. `balance` and `lots` leave out credit that
    expired a moment ago, even where the expiry is not in the books yet: the next charge books it first. The lots are in
    the order in which usage takes from them.
    """

    gateway_id: UUID
    currency: str
    balance: Decimal
    credit_limit: Decimal
    available: Decimal
    usage_total: Decimal
    #: Of today, UTC: the fees that sessions came to, and the expected value of the tickets they were paid with.
    fee_day_wei: int
    ev_day_wei: int
    lots: tuple[CreditLot, ...]

    @property
    def fee_ev_bps(self) -> int | None:
        """Fees in basis points of the expected value, rounded down; None without any.

        Sessions that go on come to nearly 10,000: a part of a ticket is left over. Abuse A1 comes to almost nothing.
        """
        return self.fee_day_wei * 10_000 // self.ev_day_wei if self.ev_day_wei else None


# What settle_lots would leave, without writing: usage not yet taken from lots is taken in their order.
_LOTS: Final = """
    SELECT lot.id, lot.rank, lot.amount, lot.expires_at, lot.expires_at <= now() AS has_expired,
           lot.remaining - greatest(0, least(lot.remaining, account.usage_total - account.lots_usage - coalesce(
               sum(lot.remaining) OVER (ORDER BY lot.rank, lot.expires_at, lot.id
                                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0))) AS remaining
      FROM credit_lot AS lot JOIN account ON account.id = lot.account_id
     WHERE lot.account_id = :id AND lot.remaining > 0
"""
_STANDING: Final = f"""
    WITH lot AS ({_LOTS}), expired AS (SELECT coalesce(sum(remaining), 0) AS amount FROM lot WHERE has_expired),
    open_lot AS (SELECT * FROM lot WHERE NOT has_expired AND remaining > 0)
    SELECT account.id, currency, usage_total, credit_limit,
           balance - expired.amount AS balance, balance - expired.amount + credit_limit AS available,
           CASE WHEN usage_day = today.day THEN fee_day_wei ELSE 0 END AS fee_day_wei,
           CASE WHEN usage_day = today.day THEN ev_day0_wei ELSE 0 END AS ev_day_wei,
           open_lot.id AS lot_id, open_lot.amount AS lot_amount, open_lot.remaining AS lot_remaining,
           open_lot.expires_at AS lot_expires_at
      FROM account CROSS JOIN expired CROSS JOIN (SELECT (now() AT TIME ZONE 'UTC')::date AS day) AS today
      LEFT JOIN open_lot ON true
     WHERE account.id = :id AND account.gateway_id IS NOT NULL
     ORDER BY open_lot.rank, open_lot.expires_at, open_lot.id
"""  # noqa: S608


async def standing(connection: AsyncConnection, gateway_id: UUID) -> Standing:
    """Where the gateway stands now, in one statement, so that the numbers belong together. NotFound without account."""
    rows = (await connection.execute(text(_STANDING), {"id": gateway_id})).mappings().all()
    if not rows:
        raise NotFound(f"there is no gateway {ids.show('gw', gateway_id)}")
    account = rows[0]
    return Standing(
        gateway_id=account["id"],
        currency=account["currency"],
        balance=account["balance"],
        credit_limit=account["credit_limit"],
        available=account["available"],
        usage_total=account["usage_total"],
        fee_day_wei=int(account["fee_day_wei"]),
        ev_day_wei=int(account["ev_day_wei"]),
        lots=tuple(
            CreditLot(row["lot_id"], row["lot_amount"], row["lot_remaining"], row["lot_expires_at"])
            for row in rows
            if row["lot_id"] is not None
        ),
    )


async def set_limit(connection: AsyncConnection, gateway_id: UUID, credit_limit: Decimal) -> Standing:
    """Let the balance go down to minus `credit_limit`. LimitBelowDebt where the gateway owes more than that already."""
    if credit_limit < 0:
        raise InvalidRequest("a credit limit cannot be negative")
    query = text("UPDATE account SET credit_limit = :credit_limit WHERE id = :id AND gateway_id IS NOT NULL")
    try:
        async with connection.begin_nested():
            await connection.execute(query, {"id": gateway_id, "credit_limit": credit_limit})
    except IntegrityError as error:
        if violates_credit_limit(error):
            now = await standing(connection, gateway_id)
            raise LimitBelowDebt(
                f"the gateway owes {show_amount(-now.balance)} {now.currency}: its credit limit cannot be lowered to "
                f"{show_amount(credit_limit)}",
                balance=show_amount(now.balance),
            ) from error
        raise
    return await standing(connection, gateway_id)


def violates_credit_limit(error: IntegrityError) -> bool:
    """Whether the database refused because a balance would have fallen below minus its credit limit."""
    return isinstance(error.orig, CheckViolation) and error.orig.diag.constraint_name == WITHIN_LIMIT_CONSTRAINT
