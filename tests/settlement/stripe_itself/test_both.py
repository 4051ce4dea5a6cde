"""What is promised of invoices, over the local Stripe and over Stripe itself: where they differ, the local one lies.

    STRIPE_TEST_KEY=sk_test_… make test TESTS=tests/settlement/stripe_itself

The key must be allowed to write customers, invoices, payments, refunds, Checkout sessions and test clocks, and to read
disputes. What is made stays in the account's test data, under customers of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from clearinghouse.ids import show
from settlement.customers.details import GATEWAY_KEY
from settlement.invoices.handler import heard_of_invoice
from tests.parts.invoiced import Debtor
from tests.settlement.stripe_itself.parts import Tried, over_local_stripe, over_stripe_itself

DAY_S = 86_400
CLOCK_WITHIN_S = 120


@pytest.fixture(params=["local", "itself"])
async def tried(request: pytest.FixtureRequest, database: str) -> AsyncIterator[Tried]:
    over = over_local_stripe if request.param == "local" else over_stripe_itself
    async with over(database) as found:
        yield found


@pytest.fixture
async def itself(database: str) -> AsyncIterator[Tried]:
    """For what the local Stripe has not: test clocks."""
    async with over_stripe_itself(database) as found:
        yield found


async def test_an_invoice_is_sent_and_says_what_our_row_says(tried: Tried) -> None:
    house = tried.house
    acme = await house.gateway("acme", po_number="PO 4711", net_days=30)
    for charge in ("3.3349", "3.3349", "1.5"):
        house.use(acme, charge, app=charge)
    house.close(acme)
    walked = await house.run()
    assert (walked.held, walked.away, walked.left_count) == ([], None, 0)
    (theirs,), ours = await tried.invoices_of(acme), await house.invoice()
    assert (ours.state, ours.stripe_invoice_id, ours.number) == ("open", theirs.id, theirs.number)
    assert (theirs.status, theirs.total, theirs.collection_method) == ("open", 817, "send_invoice")
    assert [(field.name, field.value) for field in theirs.custom_fields or []] == [("PO number", "PO 4711")]
    assert house.balance(acme) == Decimal("-8.17")
    house.require_balanced(acme)
    assert await house.hear(ours) == "nothing to do"


async def test_a_card_is_charged_once_and_the_payment_is_booked(tried: Tried) -> None:
    house, acme = tried.house, await _owing(tried, "12.345", collection="charge_automatically")
    await tried.give_card(acme, "pm_card_visa")
    await house.run()
    ours = await house.invoice()
    assert (ours.state, ours.booked_minor, ours.remaining_minor) == ("paid", 1235, 0)
    assert house.entries(acme, "payment") == [Decimal("12.35")]
    assert house.balance(acme) == 0
    again = await house.run()
    assert again.invoices == []
    assert len(await tried.invoices_of(acme)) == 1


async def test_a_declined_card_leaves_the_invoice_open_and_nothing_booked(tried: Tried) -> None:
    house, acme = tried.house, await _owing(tried, "50", collection="charge_automatically")
    await tried.give_card(acme, "pm_card_chargeCustomerFail")
    await house.run()
    ours = await house.invoice()
    assert (ours.state, ours.pay_attempts_count) == ("open", 1)
    assert ours.problem is not None
    assert "declined" in ours.problem
    assert house.entries(acme, "payment") == []


async def test_an_invoice_that_somebody_voids_at_stripe_is_void_here(tried: Tried) -> None:
    house, acme = tried.house, await _owing(tried, "20")
    await house.run()
    ours = await house.invoice()
    await tried.client.v1.invoices.void_invoice_async(ours.at_stripe)
    await heard_of_invoice(house.desk, ours.at_stripe)
    assert (await house.invoice()).state == "void"
    house.require_balanced(acme)


async def test_an_invoice_that_is_paid_another_way_is_paid_here_to_the_cent(tried: Tried) -> None:
    house, acme = tried.house, await _owing(tried, "20.005")
    await house.run()
    ours = await house.invoice()
    await tried.client.v1.invoices.pay_async(ours.at_stripe, {"paid_out_of_band": True})
    await heard_of_invoice(house.desk, ours.at_stripe)
    assert (await house.invoice()).state == "paid"
    house.require_balanced(acme)


async def test_an_invoice_is_due_by_the_clock_of_its_customer_and_stays_open_when_that_has_passed(
    itself: Tried,
) -> None:
    house, client = itself.house, itself.client
    begins_s = int(time.time())
    clock = await client.v1.test_helpers.test_clocks.create_async({"frozen_time": begins_s, "name": "clearinghouse"})
    try:
        acme = await house.gateway("acme", net_days=30)
        metadata = {GATEWAY_KEY: show("gw", acme.id)}
        made = await client.v1.customers.create_async({"test_clock": clock.id, "metadata": metadata})
        house.owner.execute("UPDATE customer SET stripe_customer_id = %s WHERE gateway_id = %s", [made.id, acme.id])
        house.use(acme, "20")
        house.close(acme)
        await house.run()
        ours = await house.invoice()
        assert ours.due_at is not None
        assert abs(ours.due_at - datetime.fromtimestamp(begins_s, UTC) - timedelta(days=30)) < timedelta(hours=1)
        await client.v1.test_helpers.test_clocks.advance_async(clock.id, {"frozen_time": begins_s + 31 * DAY_S})
        async with asyncio.timeout(CLOCK_WITHIN_S):
            while (await client.v1.test_helpers.test_clocks.retrieve_async(clock.id)).status != "ready":
                await asyncio.sleep(1)
        await house.hear(ours)
        assert (await house.invoice()).state == "open", "overdue is no state of its own: dunning goes by the due date"
        house.require_balanced(acme)
    finally:
        await client.v1.test_helpers.test_clocks.delete_async(clock.id)


async def _owing(tried: Tried, charge: str, **details: Any) -> Debtor:
    """With a period that is closed."""
    acme = await tried.house.gateway("acme", **details)
    tried.house.use(acme, charge)
    tried.house.close(acme)
    return acme
