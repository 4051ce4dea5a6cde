"""The process dies at every step of a top-up, one after the other: afterwards there is one charge, and one grant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from clearinghouse.payments import Method
from settlement.customers.stripe_copy import ensure_customer
from settlement.payments.operators import refund
from settlement.stripe_link.desk import Desk
from tests.parts.crashing import Crash, CrashingDesk
from tests.parts.paying import Till


async def stands_up_again(till: Till, gateway: UUID, payment_id: UUID) -> None:
    """Another process: what was begun is taken on again, and Stripe's events come."""
    till.due_now()
    await till.work()
    await till.hear()
    if till.payment(payment_id)["state"] == "open":
        await till.pay_page(payment_id)
        await till.hear()
    await till.sweep()
    assert await till.work() == 0
    assert till.payment(payment_id)["state"] == "succeeded"
    assert till.entries(gateway) == [("payment", Decimal(25))]
    customer_id = till.payment(payment_id)["stripe_customer_id"]
    assert len([one for one in await till.charges() if one.customer == customer_id]) == 1


async def crash_everywhere(till: Till, scenario: Callable[[Desk, int], Awaitable[None]], steps_at_least: int) -> None:
    """`scenario` at a desk that crashes at step 1, 2, … until it meets no crash."""
    step = 0
    while True:
        step += 1
        desk = CrashingDesk(till.desk, step)
        await scenario(desk, step)
        if not desk.fuse.has_blown:
            assert len(desk.fuse.steps) >= steps_at_least, desk.fuse.steps
            return


async def crashed(till: Till, desk: Desk) -> None:
    """The clerk's look, and Stripe's events, at a desk that may crash."""
    healthy = till.desk, till.asking
    till.desk, till.asking = desk, replace(till.asking, desk=desk)
    heard = set(till.heard)
    try:
        await till.work()
        for payment in till.rows("SELECT id FROM payment WHERE state = 'open' AND method = 'checkout'"):
            await till.pay_page(payment["id"])
        await till.hear()
    except Crash:
        till.heard = heard  # what was not acted upon is delivered again
    finally:
        till.desk, till.asking = healthy


@pytest.mark.parametrize(("method", "steps_at_least"), [("checkout", 12), ("card", 8)])
async def test_a_crash_at_any_step_of_a_topup_leaves_one_charge_and_one_grant(
    till: Till, method: Method, steps_at_least: int
) -> None:
    async def scenario(desk: Desk, step: int) -> None:
        gateway = await till.new_gateway()
        if method == "card":
            await till.save_card(gateway)
        payment_id = await till.ask(gateway, method, "25")
        await crashed(till, desk)
        await stands_up_again(till, gateway, payment_id)

    await crash_everywhere(till, scenario, steps_at_least)
    assert till.parked == []
    made = len(till.rows("SELECT 1 FROM payment WHERE method <> 'setup'"))
    assert len(await till.charges()) == made


async def test_a_crash_at_any_step_of_a_declined_charge_leaves_nothing_that_could_be_paid(till: Till) -> None:
    async def scenario(desk: Desk, step: int) -> None:
        gateway = await till.new_gateway()
        customer_id = await ensure_customer(till.desk, gateway)
        card: Any = {"customer": customer_id}
        method = await till.sdk.v1.payment_methods.attach_async("pm_card_chargeCustomerFail", card)
        till.rows("INSERT INTO saved_card VALUES (%s, %s, 'visa', '0341', 12, 2030) RETURNING 1", gateway, method.id)
        payment_id = await till.ask(gateway, "card", "25")
        await crashed(till, desk)
        await till.hear()
        till.due_now()
        await till.work()
        ended = till.payment(payment_id)
        assert (ended["state"], ended["failure"]) == ("failed", "generic_decline")
        intents = (await till.sdk.v1.payment_intents.list_async({"customer": customer_id})).data
        assert [one.status for one in intents] == ["canceled"]

    await crash_everywhere(till, scenario, 8)
    assert till.parked == []


async def test_a_crash_at_any_step_of_a_transfer_leaves_one_that_says_where_to(till: Till) -> None:
    async def scenario(desk: Desk, step: int) -> None:
        gateway = await till.new_gateway()
        payment_id = await till.ask(gateway, "bank_transfer", "25")
        await crashed(till, desk)
        await till.hear()  # before the clerk is at it again
        till.due_now()
        await till.work()
        asked = till.payment(payment_id)
        assert (asked["state"], asked["url"] is None, asked["instructions"] is None) == ("open", False, False)
        assert asked["expires_at"] > asked["created_at"]
        await till.transferred(gateway, 2500)
        await till.hear()
        assert till.entries(gateway) == [("payment", Decimal(25))]

    await crash_everywhere(till, scenario, 7)
    assert till.parked == []


async def test_a_crash_at_any_step_of_a_refund_leaves_one_refund(till: Till) -> None:
    async def scenario(desk: Desk, step: int) -> None:
        gateway = await till.new_gateway()
        payment_id = await till.asked_at_stripe(gateway, "checkout", "25")
        await till.pay_page(payment_id)
        await till.hear()
        async with till.engine.begin() as connection:
            await refund(connection, payment_id, Decimal(10), reason="a mistake", actor="cli:ann")
        await crashed(till, desk)
        till.due_now()
        await till.work()
        await till.hear()
        assert till.entries(gateway) == [("payment", Decimal(25)), ("refund", Decimal(-10))]
        charge_id = till.payment(payment_id)["stripe_charge_id"]
        assert [one.amount for one in (await till.sdk.v1.refunds.list_async({"charge": charge_id})).data] == [1000]

    await crash_everywhere(till, scenario, 8)
    assert till.parked == []
