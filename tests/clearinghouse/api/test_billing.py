"""GET /v1/billing: how a gateway is billed, and what it owes, as it is in the books."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from clearinghouse.billing import DEFAULT_TERMS
from clearinghouse.config_alerts import NoticeSettings
from clearinghouse.config_dunning import DunningSettings
from clearinghouse.database.connect import WORK_ROLE, async_engine, in_role
from clearinghouse.ids import uuid7
from clearinghouse.instants import rfc3339
from settlement.customers.terms import DEFAULT_TERMS as TERMS
from settlement.customers.terms import terms_row
from settlement.dunning.holds import Dunning
from settlement.notices.evaluate import NoticeEvaluation
from settlement.schedule import Tick
from tests.parts.client import call
from tests.parts.invoiced import Owner
from tests.parts.service import Service, running
from tests.parts.stack import TestGateway


@pytest.fixture
async def service(database: str) -> AsyncIterator[Service]:
    async with running(database) as service:
        yield service


async def billing(service: Service, gateway: TestGateway) -> dict[str, Any]:
    answer = await call(service.port, "GET", "/v1/billing", headers=[("Authorization", gateway.authorization)])
    assert answer.status == 200, answer.body
    document: dict[str, Any] = answer.json
    return document


def test_what_holds_where_nothing_was_agreed_on_is_said_in_one_way() -> None:
    row = terms_row(TERMS)
    assert {name: row[name] for name in DEFAULT_TERMS} == DEFAULT_TERMS


async def test_a_gateway_that_nobody_agreed_on_anything_with_is_prepaid(service: Service) -> None:
    gateway = await service.house.new_gateway(tickets=0)
    assert await billing(service, gateway) == {
        "gateway_id": f"gw_{gateway.id.hex}", "currency": "USD", "balance": "0", "credit_limit": "0", "available": "0",
        "terms": {
            "way": "prepaid", "begins_at": None, "cadence": "monthly:1", "time_zone": "UTC", "credit_limit": "0",
            "refill": None, "fee": None, "included": None, "ends_at": None,
        },
        "period": None, "next_change": None, "hold": "none", "hold_reason": "", "open_invoices": [],
        "dunning": {"number": None, "new_sessions_stop_at": None, "signing_stops_at": None},
    }  # fmt: skip


def owes(
    owner: Owner, gateway: TestGateway, number: str, *, begins_at: datetime, due_at: datetime, state: str = "open"
) -> None:
    """10 USD of an invoice. What is inserted later has a later id."""
    owner.execute(
        """INSERT INTO invoice (id, gateway_id, kind, begins_at, ends_at, first_day, next_day, currency, decimals,
               exact, total_minor, state, stripe_invoice_id, stripe_customer_id, finalized_at, due_at, number,
               remaining_minor, hosted_url)
           VALUES (%s, %s, 'usage', %s, now(), '2026-11-12', '2026-11-19', 'USD', 2, 12.345, 1235, %s, 'in_' || %s,
                   'cus_1', now(), %s, %s, 1000, 'https://pay.example/CH')""",
        [uuid7(), gateway.id, begins_at, state, number, due_at, number],
    )


async def test_all_of_it_is_told_also_to_a_gateway_that_is_held_back(service: Service, database: str) -> None:
    gateway = await service.house.new_gateway(tickets=0)
    begun, ends = datetime.now(UTC) - timedelta(days=3), datetime.now(UTC) + timedelta(days=4)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(
            """INSERT INTO billing_terms (gateway_id, begins_at, way, cadence, anchor_day, time_zone, refill_below,
                   refill_to, refill_cooldown_s, refill_day_max, refill_month_max)
               VALUES (%s, %s, 'automatic', 'weekly', 4, 'Asia/Tokyo', 5, 20, 600, 40, 80)""",
            [gateway.id, begun],
        )
        owner.execute(
            """INSERT INTO billing_terms (gateway_id, begins_at, way, credit_limit)
               VALUES (%s, %s, 'postpaid', 7.50)""",
            [gateway.id, ends],
        )
        owner.execute(
            "INSERT INTO current_period VALUES (%s, %s, %s, '2026-11-19', '2026-11-26')", [gateway.id, begun, ends]
        )
        owner.execute("SELECT set_billing_hold(%s, 'signing', 'invoice CH-7 is overdue')", [gateway.id])
        owes(owner, gateway, "CH-7", begins_at=begun - timedelta(days=7), due_at=begun)
        owes(owner, gateway, "CH-8", begins_at=begun - timedelta(days=14), due_at=ends, state="finalized")  # not sent
    told = await billing(service, gateway)
    assert told["terms"] == {
        "way": "automatic", "begins_at": rfc3339(begun), "cadence": "weekly:thu", "time_zone": "Asia/Tokyo",
        "credit_limit": "0", "fee": None, "included": None, "ends_at": None,
        "refill": {"below": "5", "to": "20", "cooldown_s": 600, "day_max": "40", "month_max": "80"},
    }  # fmt: skip
    assert told["period"] == {
        "first_day": "2026-11-19", "last_day": "2026-11-25", "begins_at": rfc3339(begun), "ends_at": rfc3339(ends),
    }  # fmt: skip
    assert (told["next_change"]["way"], told["next_change"]["credit_limit"]) == ("postpaid", "7.5")
    assert (told["hold"], told["hold_reason"]) == ("signing", "invoice CH-7 is overdue")
    assert told["open_invoices"] == [
        {"number": number, "currency": "USD", "amount_due": "10", "due_at": rfc3339(due_at),
         "hosted_url": "https://pay.example/CH", "reminded_at": [],
         "next_reminder_at": rfc3339(due_at + timedelta(days=next_day))}
        for number, due_at, next_day in (("CH-7", begun, 7), ("CH-8", ends, -3))
    ]  # fmt: skip


async def test_every_step_of_dunning_is_told_and_comes_at_the_instant_that_was_told(database: str) -> None:
    days = {"reminder_days": [-3, 1, 5], "new_sessions_days": 6, "signing_days": 8}
    async with running(database, dunning=days) as service:
        await _through_dunning(service, database, DunningSettings.model_validate(days))


async def _through_dunning(service: Service, database: str, settings: DunningSettings) -> None:
    gateway, due_at = await service.house.new_gateway(tickets=0), datetime.now(UTC) - timedelta(days=2)
    nothing = {"number": None, "new_sessions_stop_at": None, "signing_stops_at": None}
    work = async_engine(in_role(database, WORK_ROLE), pool_size=2)
    notices, dunning = NoticeEvaluation(NoticeSettings(), settings), Dunning(settings)
    with psycopg.connect(database, autocommit=True) as owner:
        for number in ("CH-8", "CH-7"):  # due at once, as a fee and usage may be: the number decides
            owes(owner, gateway, number, begins_at=due_at - timedelta(days=int(number[-1])), due_at=due_at)
        for day in (-10, -3, 1):  # the first tells of the invoice itself
            await notices.tick(Tick(work, due_at + timedelta(days=day)))
        told = await billing(service, gateway)
        invoice, _ = told["open_invoices"]
        assert invoice["reminded_at"] == [rfc3339(due_at + timedelta(days=day)) for day in (-3, 1)]
        assert invoice["next_reminder_at"] == rfc3339(due_at + timedelta(days=5))
        assert (invoice["number"], told["dunning"]["number"]) == ("CH-7", "CH-7")
        holds = []
        for step in ("new_sessions_stop_at", "signing_stops_at"):
            at = datetime.fromisoformat(told["dunning"][step])
            for now in (at - timedelta(microseconds=1), at):
                await dunning.tick(Tick(work, now))
                holds.append((await billing(service, gateway))["hold"])
        assert holds == ["none", "new_sessions", "new_sessions", "signing"]
        assert (await billing(service, gateway))["hold_reason"].startswith("Invoice CH-7 of ")
        owner.execute("UPDATE invoice SET state = 'paid', remaining_minor = 0, ended_at = now()")
    await work.dispose()
    told = await billing(service, gateway)
    assert (told["open_invoices"], told["dunning"]) == ([], nothing)


async def test_what_was_free_and_has_ended_is_a_hold(service: Service, database: str) -> None:
    gateway = await service.house.new_gateway()
    ended = datetime.now(UTC) - timedelta(seconds=1)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("UPDATE account SET signs_until = %s WHERE id = %s", [ended, gateway.id])
    told = await billing(service, gateway)
    assert (told["hold"], told["hold_reason"]) == ("signing", f"What was free ended at {rfc3339(ended)}.")
