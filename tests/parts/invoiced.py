"""Gateways that owe, closed periods of theirs, and a local Stripe to ask them for it.

async with invoiced(database) as house:
    acme = await house.gateway("acme")
    house.use(acme, "12.3456")
    house.close(acme)
    await house.run()
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import stripe
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.config_invoices import InvoiceSettings
from clearinghouse.database.connect import ADMIN_ROLE, WORK_ROLE, async_engine, in_role
from clearinghouse.identity import gateways, keys
from clearinghouse.ids import uuid7
from clearinghouse.ledger.transfers import EntryKind, book, grant
from settlement.customers.stripe_copy import ensure_customer
from settlement.invoices.defaults import InvoiceDefaults
from settlement.invoices.handler import heard_of_invoice
from settlement.invoices.run import Planned, Walked, plan_due, waiting_invoices, walk_all
from settlement.invoices.store import Choice, Invoice, newest
from settlement.invoices.walk import Walker
from settlement.payments.cards import save_card
from settlement.stripe_link.desk import Desk
from tests.parts.books import commit, usage_costing
from tests.parts.stripe import LinkedStripe, linked_elsewhere, linked_stripe

Owner = psycopg.Connection[tuple[Any, ...]]
FIRST_DAY = date(2026, 8, 1)
DAY_S = 86_400
PEPPER = b"p" * 32


@dataclass(frozen=True)
class Debtor:
    id: UUID
    name: str
    key_id: UUID


@dataclass
class Invoiced:
    """`owner` is past all rights; `engine` is in the worker's role. Every closed period is called as the next month.
    `defaults` is as the settings are unless a test has it otherwise."""

    conninfo: str
    owner: Owner
    admin: AsyncEngine
    engine: AsyncEngine
    stripe: LinkedStripe
    months: dict[UUID, int] = field(default_factory=dict)
    defaults: InvoiceDefaults = field(default_factory=InvoiceDefaults)

    # --- who owes, and why ----------------------------------------------------------------------------------------

    async def gateway(
        self, name: str = "acme", *, currency: str = "USD", card: str | None = None, pays: bool = True, **details: Any
    ) -> Debtor:
        """With a customer, unless nobody `pays` for it; with a `card` it is charged by itself."""
        async with self.admin.begin() as connection:
            made = await gateways.create(connection, name, currency=currency, credit_limit=Decimal(10**9))
            key = await keys.create(connection, made.id, pepper=PEPPER)
        if pays:
            details.setdefault("collection", "charge_automatically" if card else "send_invoice")
            columns = {"gateway_id": made.id, "name": name, "email": f"{name}@example.org", **details}
            names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
            self.owner.execute(f"INSERT INTO customer ({names}) VALUES ({marks})", list(columns.values()))
        debtor = Debtor(made.id, name, key.key.id)
        if card is not None:
            await self.card(debtor, card)
        return debtor

    async def card(self, debtor: Debtor, card: str) -> None:
        """It has saved this card, as when Stripe tells of one that was entered at its page."""
        customer_id = await self.customer_at_stripe(debtor)
        attach = self.stripe.running.client.v1.payment_methods.attach_async
        method = await attach(card, {"customer": customer_id})
        await save_card(self.desk, debtor.id, method.id)

    async def customer_at_stripe(self, debtor: Debtor) -> str:
        """Its id there."""
        return await ensure_customer(self.desk, debtor.id)

    def use(self, debtor: Debtor, charge: str, *, app: str = "app") -> None:
        """A multiple of 2e-15, used by an application."""
        call = usage_costing(debtor.id, debtor.key_id, Decimal(charge))
        refusal, _ = commit(self.owner, call)
        assert refusal is None
        self.owner.execute("UPDATE session SET app = %s WHERE id = %s", [app, call.session_id])

    async def enter(self, debtor: Debtor, kind: EntryKind | str, amount: str) -> None:
        """An entry of the books that is no invoice's."""
        async with self.admin.begin() as connection:
            if kind == "grant":
                await grant(connection, debtor.id, Decimal(amount), reason="a test", actor="test")
            else:
                key = str(uuid7())
                await book(connection, debtor.id, kind, Decimal(amount), key=key, reason="a test", actor="test")  # type: ignore[arg-type]

    def close(self, debtor: Debtor, *, way: str = "postpaid", until: datetime | None = None) -> date:
        """The period up to now, or until then. Returns its first day."""
        months = self.months[debtor.id] = self.months.get(debtor.id, -1) + 1
        first_day, next_day = _month(months), _month(months + 1)
        query = """
            WITH newest AS (SELECT max(ends_at) AS at FROM billing_period WHERE gateway_id = %(id)s)
            SELECT coalesce(newest.at, gateway.created_at), coalesce(%(until)s, clock_timestamp())
              FROM gateway, newest WHERE id = %(id)s"""
        begins_at, ends_at = self.value(query, id=debtor.id, until=until)
        self.owner.execute("SELECT seal_books(%s, %s, true)", [[debtor.id], [ends_at]])
        closed = "SELECT o_outcome FROM close_periods(%s, %s, %s, %s, %s, %s, %s)"
        values: list[Any] = [debtor.id, begins_at, ends_at, first_day, next_day, way, "UTC"]
        ((outcome,),) = self.owner.execute(closed, [[value] for value in values])
        assert outcome == "closed", outcome
        return first_day

    def takes_debits(self) -> None:
        """Invoices are paid by what Stripe has switched on, bank debits among it, from now on."""
        self.defaults = InvoiceDefaults(InvoiceSettings(payment_methods=("automatic",)))

    # --- what is done about it ----------------------------------------------------------------------------------------

    @property
    def desk(self) -> Desk:
        return Desk(self.stripe.link, self.engine)

    def walker(self, desk: Desk | None = None) -> Walker:
        """One that does not wait for what somebody had begun who is no more."""
        return Walker(desk or self.desk, ensure_customer, lease=timedelta(0))

    async def plan(self, choice: Choice | None = None) -> Planned:
        return await plan_due(self.engine, choice or Choice(), defaults=self.defaults)

    async def walk(self, desk: Desk | None = None, *, in_flight_count: int = 4) -> Walked:
        """Everything that waits, now, also what has had a problem."""
        walker = self.walker(desk)
        waiting = await waiting_invoices(walker.desk.engine, Choice(), await walker.desk.now(), not_since=None)
        return await walk_all(walker, waiting, in_flight_count=in_flight_count)

    async def run(self, desk: Desk | None = None) -> Walked:
        """Both, as the job does them."""
        planned = await self.plan()
        assert planned.problems == []
        return await self.walk(desk)

    async def hear(self, invoice: Invoice) -> str:
        """As if Stripe had told that there is news of it."""
        return await heard_of_invoice(self.desk, invoice.at_stripe)

    # --- what came of it ----------------------------------------------------------------------------------------

    def value(self, query: str, **values: Any) -> Any:
        row = self.owner.execute(query, values).fetchone()
        assert row is not None
        return row[0] if len(row) == 1 else row

    async def invoices(self) -> list[Invoice]:
        """Ours; the newest period first."""
        async with self.engine.connect() as connection:
            return await newest(connection, Choice(), [], 1000)

    async def invoice(self) -> Invoice:
        """The only one."""
        (one,) = await self.invoices()
        return one

    async def at_stripe(self, **of: Any) -> list[stripe.Invoice]:
        """Stripe's, drafts and all; the newest first. `of` a customer, or of all."""
        page = await self.stripe.running.client.v1.invoices.list_async({"limit": 100, **of})  # type: ignore[arg-type]
        return list(page.data)

    async def charges(self, **of: Any) -> list[stripe.Charge]:
        """Of cards that were charged."""
        page = await self.stripe.running.client.v1.charges.list_async({"limit": 100, **of})  # type: ignore[arg-type]
        return [charge for charge in page.data if charge.paid]

    async def news(self, heard: Container[str]) -> list[stripe.Event]:
        """Stripe's events after the newest that was heard of, the newest first."""
        found: list[stripe.Event] = []
        async for one in self.stripe.link.each(self.stripe.running.client.v1.events.list_async, params={}):
            if one.id in heard:
                break
            found.append(one)
        return found

    def balance(self, debtor: Debtor) -> Decimal:
        return Decimal(self.value("SELECT balance FROM account WHERE id = %(id)s", id=debtor.id))

    def unbilled(self, debtor: Debtor) -> Decimal:
        """What is owed and no invoice has asked for, by now."""
        return Decimal(self.value("SELECT unbilled(%(id)s, clock_timestamp(), %(balance)s)", id=debtor.id,
                                  balance=self.balance(debtor)))  # fmt: skip

    def open_total(self, debtor: Debtor) -> Decimal:
        """What open invoices ask for and is not paid, without taxes."""
        query = """SELECT coalesce(sum((total_minor - booked_minor - credited_minor) / power(10::numeric, decimals)), 0)
                     FROM invoice
                    WHERE gateway_id = %(id)s AND state IN ('finalized', 'open', 'uncollectible')"""
        return Decimal(self.value(query, id=debtor.id))

    def entries(self, debtor: Debtor, kind: str) -> list[Decimal]:
        query = "SELECT amount FROM account_entry WHERE gateway_id = %s AND kind = %s ORDER BY created_at"
        return [amount for (amount,) in self.owner.execute(query, [debtor.id, kind])]

    def require_balanced(self, debtor: Debtor) -> None:
        """The books say exactly what invoices ask for, and what they will ask for."""
        assert self.balance(debtor) == -self.open_total(debtor) - self.unbilled(debtor)


def _month(number: int) -> date:
    year, month = divmod(FIRST_DAY.year * 12 + FIRST_DAY.month - 1 + number, 12)
    return date(year, month + 1, 1)


@asynccontextmanager
async def invoiced(conninfo: str, *, stripe_url: str | None = None, **settings: Any) -> AsyncIterator[Invoiced]:
    """`settings` are of the link to Stripe: to one in this process, unless it listens at `stripe_url`."""
    admin = async_engine(in_role(conninfo, ADMIN_ROLE))
    engine = async_engine(in_role(conninfo, WORK_ROLE), pool_size=10)
    try:
        async with linked_stripe(**settings) if stripe_url is None else linked_elsewhere(stripe_url) as linked:
            with psycopg.connect(conninfo, autocommit=True) as owner:
                yield Invoiced(conninfo, owner, admin, engine, linked)
    finally:
        await admin.dispose()
        await engine.dispose()
