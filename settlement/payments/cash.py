"""Bank transfers that came otherwise than asked for: too much, too little, unasked. What came is credited.

Stripe keeps a transfer in the customer's cash balance and pays with it what waits for exactly that. What is left there
pays nothing: it becomes credit by a payment of its own. Open invoices come first: they are paid from it, too
(cash_invoices.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.shallow_json import loads
from clearinghouse.errors import InvalidRequest
from clearinghouse.ids import uuid7
from settlement.payments import store
from settlement.payments.amounts import MAXIMUM_MINOR, amount_of, minor_of, show
from settlement.payments.cash_invoices import pay_open_invoices
from settlement.payments.fetched import fetch
from settlement.payments.intents import cancel, intent_changed
from settlement.payments.record import ACTOR, Payment
from settlement.stripe_link.desk import Desk, Park


async def cash_moved(desk: Desk, movement_id: str) -> str:
    """Handler of a cash balance's movements. Stripe shows one only to who knows its customer: the event says which."""
    async with desk.engine.connect() as connection:
        query = text("SELECT payload FROM stripe_event WHERE object_id = :id ORDER BY received_at LIMIT 1")
        payload = (await connection.execute(query, {"id": movement_id})).scalar_one_or_none()
        movement = loads(payload)["data"]["object"] if payload is not None else {}
        customer_id, code = str(movement.get("customer")), str(movement.get("currency")).upper()
        gateway_id = await store.gateway_of_customer(connection, customer_id)
        currency = await _currency_of(connection, gateway_id) if gateway_id is not None else ""
    if gateway_id is None:
        return "not of a customer of ours"
    if code != currency:
        return await _require_returned(desk, customer_id, code, currency)
    return await settle_cash(desk, gateway_id, customer_id)


async def cash_waits(desk: Desk, customer_id: str) -> str:
    """Handler of cash balances, for the sweep: what waited for an invoice, or for another payment, and need not now."""
    async with desk.engine.connect() as connection:
        gateway_id = await store.gateway_of_customer(connection, customer_id)
    if gateway_id is None:
        return "not of a customer of ours"
    return await settle_cash(desk, gateway_id, customer_id)


async def customers_with_cash(connection: AsyncConnection, after: str, count_max: int) -> Sequence[str]:
    """Those who were told where to transfer to, or have transferred."""
    query = text("""
        SELECT stripe_customer_id FROM customer WHERE stripe_customer_id COLLATE "C" > :after
           AND (EXISTS (SELECT FROM payment WHERE payment.gateway_id = customer.gateway_id
                           AND method IN ('bank_transfer', 'cash_balance'))
                OR stripe_customer_id IN (SELECT substring(payload FROM '"customer": *"([^"]+)"') FROM stripe_event
                                           WHERE object_type = 'customer_cash_balance_transaction'))
         ORDER BY stripe_customer_id COLLATE "C" LIMIT :count
    """)
    return list((await connection.execute(query, {"after": after, "count": count_max})).scalars())


async def settle_cash(desk: Desk, gateway_id: UUID, customer_id: str) -> str:
    """Plans the payment that takes what is left in the cash balance, if something is."""
    async with desk.engine.connect() as connection:
        currency = await _currency_of(connection, gateway_id)
        awaited = await store.transfers_awaited(connection, gateway_id)
    left = await _left(desk, customer_id, currency)
    if not left and not await _any_in_part(desk, awaited):
        return "nothing is left in the cash balance"
    if (said := await pay_open_invoices(desk, customer_id, left, currency)) is not None:
        return said
    for payment in awaited:
        await _give_up(desk, payment)
    left = await _left(desk, customer_id, currency)
    if not left:
        return "nothing is left in the cash balance"
    return await _planned(desk, gateway_id, left, currency)


async def _left(desk: Desk, customer_id: str, currency: str) -> int:
    """In minor units. What is there in another currency is no matter of this one's."""
    cash = await fetch(desk, desk.link.client.v1.customers.cash_balance.retrieve_async, customer_id)
    available: dict[str, Any] = cash.available.to_dict() if cash.available is not None else {}
    return int(available.get(currency.lower(), 0))


async def _require_returned(desk: Desk, customer_id: str, code: str, currency: str) -> str:
    """Of a transfer in a currency that the account is not in. Parks as long as something of it is there."""
    left = await _left(desk, customer_id, code)
    if left:
        raise Park(f"{show(left, code)} came for an account in {currency}: return it at Stripe")
    return f"nothing in {code} is left in the cash balance"


async def _currency_of(connection: AsyncConnection, gateway_id: UUID) -> str:
    query = text("SELECT currency FROM account WHERE id = :id")
    return str((await connection.execute(query, {"id": gateway_id})).scalar_one())


async def _any_in_part(desk: Desk, awaited: list[Payment]) -> bool:
    """Whether Stripe has put a smaller transfer towards one of them, which would wait there for the rest."""
    for payment in awaited:
        assert payment.stripe_intent_id is not None, "it is open"
        intent = await fetch(desk, desk.link.client.v1.payment_intents.retrieve_async, payment.stripe_intent_id)
        said = intent.next_action.display_bank_transfer_instructions if intent.next_action is not None else None
        if said is not None and said.amount_remaining is not None and said.amount_remaining < intent.amount:
            return True
    return False


async def _give_up(desk: Desk, payment: Payment) -> None:
    """Of a transfer that came as another amount nothing more is awaited; paid in this moment, it is booked."""
    assert payment.stripe_intent_id is not None, "it is open"
    if not await cancel(desk, payment.stripe_intent_id):
        await intent_changed(desk, payment.stripe_intent_id)
        return
    async with desk.transaction() as connection:
        said = "A transfer of another amount came: what came is credited by a payment of its own."
        await store.ended(connection, payment, "canceled", failure="another_amount", said=said)


async def _planned(desk: Desk, gateway_id: UUID, left: int, currency: str) -> str:
    amount = amount_of(min(left, MAXIMUM_MINOR), currency)  # the rest with the event that tells of this
    try:
        minor_of(amount, currency)
    except InvalidRequest as refused:
        return f"{show(left, currency)} stays in the cash balance: {refused}"
    try:
        async with desk.transaction() as connection:
            await plan(connection, gateway_id, "cash_balance", amount, "a bank transfer that was left over")
    except DBAPIError as error:
        diagnosis = getattr(error.orig, "diag", None)
        if diagnosis is None or diagnosis.constraint_name != "payment_cash_in_flight":
            raise
        return "what is left in the cash balance is being taken already"
    return f"{show(left, currency)} of the cash balance becomes credit"


async def plan(connection: AsyncConnection, gateway_id: UUID, method: str, amount: Any, reason: str) -> None:
    """A payment that nobody asked for: the clerk is woken by it. DBAPIError where one like it is in flight."""
    query = text("SELECT plan_payment(:id, :gateway, :method, :amount, :reason, :actor)")
    values = {"id": uuid7(), "gateway": gateway_id, "method": method, "amount": amount, "reason": reason}
    await connection.execute(query, {**values, "actor": ACTOR})
