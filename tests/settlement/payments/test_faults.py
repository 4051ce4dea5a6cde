"""Stripe is away, slow, or forgets; two do the same; events repeat, overtake each other and get lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from clearinghouse.payments import Method
from settlement.payments.operators import refund
from tests.parts.paying import Till, paying, states

METHODS: tuple[Method, ...] = ("checkout", "card", "bank_transfer")
PATHS = {"checkout": "/v1/checkout/sessions", "card": "/v1/payment_intents", "bank_transfer": "/v1/payment_intents"}


async def gateway_with_card(till: Till) -> UUID:
    gateway = await till.new_gateway()
    await till.save_card(gateway)
    return gateway


async def brought_home(till: Till, gateway: UUID, payment_id: UUID) -> None:
    """What the gateway has to do for it, and what is due by then: one charge, one grant, one thing at Stripe."""
    if till.payment(payment_id)["state"] == "open":
        if till.payment(payment_id)["method"] == "checkout":
            await till.pay_page(payment_id)
        else:
            await till.transferred(gateway, 2500)
    await till.hear()
    await till.work()
    assert till.payment(payment_id)["state"] == "succeeded"
    assert till.entries(gateway) == [("payment", Decimal(25))]
    assert [charge.amount for charge in await till.charges()] == [2500]
    intents = (await till.sdk.v1.payment_intents.list_async()).data
    assert len(intents) == 1
    assert till.parked == []


@pytest.mark.parametrize("method", METHODS)
async def test_stripe_is_down_for_a_day(database: str, method: Method) -> None:
    async with paying(database, retry_for_s=0.2) as till:
        gateway = await gateway_with_card(till)
        await till.stripe.fault("status", status=503, times=None)
        payment_id = await till.ask(gateway, method, "25")
        for _ in range(3):
            await till.work()
            waiting = till.payment(payment_id)
            assert (waiting["state"], waiting["said"]) == ("requested", "Stripe did not answer: it is asked again.")
            assert waiting["next_attempt_at"] > waiting["created_at"]
            till.due_now()
        await till.stripe.works_again()
        await till.stripe.control("clock", advance_s=86_400)
        await till.work()
        await brought_home(till, gateway, payment_id)


@pytest.mark.parametrize("method", METHODS)
async def test_a_storm_of_429s_is_waited_out(till: Till, method: Method) -> None:
    gateway = await gateway_with_card(till)
    payment_id = await till.ask(gateway, method, "25")
    await till.stripe.fault("status", status=429, times=3)
    await till.work()
    await brought_home(till, gateway, payment_id)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["hang_after", "cut_after"])
async def test_an_answer_that_is_lost_after_the_work_was_done_is_found_again(
    database: str, method: Method, kind: str
) -> None:
    async with paying(database, retry_for_s=0.1, call_timeout_s=2) as till:
        gateway = await gateway_with_card(till)
        payment_id = await till.ask(gateway, method, "25")
        await till.stripe.fault(kind, method="POST", path=PATHS[method], times=1)
        await till.work()
        assert till.payment(payment_id)["state"] == "requested"
        till.due_now()
        await till.work()
        await brought_home(till, gateway, payment_id)


@pytest.mark.parametrize("method", METHODS)
async def test_after_a_day_when_stripe_has_forgotten_the_key_what_was_made_is_looked_for(
    database: str, method: Method
) -> None:
    async with paying(database, retry_for_s=0.1, call_timeout_s=2) as till:
        gateway = await gateway_with_card(till)
        payment_id = await till.ask(gateway, method, "25")
        await till.stripe.fault("cut_after", method="POST", path=PATHS[method], times=1)
        await till.work()
        await till.stripe.control("clock", advance_s=20 * 3600 if method == "checkout" else 90_000)
        till.rows("UPDATE payment SET asked_at = asked_at - interval '25 hours' RETURNING 1")
        till.due_now()
        await till.work()
        assert till.payment(payment_id)["keys_count"] == 1
        await brought_home(till, gateway, payment_id)


@pytest.mark.parametrize("method", METHODS)
async def test_after_a_day_without_anything_made_a_new_key_is_used(database: str, method: Method) -> None:
    async with paying(database, retry_for_s=0.1) as till:
        gateway = await gateway_with_card(till)
        payment_id = await till.ask(gateway, method, "25")
        await till.stripe.fault("status", method="POST", status=503, times=1)
        await till.work()
        till.rows("UPDATE payment SET asked_at = asked_at - interval '25 hours' RETURNING 1")
        till.due_now()
        await till.work()
        assert till.payment(payment_id)["keys_count"] == 2
        await brought_home(till, gateway, payment_id)


@pytest.mark.parametrize("method", METHODS)
async def test_two_workers_at_one_payment_make_one_thing(till: Till, method: Method) -> None:
    gateway = await gateway_with_card(till)
    payment_id = await till.ask(gateway, method, "25")
    (row,) = till.rows("SELECT * FROM payment WHERE id = %s", payment_id)
    assert row["state"] == "requested"
    taken = []
    for _ in range(3):  # the lease of each is over before it has done anything
        await asyncio.to_thread(till.due_now)  # it may have to wait for one of them
        taken.append(asyncio.create_task(till.work()))
        await asyncio.sleep(0.01)
    await asyncio.gather(*taken)
    await brought_home(till, gateway, payment_id)


async def test_a_refund_whose_answer_is_lost_is_made_once_also_after_a_day(database: str) -> None:
    async with paying(database, retry_for_s=0.1, call_timeout_s=2) as till:
        gateway = await gateway_with_card(till)
        payment_id = await till.asked_at_stripe(gateway, "card", "25")
        async with till.engine.begin() as connection:
            await refund(connection, payment_id, Decimal(10), reason="a mistake", actor="cli:ann")
        await till.stripe.fault("cut_after", method="POST", path="/v1/refunds", times=1)
        await till.work()
        await till.stripe.control("clock", advance_s=90_000)
        till.rows("UPDATE refund SET asked_at = asked_at - interval '25 hours' RETURNING 1")
        till.due_now()
        await till.work()
        await till.hear()
        assert till.entries(gateway) == [("payment", Decimal(25)), ("refund", Decimal(-10))]
        assert len((await till.sdk.v1.refunds.list_async()).data) == 1


async def test_a_bug_in_one_request_is_no_reason_to_leave_the_others(till: Till) -> None:
    gateway, other = await till.new_gateway(), await till.new_gateway()
    broken = await till.ask(gateway, "checkout", "25")
    healthy = await till.ask(other, "checkout", "25")

    async def customers(desk: Any, gateway_id: UUID) -> str:
        if gateway_id == gateway:
            raise ZeroDivisionError
        return str(
            till.rows("SELECT stripe_customer_id FROM customer WHERE gateway_id = %s", gateway_id)[0][
                "stripe_customer_id"
            ]
        )

    till.asking = replace(till.asking, customers=customers)
    await till.work()
    assert (till.payment(broken)["state"], till.payment(healthy)["state"]) == ("requested", "open")
    assert "the operator has to look" in till.payment(broken)["said"]


# --- events -----------------------------------------------------------------------------------------------------------


async def some_history(till: Till, dice: random.Random, gateways: list[UUID]) -> None:
    """Payments, refunds and disputes of any kind, by us and by others at Stripe."""
    for _ in range(8):
        gateway = dice.choice(gateways)
        match dice.choice(("checkout", "checkout", "card", "transfer", "refund", "theirs", "dispute", "verdict")):
            case "checkout":
                payment_id = await till.asked_at_stripe(
                    gateway, "checkout", f"{dice.randint(1, 99)}.{dice.randint(10, 99)}"
                )
                await till.pay_page(payment_id, dice.choice(("pm_card_visa", "pm_card_refundFail")))
            case "card":
                await till.asked_at_stripe(gateway, "card", str(dice.randint(1, 50)))
            case "transfer":
                await till.transferred(gateway, dice.randint(60, 9000))
            case "refund":
                await refund_something(till, dice)
            case "theirs":
                if (charge := await some_charge(till, dice)) is not None:
                    await till.sdk.v1.refunds.create_async({"charge": charge.id, "amount": 1})
            case "dispute":
                if (charge := await some_charge(till, dice)) is not None:
                    await till.stripe.control(f"charges/{charge.id}/dispute")
            case _:
                for dispute in (await till.sdk.v1.disputes.list_async()).data:
                    if dispute.status == "needs_response":
                        evidence: Any = {"uncategorized_text": dice.choice(("winning_evidence", "losing_evidence"))}
                        await till.sdk.v1.disputes.update_async(dispute.id, {"evidence": evidence, "submit": True})


async def some_charge(till: Till, dice: random.Random) -> Any:
    found = [one for one in await till.charges() if not one.disputed and one.amount - one.amount_refunded > 10]
    return dice.choice(found) if found else None


async def refund_something(till: Till, dice: random.Random) -> None:
    found = till.rows("SELECT id FROM payment WHERE refundable(id) > 1 ORDER BY id")
    if not found:
        return
    async with till.engine.begin() as connection:
        await refund(connection, dice.choice(found)["id"], Decimal("0.75"), reason="a test", actor="cli:ann")
    await till.work()


async def stripes_sum(till: Till) -> int:
    """What Stripe's own balance says came, went back and was taken back: gross, in minor units."""
    moved = Counter[str]()
    async for one in till.stripe.link.each(till.sdk.v1.balance_transactions.list_async, params={}):
        moved[one.type] += one.amount
    assert set(moved) <= {"charge", "payment", "refund", "refund_failure", "payment_refund", "adjustment"}, moved
    return sum(moved.values())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
async def test_after_any_history_our_entries_are_what_stripes_balance_says(till: Till, seed: int) -> None:
    """Ten times each, shuffled, a fifth lost; then Stripe's list of events, and a sweep."""
    dice = random.Random(seed)
    gateways = [await gateway_with_card(till) for _ in range(2)]
    for _ in range(2):
        await some_history(till, dice, gateways)
        await till.hear(repeat=10, shuffle=dice, lose_percent=20)
    await till.stripe.control("clock", advance_s=3600)  # the banks have sent back what they do not take
    for event in await till.events():  # as the job for lost events does
        await till.handled(event)
    await till.work()
    for event in await till.events():
        await till.handled(event)
    await till.sweep()
    assert till.parked == []
    assert set(states(till.rows("SELECT state FROM payment"))) <= {"succeeded", "failed", "canceled", "expired"}
    entries = [amount for gateway in gateways for _, amount in till.entries(gateway)]
    assert sum(entries) * 100 == await stripes_sum(till)
    again = [till.entries(gateway) for gateway in gateways]
    for event in await till.events():
        await till.handled(event)
    assert [till.entries(gateway) for gateway in gateways] == again
