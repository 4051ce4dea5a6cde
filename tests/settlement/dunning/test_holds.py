"""From invoices that are not paid to what is not signed and what is told; in PostgreSQL, in the worker's role."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.config_alerts import AlertSettings, NoticeSettings
from clearinghouse.config_dunning import DunningSettings
from clearinghouse.database.connect import ADMIN_ROLE, WORK_ROLE, async_engine, in_role
from clearinghouse.identity import gateways
from clearinghouse.ids import uuid7
from settlement.alerts.evaluate import evaluation_of
from settlement.alerts.observe import observe
from settlement.dunning.holds import Dunning
from settlement.notices.evaluate import NoticeEvaluation, told_so_far
from settlement.schedule import Tick
from tests.settlement.conftest import Owner

DUE = datetime(2026, 11, 15, tzinfo=UTC)
SETTINGS = DunningSettings(reminder_days=(-3, 7), new_sessions_days=14, signing_days=30)

INSERT = """
    INSERT INTO invoice (id, gateway_id, kind, begins_at, ends_at, first_day, next_day, currency, decimals, exact,
                         total_minor, state, stripe_customer_id, stripe_invoice_id, number, hosted_url, remaining_minor,
                         finalized_at, due_at)
    VALUES (%(id)s, %(gateway)s, 'usage', %(begins)s, %(begins)s + interval '1 day', '2026-10-01', '2026-11-01', 'USD',
            2, 12.5, 1250, %(state)s, 'cus_1', %(stripe)s, %(number)s, 'https://pay.example/7', 1250, %(due)s, %(due)s)
"""


@dataclass
class House:
    owner: Owner
    work: AsyncEngine
    gateway_id: UUID

    def issue(self, number: str, due_at: datetime = DUE, state: str = "open") -> UUID:
        invoice_id = uuid7()
        values = {"id": invoice_id, "gateway": self.gateway_id, "begins": due_at, "due": due_at, "state": state}
        self.owner.execute(INSERT, {**values, "stripe": f"in_{number}", "number": number})
        return invoice_id

    def pay(self, invoice_id: UUID) -> None:
        query = "UPDATE invoice SET state = 'paid', remaining_minor = 0, ended_at = now() WHERE id = %s"
        self.owner.execute(query, [invoice_id])

    async def on_day(self, day: int) -> tuple[str, str]:
        """The hold after a turn, so many days after DUE."""
        await Dunning(SETTINGS).tick(Tick(self.work, DUE + timedelta(days=day)))
        row = self.owner.execute("SELECT billing_hold, billing_hold_reason FROM gateway").fetchone()
        assert row is not None
        return row[0], row[1]

    async def told_on(self, day: int) -> list[tuple[str, dict[str, Any]]]:
        """Notices that were new, so many days after DUE."""
        query = "SELECT type, data FROM notice WHERE number > %s ORDER BY number"
        (before,) = self.owner.execute("SELECT coalesce(max(number), 0) FROM notice").fetchone() or (0,)
        await NoticeEvaluation(NoticeSettings(), SETTINGS).tick(Tick(self.work, DUE + timedelta(days=day)))
        return [(type_, dict(data)) for type_, data in self.owner.execute(query, [before])]


@pytest.fixture
async def house(database: str, owner: Owner) -> AsyncIterator[House]:
    admin = async_engine(in_role(database, ADMIN_ROLE))
    async with admin.begin() as connection:
        gateway_id = (await gateways.create(connection, "acme")).id
    await admin.dispose()
    work = async_engine(in_role(database, WORK_ROLE), pool_size=2)
    yield House(owner, work, gateway_id)
    await work.dispose()


@pytest.mark.parametrize("state", ["open", "finalized"])  # one that could not be sent can be paid all the same
async def test_what_is_overdue_stops_sessions_then_signing_until_it_is_paid(house: House, state: str) -> None:
    first, second = house.issue("LC-7", state=state), house.issue("LC-8", DUE + timedelta(days=20))
    assert await house.on_day(13) == ("none", "")
    reason = "Invoice LC-7 of 12.50 USD was due on 2026-11-15. Pay it at https://pay.example/7"
    assert await house.on_day(14) == ("new_sessions", reason)
    assert await house.on_day(30) == ("signing", reason)
    house.pay(first)
    assert (await house.on_day(35))[0] == "new_sessions", "the other is fifteen days overdue"
    house.pay(second)
    assert await house.on_day(35) == ("none", "")


async def test_a_hold_for_a_dispute_is_neither_eased_nor_lifted_by_dunning(house: House) -> None:
    invoice_id = house.issue("LC-7")
    house.owner.execute("SELECT set_billing_hold(id, 'signing', 'disputed: dp_1', 'dispute') FROM gateway")
    assert await house.on_day(14) == ("signing", "disputed: dp_1")
    house.pay(invoice_id)
    assert await house.on_day(14) == ("signing", "disputed: dp_1")
    house.owner.execute("SELECT set_billing_hold(id, 'none', '', 'dispute') FROM gateway")
    assert await house.on_day(14) == ("none", "")


async def test_a_turn_that_finds_nothing_new_changes_nothing(house: House) -> None:
    house.issue("LC-7")
    turns = [await Dunning(SETTINGS).tick(Tick(house.work, DUE + timedelta(days=20))) for _ in range(2)]
    assert turns == ["1 holds changed", "no hold changed"]


async def test_a_gateway_hears_of_its_invoice_its_reminders_its_hold_and_its_payment(house: House) -> None:
    assert [type_ for type_, _ in await house.told_on(-20)] == ["balance.depleted"]
    invoice_id = house.issue("LC-7")
    ((type_, data),) = await house.told_on(-10)
    assert type_ == "invoice.issued"
    assert json.dumps(data, sort_keys=True) == json.dumps(
        {
            "invoice_id": f"inv_{invoice_id.hex}", "invoice": "LC-7", "amount": "12.50", "currency": "USD",
            "due_at": "2026-11-15T00:00:00.000000Z", "url": "https://pay.example/7",
        },
        sort_keys=True,
    )  # fmt: skip
    assert await house.told_on(-4) == []
    assert [type_ for type_, _ in await house.told_on(-3)] == ["invoice.reminder"]
    assert await house.told_on(6) == []
    await house.on_day(14)
    assert [type_ for type_, _ in await house.told_on(14)] == ["billing.held", "invoice.reminder"]
    house.pay(invoice_id)
    await house.on_day(14)
    assert [type_ for type_, _ in await house.told_on(14)] == ["billing.released", "invoice.paid"]
    assert await house.told_on(40) == []


async def test_what_a_card_pays_before_it_was_told_of_is_told_of_once(house: House) -> None:
    await house.told_on(0)
    house.pay(house.issue("LC-7"))
    assert [type_ for type_, _ in await house.told_on(0)] == ["invoice.paid"]
    assert await house.told_on(1) == []


async def test_what_is_done_with_is_not_read_at_every_turn(house: House) -> None:
    invoice_id = house.issue("LC-7")
    await house.told_on(0)
    house.pay(invoice_id)
    await house.told_on(1)
    async with house.work.connect() as connection:
        subjects = (await told_so_far(connection))[house.gateway_id].keys()
    assert f"inv_{invoice_id.hex}" not in subjects
    assert "balance" in subjects


async def test_operators_are_alerted_of_overdue_invoices_until_they_are_paid(house: House) -> None:
    invoices = [house.issue("LC-7"), house.issue("LC-8", DUE + timedelta(days=20))]
    evaluation, query = (
        evaluation_of(AlertSettings(), observe),
        "SELECT state FROM alert WHERE rule = 'invoices_unpaid'",
    )

    async def said_on(day: int) -> str:
        return await evaluation.tick(Tick(house.work, DUE + timedelta(days=day)))

    assert "invoices_unpaid" not in await said_on(-1)
    assert "invoices_unpaid firing" in await said_on(1)
    house.pay(invoices[0])
    assert "invoices_unpaid resolved" in await said_on(2)
    assert "invoices_unpaid firing" in await said_on(21)
    house.pay(invoices[1])
    assert "invoices_unpaid resolved" in await said_on(22)
    assert {state for (state,) in house.owner.execute(query)} == {"resolved"}
