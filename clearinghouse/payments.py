"""Payments as their gateway asks for them and sees them. Nothing here talks to Stripe: a request is a row, and whoever
does (`clearinghouse work`) is woken by it and answers in the same row.

Runs in the caller's transaction: in role clearinghouse_serve for a gateway, in clearinghouse_admin for an operator.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from psycopg.errors import NoDataFound
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from clearinghouse import ids
from clearinghouse.errors import Conflict, IdempotencyConflict, InvalidRequest, NotFound, TooManyRequests
from clearinghouse.instants import rfc3339
from clearinghouse.ledger.money import show_amount

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

#: How a gateway may ask to pay: at Stripe's page, with the card it saved, by bank transfer; or to save a card there.
Method = Literal["checkout", "card", "bank_transfer", "setup"]
METHODS: Final[tuple[Method, ...]] = ("checkout", "card", "bank_transfer", "setup")

PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE_MAX: Final = 200
KEY_CHARS_MAX: Final = 255
_ASK_AGAIN_FIRST_S: Final = 0.05
_ASK_AGAIN_MAX_S: Final = 0.25

Document = dict[str, Any]


class ChargeUnderWay(Conflict):
    """A saved card is charged once at a time."""

    what_next = "Wait until the charge that is under way has ended: GET /v1/topups shows it."


class TooManyPayments(TooManyRequests):
    what_next = "Pay one of those that are open, or wait until they expire; look why others failed."


@dataclass(frozen=True, slots=True)
class PaymentStanding:
    """A payment, and how far it is. `amount` is None where a card is only saved.

    `failure` is a code and `said` a sentence: why it failed, or what it waits for, and what can be done.
    """

    id: UUID
    gateway_id: UUID
    method: str
    state: str
    amount: Decimal | None
    currency: str
    saves_card: bool
    created_at: datetime
    url: str | None
    instructions: Document | None
    expires_at: datetime | None
    failure: str | None
    said: str
    ended_at: datetime | None

    @property
    def is_answered(self) -> bool:
        """Whether there is more to see than that it was asked for."""
        return self.state != "requested"


_COLUMNS: Final = ", ".join(PaymentStanding.__slots__)


async def request(
    connection: AsyncConnection,
    gateway_id: UUID,
    method: Method,
    amount: Decimal | None,
    *,
    actor: str,
    saves_card: bool = False,
    key: str | None = None,
    reason: str = "",
) -> UUID:
    """Ask for a payment of `amount` (None with "setup"), in the account's currency. The id, under which it is found.

    The same key with the same request gives the same id; with another it is an IdempotencyConflict. Raises
    ChargeUnderWay and TooManyPayments.
    """
    if (amount is None) != (method == "setup"):
        raise InvalidRequest("a card is saved without an amount" if amount is not None else "an amount is needed")
    if key is not None and not (0 < len(key) <= KEY_CHARS_MAX and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"an idempotency key has 1 to {KEY_CHARS_MAX} printable ASCII characters")
    query = text("SELECT request_payment(:id, :gateway, :method, :amount, :saves_card, :key, :reason, :actor)")
    values = {
        "id": ids.uuid7(), "gateway": gateway_id, "method": method, "amount": amount, "saves_card": saves_card,
        "key": key, "reason": reason, "actor": actor,
    }  # fmt: skip
    try:
        async with connection.begin_nested():
            found: UUID = (await connection.execute(query, values)).scalar_one()
    except DBAPIError as error:
        raise refusal_of(error, gateway_id) from error
    return found


def refusal_of(error: DBAPIError, gateway_id: UUID) -> Exception:
    """What the database said of a request, in our vocabulary; the error itself where it is none of that."""
    if isinstance(error.orig, NoDataFound):
        return NotFound(f"there is no gateway {ids.show('gw', gateway_id)}")
    diagnosis = getattr(error.orig, "diag", None)
    match diagnosis.constraint_name if diagnosis is not None else None:
        case "payment_request_key":
            return IdempotencyConflict("this idempotency key was used for another payment")
        case "payment_charge_in_flight":
            return ChargeUnderWay("the saved card is being charged already")
        case "payments_open_max":
            return TooManyPayments("20 payments are under way: there can be no more of them at once", retry_after_s=60)
        case "payments_failed_max":
            return TooManyPayments(
                "20 payments have failed within an hour: ask for no more of them now", retry_after_s=600
            )
        case _:
            return error


async def find(connection: AsyncConnection, gateway_id: UUID, payment_id: UUID) -> PaymentStanding:
    """NotFound also for another gateway's."""
    query = text(f"SELECT {_COLUMNS} FROM payment WHERE gateway_id = :gateway AND id = :id")  # noqa: S608 - our names
    row = (await connection.execute(query, {"gateway": gateway_id, "id": payment_id})).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no payment {ids.show('pay', payment_id)}")
    return PaymentStanding(**row)


async def newest(
    connection: AsyncConnection, gateway_id: UUID, *, limit: int = PAGE_SIZE_DEFAULT, before: UUID | None = None
) -> list[PaymentStanding]:
    """The gateway's, newest first, from the one after `before` on. InvalidRequest for a limit that is none."""
    if not 1 <= limit <= PAGE_SIZE_MAX:
        raise InvalidRequest(f"limit must be 1 to {PAGE_SIZE_MAX}, not {limit}")
    bound = "AND id < :before" if before is not None else ""
    query = text(
        f"SELECT {_COLUMNS} FROM payment WHERE gateway_id = :gateway {bound} ORDER BY id DESC LIMIT :limit"  # noqa: S608
    )
    values = {"gateway": gateway_id, "limit": limit} | ({"before": before} if before is not None else {})
    return [PaymentStanding(**row) for row in (await connection.execute(query, values)).mappings()]


async def answered(engine: AsyncEngine, gateway_id: UUID, payment_id: UUID, *, within_s: float) -> PaymentStanding:
    """As it is once there is an answer, or when the time is over: then it is still as it was asked for."""
    clock = asyncio.get_running_loop().time
    until_s, pause_s = clock() + within_s, _ASK_AGAIN_FIRST_S
    while True:
        async with engine.connect() as connection:
            found = await find(connection, gateway_id, payment_id)
        if found.is_answered or clock() + pause_s > until_s:
            return found
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _ASK_AGAIN_MAX_S)


def parse_payment_id(shown: str) -> UUID:
    """InvalidRequest for what is none."""
    try:
        return ids.parse("pay", shown)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


def payment_document(payment: PaymentStanding) -> Document:
    """As the API and the command line show it."""
    return {
        "id": ids.show("pay", payment.id),
        "gateway_id": ids.show("gw", payment.gateway_id),
        "method": payment.method,
        "state": payment.state,
        "amount": show_amount(payment.amount) if payment.amount is not None else None,
        "currency": payment.currency,
        "url": payment.url,
        "instructions": payment.instructions,
        "failure": payment.failure,
        "said": payment.said,
        "saves_card": payment.saves_card,
        "created_at": rfc3339(payment.created_at),
        "expires_at": rfc3339(payment.expires_at) if payment.expires_at is not None else None,
        "ended_at": rfc3339(payment.ended_at) if payment.ended_at is not None else None,
    }
