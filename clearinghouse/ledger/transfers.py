"""Credit in and out: grants, which may expire, withdrawals, and what payments and corrections make of a balance.

Each is one transfer, idempotent by its key. The database functions do the booking under the account's row lock
(migrations/sql/0001_credit.sql); this module checks what people type and turns the database's refusals into ours. Runs
in the caller's transaction: `grant` and `withdraw` in role clearinghouse_admin, `book` in clearinghouse_work, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from uuid import UUID

from psycopg.errors import NoDataFound, UniqueViolation
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from clearinghouse import ids
from clearinghouse.errors import IdempotencyConflict, InvalidRequest, NotFound, OutOfCredit
from clearinghouse.ledger.accounts import standing, violates_credit_limit
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

#: What `book` books: money of customers (payment, refund, dispute, dispute_won), what was given up (write_off), the
#: difference to a whole minor unit (rounding), corrections of what was charged (adjustment), and of a subscription its
#: price (fee) and the usage that is in it (included).
EntryKind = Literal[
    "payment", "refund", "dispute", "dispute_won", "write_off", "rounding", "adjustment", "fee", "included"
]
TransferKind = Literal["grant", "withdrawal", "expiry"] | EntryKind

_KEY: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
#: The clearinghouse keys its own entries by what they stand for: an expiry by its lot, a payment by Stripe's id. A key
#: taken by somebody else would keep them out of the books, and an expiry would block the account's next charge.
_RESERVED_KEY_PREFIXES: Final = tuple(f"{kind}:" for kind in ("expiry", *get_args(EntryKind)))
REASON_CHARS_MAX: Final = 1000


class WithdrawalTooLarge(OutOfCredit):
    """More was asked for than balance and credit limit hold."""

    what_next = "Withdraw at most what is available."


@dataclass(frozen=True, slots=True)
class Transfer:
    """One booking: `amount` left `source` and entered `destination`. `was_repeated`: it had been booked before."""

    id: UUID
    kind: TransferKind
    source: UUID
    destination: UUID
    amount: Decimal
    currency: str
    key: str | None
    reason: str
    actor: str
    created_at: datetime
    was_repeated: bool


async def grant(
    connection: AsyncConnection,
    gateway_id: UUID,
    amount: Decimal,
    *,
    reason: str,
    actor: str,
    key: str | None = None,
    expires_at: datetime | None = None,
) -> Transfer:
    """Give credit; what is left of it at `expires_at` lapses. Usage takes from what expires first.

    The same key with the same gateway and amount books once and returns the first transfer; with others it is an
    IdempotencyConflict.
    """
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise InvalidRequest("granted credit cannot expire in the past")
    _check_typed(amount, key)
    query = "SELECT * FROM grant_credit(:id, :gateway_id, :amount, :expires_at, :key, :reason, :actor)"
    return await _book(
        connection, query, gateway_id, amount, key=key, reason=reason, actor=actor, expires_at=expires_at
    )


async def withdraw(
    connection: AsyncConnection, gateway_id: UUID, amount: Decimal, *, reason: str, actor: str, key: str | None = None
) -> Transfer:
    """Take credit back: first what does not expire, then what expires last. Idempotent by key, as `grant`.

    WithdrawalTooLarge (out_of_credit) where balance and credit limit together do not hold the amount.
    """
    _check_typed(amount, key)
    query = "SELECT * FROM withdraw_credit(:id, :gateway_id, :amount, :key, :reason, :actor)"
    return await _book(connection, query, gateway_id, amount, key=key, reason=reason, actor=actor)


async def book(
    connection: AsyncConnection,
    gateway_id: UUID,
    kind: EntryKind,
    amount: Decimal,
    *,
    key: str,
    reason: str,
    actor: str,
    expires_at: datetime | None = None,
) -> Transfer:
    """Put `amount` into the account, or take it out where it is negative, whatever the credit limit is.

    `key` says of which payment, refund or correction it is; unique within its kind, and idempotent as in `grant`. What
    leaves the account below its limit stops signing until it is made up for. Only what is included may expire.
    """
    query = "SELECT * FROM book_entry(:id, :kind, :gateway_id, :amount, :expires_at, :key, :reason, :actor)"
    return await _book(
        connection,
        query,
        gateway_id,
        amount,
        key=f"{kind}:{key}",
        reason=reason,
        actor=actor,
        kind=kind,
        expires_at=expires_at,
    )


async def _book(
    connection: AsyncConnection,
    query: str,
    gateway_id: UUID,
    amount: Decimal,
    *,
    key: str | None,
    reason: str,
    actor: str,
    **further: Any,
) -> Transfer:
    check_reason(reason)
    transfer_id = ids.uuid7()
    parameters = {"id": transfer_id, "gateway_id": gateway_id, "amount": amount, "key": key, "reason": reason}
    try:
        async with connection.begin_nested():  # a refusal leaves the caller's transaction usable
            result = await connection.execute(text(query), {**parameters, "actor": actor, **further})
            row = result.mappings().one()
    except DBAPIError as error:
        if isinstance(error.orig, NoDataFound):
            raise NotFound(f"there is no gateway {ids.show('gw', gateway_id)}") from error
        if isinstance(error.orig, UniqueViolation) and key is not None:
            raise IdempotencyConflict(f"the idempotency key {key!r} was used for another transfer") from error
        if isinstance(error, IntegrityError) and violates_credit_limit(error):
            raise await _too_large(connection, gateway_id, amount) from error
        raise
    return Transfer(**row, was_repeated=row["id"] != transfer_id)


async def _too_large(connection: AsyncConnection, gateway_id: UUID, amount: Decimal) -> WithdrawalTooLarge:
    now = await standing(connection, gateway_id)
    return WithdrawalTooLarge(
        f"{show_amount(amount)} {now.currency} is more than is available: balance {show_amount(now.balance)}, credit "
        f"limit {show_amount(now.credit_limit)}",
        available=show_amount(now.available),
        currency=now.currency,
    )


def check_reason(reason: str, *, chars_max: int = REASON_CHARS_MAX) -> None:
    """A reason is for the people who read the books later: one line, not empty. Raises InvalidRequest."""
    if not reason.strip():
        raise InvalidRequest("a reason is needed: it is what the books will say about this")
    if len(reason) > chars_max or not reason.isprintable():
        raise InvalidRequest(f"a reason is one line of at most {chars_max} printable characters")


def _check_typed(amount: Decimal, key: str | None) -> None:
    if amount <= 0:
        raise InvalidRequest("the amount must be greater than 0")
    if key is None:
        return
    if _KEY.fullmatch(key) is None:
        raise InvalidRequest("an idempotency key has 1 to 255 printable ASCII characters and no spaces")
    if key.startswith(_RESERVED_KEY_PREFIXES):
        raise InvalidRequest(f"idempotency keys that begin with {key.partition(':')[0]}: belong to the clearinghouse")
