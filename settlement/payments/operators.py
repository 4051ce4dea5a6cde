"""What operators do about payments: enter what came by other ways, approve it, send money back, give debts up.

Runs in the caller's transaction, in role clearinghouse_admin. Nothing here talks to Stripe: a refund is a request.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from psycopg.errors import NoDataFound
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from clearinghouse.errors import Conflict, IdempotencyConflict, InvalidRequest, NotAllowed, NotFound
from clearinghouse.ids import show, uuid7
from clearinghouse.ledger import transfers
from clearinghouse.ledger.accounts import standing
from clearinghouse.ledger.money import show_amount
from clearinghouse.payments import refusal_of
from settlement.payments.amounts import exact_minor

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

ReceiptMethod = Literal["wire", "stablecoin"]
RECEIPT_METHODS: Final[tuple[ReceiptMethod, ...]] = ("wire", "stablecoin")
_REFERENCE_CHARS_MAX: Final = 200


class NothingLeft(InvalidRequest):
    """More was to go back than is left of the payment."""

    what_next = "Refund at most what is left. What did not come through Stripe is sent back by hand: `credit withdraw`."


class NotByYourself(NotAllowed):
    """Who entered a receipt does not approve it."""

    what_next = (
        "Have another person look at the account and approve it, with a login of their own on this machine: people are "
        "told apart by the user that runs the command. docs/payments.md, Two operators, has how to set them up."
    )


async def enter_receipt(
    connection: AsyncConnection,
    gateway_id: UUID,
    method: ReceiptMethod,
    amount: Decimal,
    *,
    reference: str,
    reason: str,
    actor: str,
) -> UUID:
    """Write down money that came by another way. Nothing is booked before another person approves it.

    Conflict where something with this reference was entered before and not refused.
    """
    if not (0 < len(reference) <= _REFERENCE_CHARS_MAX and reference.isprintable() and reference.strip() == reference):
        raise InvalidRequest(f"a reference is one line of at most {_REFERENCE_CHARS_MAX} characters")
    query = "SELECT enter_receipt(:id, :gateway, :method, :amount, :reference, :reason, :actor)"
    values = {
        "id": uuid7(), "gateway": gateway_id, "method": method, "amount": amount, "reference": reference,
        "reason": reason, "actor": actor,
    }  # fmt: skip
    try:
        entered: UUID = await _called(connection, query, values)
    except DBAPIError as error:
        if _constraint(error) == "payment_reference":
            raise Conflict(f"a {method} with the reference {reference} was entered before") from error
        raise refusal_of(error, gateway_id) from error
    return entered


async def decide_receipt(
    connection: AsyncConnection, payment_id: UUID, *, approves: bool, reason: str, actor: str
) -> None:
    """Approve: it is booked as a payment. Or refuse: it never was. NotByYourself where `actor` had entered it."""
    values = {"id": payment_id, "entry": uuid7(), "approves": approves, "said": reason, "actor": actor}
    try:
        await _called(connection, "SELECT decide_receipt(:id, :entry, :approves, :said, :actor)", values)
    except DBAPIError as error:
        if isinstance(error.orig, NoDataFound):
            raise NotFound(f"no receipt {show('pay', payment_id)} waits to be approved") from error
        if _constraint(error) == "receipt_needs_two_people":
            raise NotByYourself(f"{actor} entered this receipt: another person approves or refuses it") from error
        raise


async def refund(
    connection: AsyncConnection,
    payment_id: UUID,
    amount: Decimal | None,
    *,
    reason: str,
    actor: str,
    key: str | None = None,
) -> UUID:
    """Ask for `amount` of a payment to go back, or for all that is left of it. It leaves the account once Stripe has
    it. The same key with the same refund is one refund. Raises NothingLeft.
    """
    transfers.check_reason(reason)
    if amount is not None:
        query = text("SELECT currency FROM payment WHERE id = :id")
        for currency in (await connection.execute(query, {"id": payment_id})).scalars():
            exact_minor(amount, currency)
    values = {
        "id": uuid7(), "payment": payment_id, "amount": amount, "key": key, "reason": reason, "actor": actor,
    }  # fmt: skip
    try:
        asked: UUID = await _called(
            connection, "SELECT request_refund(:id, :payment, :amount, :key, :reason, :actor)", values
        )
    except DBAPIError as error:
        if isinstance(error.orig, NoDataFound):
            raise NotFound(f"there is no payment {show('pay', payment_id)}") from error
        match _constraint(error):
            case "refund_left":
                left = show_amount(Decimal(str(getattr(error.orig, "diag").message_primary)))  # noqa: B009 (untyped)
                raise NothingLeft(f"{left} is left of {show('pay', payment_id)} to go back through Stripe") from error
            case "refund_request_key_key":
                raise IdempotencyConflict("this key was used for another refund") from error
        raise
    return asked


async def write_off(
    connection: AsyncConnection, gateway_id: UUID, amount: Decimal, *, reason: str, actor: str, key: str
) -> transfers.Transfer:
    """Give up what a gateway owes, or a part of it. Idempotent by `key`.

    InvalidRequest for more than it owes, and for what invoices ask for, which the next one would give as credit: the
    transaction is to be given up with it.
    """
    booked = await transfers.book(connection, gateway_id, "write_off", amount, key=key, reason=reason, actor=actor)
    now = await standing(connection, gateway_id)  # nobody else's any more: booking has locked it
    if not booked.was_repeated and now.balance > 0:
        owed = show_amount(max(amount - now.balance, Decimal(0)))
        raise InvalidRequest(f"the gateway owes {owed} {now.currency}: no more can be written off")
    if not booked.was_repeated and await _unbilled(connection, gateway_id) < 0:
        raise InvalidRequest(
            "invoices ask for it, or will: `clearinghouse invoices void` takes them back, then it can be written off"
        )
    return booked


async def _unbilled(connection: AsyncConnection, gateway_id: UUID) -> Decimal:
    """What is owed and no invoice asks for; below 0 it is credit of the next one."""
    query = text("SELECT unbilled(id, 'infinity', balance) FROM account WHERE id = :id")
    return Decimal((await connection.execute(query, {"id": gateway_id})).scalar_one())


async def forgive_disputes(connection: AsyncConnection, gateway_id: UUID, *, reason: str, actor: str) -> int:
    """Disputes so far are no reason any more to sign nothing. What they took stays taken. How many those were."""
    transfers.check_reason(reason)
    values = {"gateway": gateway_id, "reason": reason, "actor": actor}
    return int(await _called(connection, "SELECT forgive_disputes(:gateway, :reason, :actor)", values))


async def _called(connection: AsyncConnection, query: str, values: dict[str, Any]) -> Any:
    """A refusal leaves the caller's transaction usable."""
    async with connection.begin_nested():
        return (await connection.execute(text(query), values)).scalar_one()


def _constraint(error: DBAPIError) -> str | None:
    diagnosis = getattr(error.orig, "diag", None)
    return diagnosis.constraint_name if diagnosis is not None else None
