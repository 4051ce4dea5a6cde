"""A gateway that pays through a local Stripe: our side of it in steps, so that a test can stand between any two.

async with paying(database) as till:
    gateway = await till.new_gateway()
    payment_id = await till.ask(gateway, "checkout", "25")
    await till.work()                            # the clerk: asks Stripe
    await till.stripe.control(f"checkout/{…}/pay")
    await till.hear()                            # Stripe's events, each to its handler
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import stripe
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse import payments, stripe_events
from clearinghouse.config_payments import PaymentSettings
from clearinghouse.database.connect import ADMIN_ROLE, WORK_ROLE, async_engine, in_role
from clearinghouse.identity import gateways
from clearinghouse.ledger import transfers
from settlement.customers.store import set_details
from settlement.customers.stripe_copy import ensure_customer
from settlement.payments.asking import Asking
from settlement.payments.clerk import take_on
from settlement.stripe_link.desk import Desk, Park
from settlement.stripe_link.handlers import HANDLERS, SWEEPABLES
from tests.parts.invoiced import Invoiced
from tests.parts.stripe import LinkedStripe, linked_stripe

RETURN_URL = "https://console.clearinghouse.example/billing"


@dataclass
class Till:
    """`desk` and `asking` are the worker's; `engine` an operator's; `heard` which events have been handled."""

    conninfo: str
    stripe: LinkedStripe
    engine: AsyncEngine
    desk: Desk
    asking: Asking
    heard: set[str] = field(default_factory=set)
    parked: list[str] = field(default_factory=list)

    @property
    def sdk(self) -> stripe.StripeClient:
        """What others do at Stripe."""
        return self.stripe.running.client

    async def new_gateway(self, *, currency: str = "USD", credit: Decimal | None = None) -> UUID:
        """With a customer at Stripe, and no credit unless some is given."""
        async with self.engine.begin() as connection:
            gateway = await gateways.create(connection, f"gateway-{random.randbytes(4).hex()}", currency=currency)
            if credit is not None:
                await transfers.grant(connection, gateway.id, credit, reason="a test", actor="test")
            details = {"name": "A gateway", "email": "billing@gateway.example"}
            await set_details(connection, gateway.id, details, actor="test")
        await ensure_customer(self.desk, gateway.id)
        return gateway.id

    async def ask(self, gateway_id: UUID, method: payments.Method, amount: str | None, **further: Any) -> UUID:
        async with self.engine.begin() as connection:
            exact = Decimal(amount) if amount is not None else None
            return await payments.request(connection, gateway_id, method, exact, actor="test", **further)

    async def work(self) -> int:
        """One look of the clerk's. How many it took on."""
        attempts = await take_on(self.asking)
        await asyncio.gather(*attempts)
        return len(attempts)

    async def asked_at_stripe(self, gateway_id: UUID, method: payments.Method, amount: str | None, **how: Any) -> UUID:
        """Asked for and taken on."""
        payment_id = await self.ask(gateway_id, method, amount, **how)
        await self.work()
        return payment_id

    async def events(self) -> list[stripe.Event]:
        """All that Stripe has, oldest first."""
        found = [one async for one in self.stripe.link.each(self.sdk.v1.events.list_async, params={})]
        return found[::-1]

    async def news(self) -> list[stripe.Event]:
        """Those after the newest that was heard of."""
        found: list[stripe.Event] = []
        async for one in self.stripe.link.each(self.sdk.v1.events.list_async, params={}):
            if one.id in self.heard:
                break
            found.append(one)
        return found[::-1]

    async def hear(self, *, repeat: int = 1, shuffle: random.Random | None = None, lose_percent: int = 0) -> list[str]:
        """What has happened at Stripe since the last time, each to its handler. What was parked is in `parked`."""
        told = await self.news()
        self.heard |= {event.id for event in told}
        kept = [event for event in told if shuffle is None or shuffle.randrange(100) >= lose_percent] * repeat
        if shuffle is not None:
            shuffle.shuffle(kept)
        return [said for event in kept if (said := await self.handled(event)) is not None]

    async def handled(self, event: stripe.Event) -> str | None:
        """None where no handler is there for it."""
        about: Mapping[str, Any] = event.data.object.to_dict()
        async with self.desk.transaction() as connection:
            await stripe_events.store(connection, [stripe_events.event_of(str(event).encode())], "delivered")
        return await self.handle(str(about["object"]), str(about.get("id")))

    async def handle(self, kind: str, object_id: str) -> str | None:
        if kind not in HANDLERS:
            return None
        try:
            return await HANDLERS[kind](self.desk, object_id)
        except Park as reason:
            self.parked.append(str(reason))
            return None

    async def sweep(self) -> list[str]:
        """Everything that is not final, once."""
        said = []
        for kind, sweepable in SWEEPABLES.items():
            async with self.desk.engine.connect() as connection:
                ids = await sweepable(connection, "", 1000)
            said += [await self.handle(kind, object_id) or "" for object_id in ids]
        return said

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """As the owner of the database."""
        with psycopg.connect(self.conninfo, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def payment(self, payment_id: UUID) -> dict[str, Any]:
        (row,) = self.rows("SELECT * FROM payment WHERE id = %s", payment_id)
        return row

    def payments(self, gateway_id: UUID) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM payment WHERE gateway_id = %s ORDER BY id", gateway_id)

    def entries(self, gateway_id: UUID) -> list[tuple[str, Decimal]]:
        """Kind and signed amount, in their order."""
        query = """
            SELECT kind, CASE WHEN destination = %s THEN amount ELSE -amount END AS amount FROM transfer
             WHERE %s IN (source, destination) ORDER BY created_at
        """
        return [(row["kind"], row["amount"]) for row in self.rows(query, gateway_id, gateway_id)]

    def balance(self, gateway_id: UUID) -> Decimal:
        ((balance,),) = [row.values() for row in self.rows("SELECT balance FROM account WHERE id = %s", gateway_id)]
        return Decimal(balance)

    def hold(self, gateway_id: UUID) -> str:
        (row,) = self.rows("SELECT billing_hold FROM gateway WHERE id = %s", gateway_id)
        return str(row["billing_hold"])

    def engine_of_work(self) -> AsyncEngine:
        """As a turn of a job has it."""
        return self.desk.engine

    def due_now(self) -> None:
        """What was put off, or is somebody's whose lease still runs, is due at once."""
        self.rows("UPDATE payment SET next_attempt_at = now() WHERE state = 'requested' RETURNING 1")
        self.rows("UPDATE refund SET next_attempt_at = now() WHERE state = 'requested' RETURNING 1")

    async def save_card(self, gateway_id: UUID, card: str = "pm_card_visa") -> None:
        """Through Stripe's page, as a gateway does."""
        payment_id = await self.asked_at_stripe(gateway_id, "setup", None)
        await self.pay_page(payment_id, card)
        await self.hear()
        assert self.payment(payment_id)["state"] == "succeeded"

    async def pay_page(self, payment_id: UUID, card: str = "pm_card_visa") -> None:
        """What the gateway's people do at Stripe's page."""
        session_id = self.payment(payment_id)["stripe_session_id"]
        await self.stripe.control(f"checkout/{session_id}/pay", card=card)

    async def charges(self) -> list[stripe.Charge]:
        """Those that succeeded, of everybody."""
        found = [one async for one in self.stripe.link.each(self.sdk.v1.charges.list_async, params={})]
        return [one for one in found if one.status == "succeeded"]

    async def transferred(self, gateway_id: UUID, minor: int, currency: str = "usd") -> None:
        """A bank transfer of the gateway's arrives at Stripe."""
        customer_id = await ensure_customer(self.desk, gateway_id)
        funding = self.sdk.v1.test_helpers.customers
        await funding.fund_cash_balance_async(customer_id, {"amount": minor, "currency": currency})


def states(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [row["state"] for row in rows]


def till_of(house: Invoiced, **settings: Any) -> Till:
    """Where gateways pay that invoices are issued to, too. `settings` are of PaymentSettings."""
    asking = Asking(house.desk, ensure_customer, PaymentSettings(return_url=RETURN_URL, **settings))
    return Till(house.conninfo, house.stripe, house.admin, house.desk, asking)


@asynccontextmanager
async def paying(conninfo: str, **settings: Any) -> AsyncIterator[Till]:
    """`settings` are of StripeSettings."""
    work = async_engine(in_role(conninfo, WORK_ROLE), pool_size=8)
    admin = async_engine(in_role(conninfo, ADMIN_ROLE))
    try:
        async with linked_stripe(**settings) as linked:
            desk = Desk(linked.link, work)
            asking = Asking(desk, ensure_customer, PaymentSettings(return_url=RETURN_URL))
            yield Till(conninfo, linked, admin, desk, asking)
    finally:
        await work.dispose()
        await admin.dispose()
